"""The built-in task `check`: compares two trees and changes nothing."""

from __future__ import annotations

from app.tasks import PermanentFailure, Task, TaskOptions, define_task
from dms_scheduler.movers import CheckTotals
from dms_scheduler.services.handling import Attempt, Result, engine_for, move_request, run_handler
from dms_scheduler.services.parameters import CheckParameters

DIFFERENCES = "differences"


def check(task: Task[CheckParameters]) -> Result:
    """Run `check` as a task's handler; a result means that both sides are the same.

    Raises:
        PermanentFailure: they differ, or the mover's error; with what was found as data.
        RetryLater: the mover's error, with what was found as data.

    """
    return run_handler(task, _compare)


def _compare(parameters: CheckParameters, attempt: Attempt) -> Result:
    mover = engine_for(parameters.src, parameters.dst)
    result = mover.check(move_request(parameters, attempt), attempt.control)
    if result.same:
        return result.to_dict()
    data = {**result.to_dict(), "error_class": DIFFERENCES, "retryable": False}
    raise PermanentFailure(describe_differences(result.totals), data)


def describe_differences(totals: CheckTotals) -> str:
    """Return words such as `3 entries differ, 1 is missing at the destination`."""
    differs, one = totals.differs, totals.differs == 1
    said = [f"{differs} {'entry differs' if one else 'entries differ'}"] if differs else []
    for count, where in (
        (totals.missing_dst, "missing at the destination"),
        (totals.missing_src, "missing at the source"),
    ):
        if count:
            said.append(f"{count} {'is' if count == 1 else 'are'} {where}")
    return ", ".join(said)


CHECK = define_task(
    "check",
    check,
    TaskOptions(
        description="Compare two trees, by content unless told otherwise; nothing is changed",
        max_attempts=3,
        isolation="process",
        payload=CheckParameters,
    ),
)
