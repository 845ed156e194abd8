"""The built-in task `sync`: makes a destination the same as its source."""

from __future__ import annotations

from app.tasks import Task, TaskOptions, define_task
from dms_scheduler.movers import MoveRequest
from dms_scheduler.services.handling import Attempt, Result, engine_for, run_handler
from dms_scheduler.services.parameters import CopyParameters, SyncParameters


def sync(task: Task[SyncParameters]) -> Result:
    """Run `sync` as a task's handler.

    Raises:
        PermanentFailure, RetryLater: the mover's error, with what had been done as data.

    """
    return run_handler(task, lambda attempt: move(task.payload, attempt))


def move(parameters: CopyParameters, attempt: Attempt) -> Result:
    """Run one attempt of `sync` or `copy` and return its result as JSON-safe data.

    Raises:
        MoverError: refused, failed or stopped; and whatever `control.check` raises.

    """
    request = MoveRequest(
        task_id=attempt.task_id,
        epoch=attempt.epoch,
        src=parameters.src,
        dst=parameters.dst,
        roots=attempt.roots,
        options=parameters.move_options(),
    )
    mover = engine_for(parameters.src, parameters.dst)
    act = mover.plan if parameters.dry_run else mover.run
    return act(request, attempt.control).to_dict()


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
