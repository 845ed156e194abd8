"""Waiting for a task's end: the loop, and the exit code that the end means."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import typer

from cli.client import UnreachableError
from cli.errors import CliError, ExitCode
from cli.output import note
from cli.progress import Reporter

_FIRST_PAUSE, _LAST_PAUSE = 0.1, 1.0
# A frontend that is being restarted is away for seconds; longer than this, say so and stop.
_PATIENCE_SECONDS = 60.0
_CODES = {
    "COMPLETED": ExitCode.OK,
    "FAILED": ExitCode.TASK_FAILED,
    "CANCELLED": ExitCode.TASK_CANCELLED,
}

Task = dict[str, Any]


def is_terminal(task: Task) -> bool:
    """Whether nothing can follow."""
    return task["status"] in _CODES


def exit_code(task: Task) -> ExitCode:
    """What a finished task means to the caller."""
    return _CODES[task["status"]]


def until_done(
    read: Callable[[], Task],
    watch: Reporter,
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Task:
    """Read again and again until the task has ended, and return it.

    Raises CliError: TIMEOUT after `timeout` seconds, UNREACHABLE when nothing answers for long,
    NOT_FOUND when the task is deleted meanwhile.
    """
    start = heard = clock()
    step = _FIRST_PAUSE
    while True:
        try:
            task = read()
        except UnreachableError:
            if clock() - heard > _PATIENCE_SECONDS:
                raise
        else:
            heard = clock()
            watch.show(task)
            if is_terminal(task):
                return task
        left = _LAST_PAUSE if timeout is None else timeout - (clock() - start)
        if left <= 0:
            raise CliError(
                f"the task has not ended within {timeout:g} seconds",
                "it goes on; wait again with: dms-frontend tasks wait",
                ExitCode.TIMEOUT,
            )
        pause(min(step, left))
        step = min(step * 1.3, _LAST_PAUSE)


@contextmanager
def leave_on_interrupt(remedy: str) -> Generator[None]:
    """Ctrl-C while watching ends the watching alone: say that the task goes on, exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"\nStopped watching; the task goes on. {remedy}".lstrip())
        raise typer.Exit(ExitCode.INTERRUPTED) from None
