"""Starting one call of a handler: not when it was stopped before it could begin."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from app.tasks import TaskDefinition
from dms_scheduler.children import ChildPool
from dms_scheduler.jobs import NotStartedError, start_job
from tests.support.handlers import polite
from tests.unit.scheduler.test_children import LATER, SETTINGS, Words, view


@pytest.fixture
async def pool() -> AsyncGenerator[ChildPool]:
    made = ChildPool(SETTINGS, 1)
    await made.start()
    yield made
    await made.close()


async def test_a_handler_whose_task_was_cancelled_meanwhile_is_not_called(
    pool: ChildPool, tmp_path: Path
) -> None:
    """A cold child takes a while to start; the task may be cancelled by then."""
    definition = TaskDefinition("t.polite", polite)
    stopped = asyncio.Event()
    stopped.set()
    given = view("t.polite", {"folder": str(tmp_path)})
    with pytest.raises(NotStartedError):
        async with start_job(pool, definition, given, LATER, Words(), stopped):
            pytest.fail("it was started")
    child = await pool.acquire()
    outcome = await child.run(view("t.add", {"first": 1}), LATER, Words())
    pool.give_back(child, worn=False)
    assert outcome.kind == "success", "the child is as good as before"
    assert list(tmp_path.iterdir()) == []
