"""Tasks of your own: name this module in DMS_TASK_MODULES and the workers run what it defines.

    DMS_TASK_MODULES=examples.reports dms-frontend up
    dms-frontend tasks submit --service generateUserReport --user alice \
        --param userId=alice --param reportType=daily --wait
"""

import asyncio
from collections import Counter
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.tasks import Task, current_control, define_task, log, progress
from task_state.timezone import now


class ReportPayload(BaseModel):
    """What a report is about. Parameters that do not fit end the task FAILED with the reason."""

    model_config = ConfigDict(extra="forbid")

    userId: str  # noqa: N815  (the names that callers send)
    reportType: Literal["daily", "monthly"]  # noqa: N815


class ReportResult(BaseModel):
    """Where the report is, and how old."""

    reportUrl: str  # noqa: N815
    generatedAt: datetime  # noqa: N815


async def _generate_report(task: Task[ReportPayload, ReportResult]) -> ReportResult:
    """An async handler runs inside the worker: it must await, never block."""
    log(f"generating the {task.payload.reportType} report of {task.payload.userId}")
    sections = ("collect", "summarise", "publish")
    for done, section in enumerate(sections, start=1):
        await asyncio.sleep(1)  # stands for a query or a call of another service
        progress({"phase": section, "done": done, "of": len(sections)}, advanced=True)
    return ReportResult(
        reportUrl=f"https://reports.example/{task.payload.userId}/{task.payload.reportType}/{task.id}",
        generatedAt=now(),
    )


generate_user_report = define_task(
    "generateUserReport",
    _generate_report,
    {
        "description": "Generates a user's report in the background",
        "max_attempts": 3,
        "payload": ReportPayload,
        "result": ReportResult,
    },
)


class WordsPayload(BaseModel):
    """A text to count."""

    model_config = ConfigDict(extra="forbid")

    text: str
    top: int = 10


@define_task("countWords", options={"payload": WordsPayload, "timeout_seconds": 60})
def count_words(task: Task[WordsPayload, dict[str, int]]) -> dict[str, int]:
    """A plain function runs in a child process: it may block, and a cancel ends it."""
    control = current_control()
    counts: Counter[str] = Counter()
    for number, line in enumerate(task.payload.text.splitlines(), start=1):
        control.check()
        counts.update(line.lower().split())
        control.progress({"lines": number}, advanced=True)
    return dict(counts.most_common(task.payload.top))
