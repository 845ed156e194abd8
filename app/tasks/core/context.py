"""What a running handler can ask and tell: its task, its log, its progress, its checkpoint."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final, Protocol

from app.tasks.core.errors import TasksError
from app.tasks.core.task import Task


class Unset(Enum):
    """The type of "no value", where None is one."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET


class TaskControl(Protocol):
    """The runner's side of one attempt. Every method is cheap, and safe to call from threads."""

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants the task to end (or its time is up)."""
        ...

    @property
    def deadline_monotonic(self) -> float:
        """When the attempt must change nothing more without word from its supervisor:
        `time.monotonic()` seconds, moved on by every heartbeat."""
        ...

    def check(self) -> None:
        """Raise TaskCancelled or LeaseLost when the handler must stop; call it often."""
        ...

    def progress(self, values: dict[str, Any], /, *, advanced: bool = False) -> None:
        """Show `values` (JSON-able; at most once a second is stored). `advanced` says that work
        was really done, which tells a slow task from one that kills its workers."""
        ...

    def log(self, message: str) -> None:
        """Add a line to the task's log."""
        ...

    def checkpoint(self, value: Any = UNSET, /) -> Any:
        """Save `value` for the next attempt; without one, what this or an earlier attempt saved
        last, None if nothing. Answers the checkpoint as the next attempt would read it.

        `value` is anything JSON can hold, in at most 64 KiB; raises CheckpointError for all else.
        It is stored in the background, the newest one alone when several wait, and in any case
        before the attempt's end. So only the death of the whole worker can lose the last moments.
        """
        ...

    def report(self, line: Mapping[str, Any], /) -> None:
        """Add one line, a JSON object of at most 64 KiB, to the task's report: what was done with
        one file, for example. Raises TasksError for anything else. Costs microseconds.

        Lines are stored compressed, about a second later and in any case before the attempt's end;
        each gets the number of its `attempt` and its `epoch`. Of those with an `action` of "failed"
        16 MiB are kept beyond the 16 MiB that all may fill; what does not fit is counted. It works
        in the process in which the handler was called: what a fork of it reports goes nowhere.
        """
        ...

    @property
    def adjusted(self) -> Mapping[str, Any]:
        """What somebody has changed about the task while it waited or ran, such as
        {"bandwidth": 1048576} (bytes a second, 0 for no limit); empty as long as nobody did."""
        ...


_task: ContextVar[Task[Any, Any] | None] = ContextVar("dms_task", default=None)
_control: ContextVar[TaskControl | None] = ContextVar("dms_control", default=None)


@contextmanager
def running(task: Task[Any, Any], control: TaskControl) -> Generator[None]:
    """Make `task` and `control` the current ones; for runners of handlers."""
    task_token = _task.set(task)
    control_token = _control.set(control)
    try:
        yield
    finally:
        _control.reset(control_token)
        _task.reset(task_token)


def current_task() -> Task[Any, Any]:
    """The task whose handler is running; raises TasksError outside of one."""
    task = _task.get()
    if task is None:
        raise TasksError(_OUTSIDE)
    return task


def current_control() -> TaskControl:
    """The running attempt's control; raises TasksError outside of a handler.

    A thread that a handler starts has no current control: pass this object to it.
    """
    control = _control.get()
    if control is None:
        raise TasksError(_OUTSIDE)
    return control


def cancelled() -> bool:
    """Whether the running task should end: somebody cancelled it, or its attempt's time is over.
    `current_control().check()` raises then, which ends most handlers as simply."""
    return current_control().cancelled


def checkpoint(value: Any = UNSET, /) -> Any:
    """Save `value` for the next attempt, or read what was saved; see `TaskControl.checkpoint`."""
    return current_control().checkpoint(value)


def log(message: str) -> None:
    """Add a line to the running task's log."""
    current_control().log(message)


def progress(values: dict[str, Any], *, advanced: bool = False) -> None:
    """Show the running task's progress; see `TaskControl.progress`."""
    current_control().progress(values, advanced=advanced)


def report(line: Mapping[str, Any]) -> None:
    """Add one line to the running task's report; see `TaskControl.report`."""
    current_control().report(line)


def adjusted() -> Mapping[str, Any]:
    """What somebody has changed about the running task; see `TaskControl.adjusted`."""
    return current_control().adjusted


_OUTSIDE = (
    "no task is running here: call this from a handler (and in a thread of your own, "
    "pass current_control() to it)"
)
