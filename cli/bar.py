"""A task's progress as a bar on a terminal."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from cli.output import clean, mapping
from cli.progress import Reporter, fraction, summary


class _Words(ProgressColumn):
    """Status and numbers as text: never as rich's markup, which names in them could imitate."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("words", "")), overflow="ellipsis", no_wrap=True)


class _Bar:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Words(),
            console=console,
        )
        self._bar = self._progress.add_task("", total=None, words="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, task: dict[str, Any]) -> None:
        progress = mapping(task.get("progress"))
        share = 1.0 if task["status"] == "COMPLETED" else fraction(progress)
        self._progress.update(
            self._bar,
            description=clean(task["status"]),
            total=None if share is None else 1.0,
            completed=share or 0.0,
            words=summary(progress),
        )


def bar_on(console: Console) -> Reporter:
    """A bar on this console."""
    return _Bar(console)


def bar_on_stderr() -> Reporter | None:
    """A bar, or None where stderr is no terminal that can draw one."""
    console = Console(stderr=True)
    return bar_on(console) if console.is_terminal and not console.is_dumb_terminal else None
