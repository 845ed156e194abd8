"""A task's progress in words, and as plain lines; the bar of a terminal is `cli.bar`'s."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from cli.output import clean, mapping, note

_PLAIN_SECONDS = 5.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def summary(progress: dict[str, Any] | None) -> str:
    """`copy 41% 1.2 GiB/2.9 GiB 120/400 files 85.0 MiB/s eta 0:20`, as far as it is known."""
    if not progress:
        return ""
    share = fraction(progress)
    rate, left = _number(progress.get("speed")), _number(progress.get("eta"))
    parts = [
        str(progress.get("phase") or ""),
        "" if share is None else f"{share:.0%}",
        _of(progress, "bytes", "total_bytes", size),
        _counted(progress),
        *(_some(progress, *names) for names in (("checks", "checked"), ("deletes", "deleted"))),
        f"{size(rate)}/s" if rate else "",
        f"eta {duration(left)}" if left else "",
        _some(progress, "errors", "errors"),
    ]
    return clean(" ".join(part for part in parts if part))


def fraction(progress: dict[str, Any]) -> float | None:
    """How much is done, 0 to 1: by bytes, or by files where there are no bytes to move."""
    for done, total in (("bytes", "total_bytes"), ("files", "total_files")):
        whole = _number(progress.get(total))
        if whole:
            return min(1.0, (_number(progress.get(done)) or 0.0) / whole)
    return None


def _of(progress: dict[str, Any], done: str, total: str, show: Callable[[float], str]) -> str:
    value, whole = _number(progress.get(done)), _number(progress.get(total))
    if value is None:
        return ""
    return f"{show(value)}/{show(whole)}" if whole else show(value)


def _counted(progress: dict[str, Any]) -> str:
    files = _of(progress, "files", "total_files", lambda number: f"{number:.0f}")
    return f"{files} files" if files else ""


def _some(progress: dict[str, Any], name: str, word: str) -> str:
    count = _number(progress.get(name))
    return f"{count:.0f} {word}" if count else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def size(count: float) -> str:
    """Bytes in words, in powers of 1024."""
    for unit in _UNITS:
        if abs(count) < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable: the last unit takes everything")


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Reporter(Protocol):
    """Shows a task as it changes, until it is left."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def show(self, task: dict[str, Any]) -> None:
        """The task's present state."""
        ...


def reporter(*, quiet: bool) -> Reporter:
    """A bar where stderr is a terminal that can draw one, else plain lines; none when quiet."""
    if quiet:
        return _Silent()
    from cli.bar import bar_on_stderr  # late: few commands draw, and rich takes long to load

    return bar_on_stderr() or _Lines()


class _Plain:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return


class _Silent(_Plain):
    def show(self, task: dict[str, Any]) -> None:
        """Programs read the result alone."""


class _Lines(_Plain):
    """One line a change of status or phase, else at most one in five seconds."""

    def __init__(self) -> None:
        self._last: tuple[object, object] | None = None
        self._text = ""
        self._at = 0.0

    def show(self, task: dict[str, Any]) -> None:
        progress = mapping(task.get("progress"))
        key = (task["status"], progress.get("phase"))
        text = f"{task['status']} {summary(progress)}".rstrip()
        due = time.monotonic() - self._at >= _PLAIN_SECONDS
        if key != self._last or (due and text != self._text):
            note(text)
            self._last, self._text, self._at = key, text, time.monotonic()
