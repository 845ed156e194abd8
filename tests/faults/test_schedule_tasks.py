"""Schedules with a real worker: overlap policies, failures in a row, tasks as from a POST."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.services.schedules import ScheduleService
from task_state import TaskRecord, TaskStatus
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.schedules import ScheduleRecord, ScheduleSpec
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "DMS_TASK_MODULES": "tests.support.handlers",
    "DMS_CANCEL_GRACE_SECONDS": "1",
    "PYTHONPATH": str(ROOT),
}
PATIENCE = 120.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One for all: each test has a schedule of its own."""
    with Stack(tmp_path_factory.mktemp("stack"), env=ENVIRONMENT) as running:
        yield running


class Schedule:
    """One schedule of the stack, with its tasks."""

    def __init__(self, name: str, provider: RedisRepositoryProvider) -> None:
        self.name = name
        self.provider = provider
        self.service = ScheduleService(provider, timeout_seconds=60, default_timezone="UTC")

    async def create(self, service: str, **values: Any) -> ScheduleRecord:
        spec = {"cron": "* * * * * *", "service": service, "user_id": "hong", "timezone": "UTC"}
        made = ScheduleSpec.model_validate(spec | {"grace_seconds": 3600} | values)
        return (await self.service.create(self.name, made)).record

    async def record(self) -> ScheduleRecord:
        return (await self.service.get(self.name)).record

    async def until(
        self, holds: Callable[[ScheduleRecord], Awaitable[bool]], what: str
    ) -> ScheduleRecord:
        limit = time.monotonic() + PATIENCE
        while not await holds(record := await self.record()):
            assert time.monotonic() < limit, f"not in time: {what}; {record!r}"
            await asyncio.sleep(0.05)
        return record

    async def task(self, task_id: str) -> TaskRecord:
        task = await (await self.provider.get_repository()).get(task_id)
        assert task is not None, task_id
        return task

    async def ended(self, task_id: str) -> TaskRecord:
        limit = time.monotonic() + PATIENCE
        while not (task := await self.task(task_id)).status.is_terminal:
            assert time.monotonic() < limit, f"has not ended: {task!r}"
            await asyncio.sleep(0.05)
        return task

    async def fired(self) -> list[str]:
        """The tasks of its slots, oldest first."""
        fires = await self.service.fires(self.name, limit=1000)
        return [fire.task_id or "" for fire in reversed(fires) if fire.outcome == "fired"]


@pytest.fixture
async def schedule(stack: Stack, request: pytest.FixtureRequest) -> AsyncGenerator[Schedule]:
    settings = RedisRepositorySettings(write_url=stack.redis_url, timeout_seconds=60)
    provider = RedisRepositoryProvider(settings)
    made = Schedule(request.node.name.removeprefix("test_")[:60], provider)
    yield made
    await made.service.delete(made.name)
    await provider.close()


async def at_work(schedule: Schedule, task_id: str) -> bool:
    return (await schedule.task(task_id)).status is TaskStatus.RUNNING


async def test_a_task_is_like_one_of_a_post(schedule: Schedule, stack: Stack) -> None:
    await schedule.create("t.add-inline", parameters={"first": "{{ slot:%s }}", "second": 1})

    async def some(record: ScheduleRecord) -> bool:
        return record.fired >= 2

    await schedule.until(some, "two have fired")
    await schedule.service.pause(schedule.name)
    for task_id in (await schedule.fired())[:2]:
        task = await schedule.ended(task_id)
        slot = int(task_id.rpartition(".")[2])
        assert (task.status, task.schedule_id) == (TaskStatus.COMPLETED, schedule.name)
        assert task.result is not None
        assert task.result.data["sum"] == slot + 1
        shown = stack.user_task("t.add-inline", "hong", task_id)
        assert shown is not None
        assert shown["schedule_id"] == schedule.name


async def test_skip_leaves_out_slots_while_a_task_runs(schedule: Schedule, tmp_path: Path) -> None:
    go = tmp_path / "go"
    await schedule.create("t.until-file", parameters={"file": str(go), "folder": str(tmp_path)})

    async def skipped(record: ScheduleRecord) -> bool:
        return record.skipped >= 2

    record = await schedule.until(skipped, "two were skipped")
    (first,) = await schedule.fired()
    assert record.active == [first]
    fires = await schedule.service.fires(schedule.name)
    assert fires[0].outcome == "skipped"
    assert first in (fires[0].reason or "")
    go.touch()
    assert (await schedule.ended(first)).status is TaskStatus.COMPLETED

    async def again(record: ScheduleRecord) -> bool:
        return record.fired >= 2

    await schedule.until(again, "it fires again")


async def test_buffered_slots_run_one_after_the_other(schedule: Schedule, tmp_path: Path) -> None:
    go = tmp_path / "go"
    parameters = {"file": str(go), "folder": str(tmp_path)}
    await schedule.create("t.until-file", parameters=parameters, overlap="buffer_all")

    async def waiting(record: ScheduleRecord) -> bool:
        return len(record.buffered) >= 3

    await schedule.until(waiting, "three wait")
    await schedule.service.pause(schedule.name)
    record = await schedule.record()
    slots = sorted(record.buffered)
    go.touch()
    await schedule.service.resume(schedule.name)
    ids = [*record.active, *(f"s.{schedule.name}.{slot}" for slot in slots)]

    async def there(record: ScheduleRecord) -> bool:
        return not set(record.buffered) & set(slots)

    await schedule.until(there, "all of them have started")
    tasks = [await schedule.ended(task_id) for task_id in ids]
    for before, after in pairwise(tasks):
        assert before.completed_at is not None
        assert after.started_at is not None
        assert before.completed_at <= after.started_at


async def test_cancel_other_ends_what_runs(schedule: Schedule, tmp_path: Path) -> None:
    parameters = {"folder": str(tmp_path)}
    await schedule.create("t.polite", parameters=parameters, overlap="cancel_other")

    async def some(record: ScheduleRecord) -> bool:
        return record.fired >= 3

    await schedule.until(some, "three have fired")
    await schedule.service.pause(schedule.name)
    fired = await schedule.fired()
    tasks = [await schedule.ended(task_id) for task_id in fired[:-1]]
    assert {task.status for task in tasks} == {TaskStatus.CANCELLED}
    for before, after in pairwise(tasks):
        assert before.completed_at is not None
        assert before.completed_at <= after.created_at
    record = await schedule.record()
    assert record.active in ([fired[-1]], [])
    managed = await schedule.provider.get_managed()
    for task_id in record.active:
        await managed.cancel(task_id)
        await schedule.ended(task_id)


async def test_failures_in_a_row_pause_it(schedule: Schedule) -> None:
    await schedule.create("t.fail-for-good", pause_after_failures=2)

    async def paused(record: ScheduleRecord) -> bool:
        return record.paused

    record = await schedule.until(paused, "it is paused")
    assert record.failures >= 2
    fired = await schedule.fired()
    assert any(task_id in (record.reason or "") for task_id in fired)
    assert (await schedule.ended(fired[0])).status is TaskStatus.FAILED
