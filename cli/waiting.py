"""Waiting at a terminal: the exit code that a task's end means, and what Ctrl-C says."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer

from cli.errors import ExitCode
from cli.output import note

_CODES = {
    "COMPLETED": ExitCode.OK,
    "FAILED": ExitCode.TASK_FAILED,
    "CANCELLED": ExitCode.TASK_CANCELLED,
}


def exit_code(task: dict[str, Any]) -> ExitCode:
    """What a finished task means to the caller."""
    return _CODES[task["status"]]


@contextmanager
def leave_on_interrupt(remedy: str, goes_on: str = "the task goes on") -> Generator[None]:
    """Ctrl-C while watching ends the watching alone: say what goes on, exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"\nStopped watching; {goes_on}. {remedy}".lstrip())
        raise typer.Exit(ExitCode.INTERRUPTED) from None
