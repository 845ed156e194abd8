"""Looks for tasks in the task store: a program beside DMS, which needs no frontend for it.

Start it with the tasks' ids, or without any:

    DMS_REDIS_WRITE_URL=redis://localhost:6379/0 python -m examples.task_monitor [TASK_ID...]
"""

import asyncio
import json
import sys

from app.tasks.core.search import TaskSearchOptions, TaskStatus, get_task_by_id, search_tasks
from examples.reports import generate_user_report


async def show_waiting() -> None:
    """The tasks that have waited longest."""
    waiting = await search_tasks(
        TaskSearchOptions(
            status=TaskStatus.PENDING, limit=5, sort_by="created_at", sort_order="asc"
        )
    )
    print(f"--- {waiting.total} tasks are PENDING")
    for task in waiting:
        print(f"- {task.id}, {task.type}, since {task.created_at:%Y-%m-%d %H:%M:%S}")


async def show_task(task_id: str) -> None:
    """One task by its own id."""
    task = await get_task_by_id(task_id)
    if task is None:
        print(f"--- there is no task {task_id}")
        return
    print(f"--- task {task.id} is {task.status}: {task.description or 'no description'}")
    print(f"payload: {json.dumps(task.payload, ensure_ascii=False)}")


async def show_reports() -> None:
    """A definition's id is no task's: it is the type of all of its tasks."""
    report = generate_user_report
    found = await search_tasks({"type": report.id, "limit": 1})
    newest = next(iter(found), None)
    state = "none yet" if newest is None else f"the newest, {newest.id}, is {newest.status}"
    print(f"--- {report.id} ({report.description}): {found.total} tasks; {state}")


async def monitor(task_ids: list[str]) -> None:
    """Everything, once."""
    await show_waiting()
    for task_id in task_ids:
        await show_task(task_id)
    await show_reports()


if __name__ == "__main__":
    asyncio.run(monitor(sys.argv[1:]))
