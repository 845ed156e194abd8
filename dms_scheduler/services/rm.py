"""The built-in task `rm`: removes an entry, or a directory with all that is in it."""

from __future__ import annotations

from app.tasks import Task, TaskOptions, define_task
from dms_scheduler.movers import RemoveRequest
from dms_scheduler.services.handling import Attempt, Result, engine_for, run_handler
from dms_scheduler.services.parameters import RmParameters


def rm(task: Task[RmParameters]) -> Result:
    """Run `rm` as a task's handler.

    Raises:
        PermanentFailure, RetryLater: the mover's error, with what had been done as data.

    """
    return run_handler(task, _remove)


def _remove(parameters: RmParameters, attempt: Attempt) -> Result:
    request = RemoveRequest(
        task_id=attempt.task_id,
        epoch=attempt.epoch,
        path=parameters.path,
        roots=attempt.roots,
        recursive=parameters.recursive,
        max_delete=parameters.max_delete,
        dry_run=parameters.dry_run,
        backup=parameters.backup_deleted,
        include=parameters.include,
        exclude=parameters.exclude,
    )
    return engine_for(parameters.path).remove(request, attempt.control).to_dict()


RM = define_task(
    "rm",
    rm,
    TaskOptions(
        description="Remove a file, or a directory with all in it; counted and limited first",
        max_attempts=3,
        isolation="process",
        payload=RmParameters,
    ),
)
