"""The built-in task `copy`: brings files to a destination and never deletes any."""

from __future__ import annotations

from app.tasks import Task, TaskOptions, define_task
from dms_scheduler.services.handling import Result, run_handler
from dms_scheduler.services.parameters import CopyParameters
from dms_scheduler.services.sync import move


def copy(task: Task[CopyParameters]) -> Result:
    """Run `copy` as a task's handler.

    Raises:
        PermanentFailure, RetryLater: the mover's error, with what had been done as data.

    """
    return run_handler(task, move)


COPY = define_task(
    "copy",
    copy,
    TaskOptions(
        description="Copy what is missing or differs to the destination; nothing is deleted there",
        max_attempts=3,
        isolation="process",
        payload=CopyParameters,
    ),
)
