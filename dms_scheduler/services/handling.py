"""What the built-in tasks' handlers share: the engine, the control, errors as task failures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from app.tasks import LeaseLost as TaskLeaseLost
from app.tasks import (
    PermanentFailure,
    RetryLater,
    Task,
    TaskCancelled,
    TaskControl,
    current_control,
)
from dms_scheduler.movers import (
    Busy,
    Control,
    DeadlineExceeded,
    Interrupted,
    LeaseLost,
    Mover,
    MoveRequest,
    MoverError,
    NativeMover,
    Progress,
    ReportEntry,
    split_roots,
)
from dms_scheduler.movers.rclone import RcloneMover, RcloneSettings, is_remote
from dms_scheduler.services.parameters import Parameters, TwoSides

ROOTS_VARIABLE: Final = "DMS_DATA_ROOTS"
Result = dict[str, object]
_Given = TypeVar("_Given", bound=Parameters)


class TaskMoveControl:
    """Lets a mover talk to the runner of its task, and ends it at the task's own deadline."""

    def __init__(self, control: TaskControl, seconds_left: float | None) -> None:
        self._control = control
        self._end = None if seconds_left is None else time.monotonic() + seconds_left
        self._advanced = (0, 0, 0)

    @property
    def deadline(self) -> float:
        """When nothing may be changed any more: the lease's deadline, as far as it is known."""
        return self._control.deadline_monotonic

    @property
    def bandwidth(self) -> int | None:
        """The limit that was set while the task waited or ran."""
        limit: object = self._control.adjusted.get("bandwidth")
        return limit if isinstance(limit, int) else None

    def check(self) -> None:
        """Raise when the mover must stop."""
        try:
            self._control.check()
        except TaskCancelled as error:
            if error.ends_task:
                raise
            raise Interrupted(str(error)) from error
        except TaskLeaseLost as error:
            raise LeaseLost(str(error)) from error
        if self._end is not None and time.monotonic() >= self._end:
            message = "the deadline passed; what was finished stays, a new task goes on from there"
            raise DeadlineExceeded(message)

    def progress(self, progress: Progress) -> None:
        """Hand on progress; merely having walked on is no advance."""
        work = (progress.bytes, progress.files, progress.deletes)
        self._control.progress(progress.to_dict(), advanced=work != self._advanced)
        self._advanced = work

    def log(self, message: str) -> None:
        """Hand on a line for the task's log."""
        self._control.log(message)

    def report(self, entry: ReportEntry) -> None:
        """Hand on what was done with one path."""
        self._control.report(entry.to_dict())


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a mover's request needs of the task that is running, beside its parameters."""

    task_id: str
    epoch: int
    roots: tuple[str, ...]
    control: Control


def run_handler(task: Task[_Given], work: Callable[[_Given, Attempt], Result]) -> Result:
    """Call `work` with the task's parameters for one attempt and return its result.

    Raises:
        PermanentFailure, RetryLater: the mover's error, with what had been done as data.
        TaskCancelled, LeaseLost: the runner said so.

    """
    control = TaskMoveControl(current_control(), task.payload.seconds_left())
    try:
        for note in task.payload.notes():
            control.log(note)
        attempt = Attempt(task.id, task.epoch, allowed_roots(os.environ), control)
        return work(task.payload, attempt)
    except Interrupted as error:
        # What the runner said comes back to it as it was: it knows what becomes of the task.
        raise TaskCancelled(str(error), ends_task=False) from error
    except LeaseLost as error:
        raise TaskLeaseLost(str(error)) from error
    except MoverError as error:
        raise as_task_failure(error) from error


def move_request(parameters: TwoSides, attempt: Attempt) -> MoveRequest:
    """Return what a mover is asked for by a task with two sides."""
    return MoveRequest(
        task_id=attempt.task_id,
        epoch=attempt.epoch,
        src=parameters.src,
        dst=parameters.dst,
        roots=attempt.roots,
        options=parameters.move_options(),
    )


def allowed_roots(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the folders that tasks may use; raises Refused for one that is no absolute path."""
    return split_roots(environ.get(ROOTS_VARIABLE, ""))


def engine_for(*places: str) -> Mover:
    """Return the engine that reaches all of `places`; it says itself if a remote is not known."""
    if any(is_remote(place) for place in places):
        return RcloneMover(RcloneSettings.from_environ(os.environ))
    return NativeMover()


def as_task_failure(error: MoverError) -> PermanentFailure | RetryLater:
    """Return what the runner is told of a mover's error: the one place that decides it."""
    done = error.result.to_dict() if error.result else {}
    data = {**done, "error_class": error.error_class, "retryable": error.retryable}
    if not error.retryable:
        return PermanentFailure(str(error), data)
    # What another task holds will be free again: waiting for it uses up no attempt.
    return RetryLater(str(error), None, data, counted=not isinstance(error, Busy))
