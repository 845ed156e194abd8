"""A task that does nothing, so that only the service's own time is left."""

from typing import Any

from app.tasks import Task, define_task


async def _nothing(task: Task[Any]) -> dict[str, Any]:
    return {}


empty = define_task("empty", _nothing, {"description": "Does nothing", "max_attempts": 3})
