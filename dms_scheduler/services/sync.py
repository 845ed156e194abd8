"""The built-in task `sync`: makes a destination the same as its source."""

from __future__ import annotations

import os
import time

from app.tasks import (
    PermanentFailure,
    RetryLater,
    Task,
    TaskControl,
    TaskOptions,
    current_control,
    define_task,
)
from dms_scheduler.movers import (
    Control,
    DeadlineExceeded,
    DestinationBusy,
    MoveRequest,
    MoverError,
    NativeMover,
    Progress,
    ReportEntry,
    split_roots,
)
from dms_scheduler.services.parameters import SyncParameters

ROOTS_VARIABLE = "DMS_DATA_ROOTS"
_BUSY_DELAY_SECONDS = 15.0


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
        """The limit that was set while the task runs."""
        return None

    def check(self) -> None:
        """Raise when the mover must stop."""
        self._control.check()
        if self._end is not None and time.monotonic() >= self._end:
            message = "the deadline passed; what was finished stays, a new task goes on from there"
            raise DeadlineExceeded(message)

    def progress(self, progress: Progress) -> None:
        """Hand on progress; only what changed the destination counts as having advanced."""
        work = (progress.bytes, progress.files, progress.deletes)
        self._control.progress(progress.to_dict(), advanced=work != self._advanced)
        self._advanced = work

    def log(self, message: str) -> None:
        """Hand on a line for the task's log."""
        self._control.log(message)

    def report(self, entry: ReportEntry) -> None:
        """Hand on what was done with one path."""


def run_sync(
    parameters: SyncParameters,
    control: Control,
    *,
    task_id: str,
    epoch: int,
    roots: tuple[str, ...],
) -> dict[str, object]:
    """Run one attempt and return its result as JSON-safe data.

    Raises:
        MoverError: refused, failed or stopped; and whatever `control.check` raises.

    """
    request = MoveRequest(
        task_id=task_id,
        epoch=epoch,
        src=parameters.src,
        dst=parameters.dst,
        roots=roots,
        options=parameters.options(),
    )
    mover = NativeMover()
    if parameters.dry_run:
        return mover.plan(request, control).to_dict()
    return mover.run(request, control).to_dict()


def sync(task: Task[SyncParameters]) -> dict[str, object]:
    """Run `sync` as a task's handler.

    Raises:
        PermanentFailure, RetryLater: the mover's error, with what had been done as data.

    """
    control = TaskMoveControl(current_control(), task.payload.seconds_left())
    try:
        roots = split_roots(os.environ.get(ROOTS_VARIABLE, ""))
        return run_sync(task.payload, control, task_id=task.id, epoch=task.epoch, roots=roots)
    except MoverError as error:
        raise _as_task_failure(error) from error


def _as_task_failure(error: MoverError) -> PermanentFailure | RetryLater:
    done = error.result.to_dict() if error.result else {}
    data = {**done, "error_class": error.error_class, "retryable": error.retryable}
    if not error.retryable:
        return PermanentFailure(str(error), data)
    delay = _BUSY_DELAY_SECONDS if isinstance(error, DestinationBusy) else None
    return RetryLater(str(error), delay, data)


SYNC = define_task(
    "sync",
    sync,
    TaskOptions(
        description="Make the destination the same as the source: folders, files, links, times",
        max_attempts=3,
        isolation="process",
        payload=SyncParameters,
    ),
)
