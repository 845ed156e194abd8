"""The built-in task `sync`: makes a destination the same as its source."""

from __future__ import annotations

from app.tasks import Task, TaskOptions, define_task
from dms_scheduler.services.handling import Attempt, Result, engine_for, move_request, run_handler
from dms_scheduler.services.parameters import CopyParameters, SyncParameters


def sync(task: Task[SyncParameters]) -> Result:
    """Run `sync` as a task's handler.

    Raises:
        PermanentFailure, RetryLater: the mover's error, with what had been done as data.

    """
    return run_handler(task, move)


def move(parameters: CopyParameters, attempt: Attempt) -> Result:
    """Run one attempt of `sync` or `copy` and return its result as JSON-safe data.

    Raises:
        MoverError: refused, failed or stopped; and whatever `control.check` raises.

    """
    mover = engine_for(parameters.src, parameters.dst)
    act = mover.plan if parameters.dry_run else mover.run
    return act(move_request(parameters, attempt), attempt.control).to_dict()


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
