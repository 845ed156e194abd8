"""An example of one's own tasks: `DMS_TASK_MODULES=report_tasks`, with this folder on PYTHONPATH.

dms-frontend tasks submit generateUserReport hong userId=u-1 reportType=daily
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.tasks import (
    PermanentFailure,
    RetryLater,
    Task,
    TaskOptions,
    current_control,
    define_task,
    log,
    progress,
)


class ReportPayload(BaseModel):
    """What a report is made of; a task whose parameters do not fit ends FAILED at once."""

    model_config = ConfigDict(extra="forbid")

    userId: str  # noqa: N815 - the name in the request
    reportType: Literal["daily", "monthly"] = "daily"  # noqa: N815


class ReportResult(BaseModel):
    """What the task's `result.data` holds; dates become ISO texts."""

    reportUrl: str  # noqa: N815
    generatedAt: datetime  # noqa: N815


async def generate_report(task: Task[ReportPayload, ReportResult]) -> ReportResult:
    """An async handler runs in the worker's own event loop: it must await, never block."""
    log(f"[{task.id}] report for {task.payload.userId}, {task.payload.reportType}")
    for step in range(1, 4):
        await asyncio.sleep(0.2)
        progress({"phase": "render", "pages": step, "total_pages": 3}, advanced=True)
    url = f"https://example.com/reports/{task.payload.userId}/{task.payload.reportType}.pdf"
    return ReportResult(reportUrl=url, generatedAt=datetime.now(UTC))


generate_report_task = define_task(
    "generateUserReport",
    generate_report,
    TaskOptions(description="Makes a user's report", max_attempts=3, payload=ReportPayload),
)


@define_task(
    "checksumBlocks",
    options={"description": "Counts blocks, slowly", "max_attempts": 5, "timeout_seconds": 3600},
)
def checksum_blocks(task: Task[dict[str, str]]) -> dict[str, int]:
    """A plain function runs in a child process: it may block, and it is killed if it must be.

    It asks `check()` often, so that a cancel ends it in order instead.
    """
    try:
        blocks = int(task.payload.get("blocks", "10"))
    except ValueError as error:
        raise PermanentFailure(f"blocks must be a number: {error}") from error
    if blocks > 1000 and task.attempts == 1:
        raise RetryLater("so many blocks are counted at a quieter time", delay_seconds=5)
    control = current_control()
    for block in range(blocks):
        control.check()
        time.sleep(0.01)
        progress({"phase": "count", "blocks": block + 1, "total_blocks": blocks}, advanced=True)
    return {"blocks": blocks}
