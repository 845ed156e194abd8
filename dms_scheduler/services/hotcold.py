"""The built-in task `hotcold`: tells how old the files of a directory are, and changes nothing."""

from __future__ import annotations

from app.tasks import Task, TaskOptions, define_task
from dms_scheduler.movers.native.ageing import AgeRequest, age
from dms_scheduler.services.handling import Attempt, Result, run_handler
from dms_scheduler.services.parameters import HotcoldParameters


def hotcold(task: Task[HotcoldParameters]) -> Result:
    """Run `hotcold` as a task's handler.

    Raises:
        PermanentFailure, RetryLater: the mover's error, with what was counted as data.

    """
    return run_handler(task, _count)


def _count(parameters: HotcoldParameters, attempt: Attempt) -> Result:
    request = AgeRequest(
        path=parameters.path,
        roots=attempt.roots,
        by=parameters.by,
        hot_days=parameters.hot_days,
        cold_days=parameters.cold_days,
        top=parameters.top,
        include=parameters.include,
        exclude=parameters.exclude,
    )
    return age(request, attempt.control).to_dict()


HOTCOLD = define_task(
    "hotcold",
    hotcold,
    TaskOptions(
        description="Tell how old the files of a directory are: hot, warm and cold, by folder",
        max_attempts=3,
        isolation="process",
        payload=HotcoldParameters,
    ),
)
