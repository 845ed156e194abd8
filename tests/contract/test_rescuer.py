"""The rescuer on a real store and engine: what is lost is queued again, what is not is left."""

from collections.abc import AsyncGenerator

import pytest
from redis import Redis

from dms_scheduler.engine import Call, Holding
from dms_scheduler.rescuer import Rescuer, RescuerSettings
from task_state import TaskStatus, keys
from task_state.redis import RedisRepositoryProvider
from tests.support.worker_process import Client, eventually

QUICK = RescuerSettings(period_seconds=0.11, grace_seconds=0.05, heartbeat_seconds=0.2)


@pytest.fixture
async def client(dms_redis_url: str) -> AsyncGenerator[Client]:
    async with Client(dms_redis_url) as made:
        yield made


@pytest.fixture
def rescuer(dms_provider: RedisRepositoryProvider, client: Client) -> Rescuer:
    return Rescuer(dms_provider, client.engine, QUICK, lambda: None)


async def running(client: Client, lease_seconds: float) -> str:
    """A task in its first attempt."""
    task = await client.managed.submit(service="t.add", user_id="hong", parameters={})
    await client.managed.accept(task.task_id)
    await client.managed.begin(task.task_id, 1, worker="w", lease_seconds=lease_seconds)
    return task.task_id


async def test_a_lost_workers_task_waits_for_a_slot_and_the_admitter_is_told(
    dms_provider: RedisRepositoryProvider, client: Client
) -> None:
    told: list[bool] = []
    rescuer = Rescuer(dms_provider, client.engine, QUICK, lambda: told.append(True))
    lost = await running(client, 0.01)
    kept = await running(client, 3600)

    async def found() -> bool:
        await rescuer.round()
        return (await client.get(lost)).status is TaskStatus.PENDING

    await eventually(found, "the lost task was taken back")
    assert told == [True]
    assert await client.admission.position(await client.get(lost)) == 1
    await client.offer_slots(2)  # one of them is held by what is kept
    await client.admitter.round()
    assert await client.engine.look([Call(lost, 2)]) == [Holding.HELD]
    assert await client.engine.look([Call(kept, 2)]) == [Holding.ABSENT]
    assert (await client.get(lost)).attempts == 0
    assert (await client.get(kept)).status is TaskStatus.RUNNING


async def test_a_lost_task_that_was_to_be_cancelled_is(rescuer: Rescuer, client: Client) -> None:
    lost = await running(client, 1.0)
    await client.managed.cancel(lost)

    async def found() -> bool:
        await rescuer.round()
        return (await client.get(lost)).status is TaskStatus.CANCELLED

    await eventually(found, "it is cancelled")
    assert await client.engine.look([Call(lost, 2)]) == [Holding.ABSENT]


async def test_a_lost_queue_entry_is_made_again(
    rescuer: Rescuer, client: Client, dms_redis_url: str
) -> None:
    """Whoever had the task let through died before it could queue the call."""
    await client.offer_slots(1)
    task = await client.managed.submit(service="t.add", user_id="hong", parameters={})
    await client.managed.accept(task.task_id)
    assert len((await client.admission.admit()).calls) == 1
    await rescuer.round()
    assert await client.engine.look([Call(task.task_id, 1)]) == [Holding.ABSENT], "too soon"
    with Redis.from_url(dms_redis_url) as server:
        server.zadd(keys.QUEUED, {task.task_id: 1})
    await rescuer.round()
    assert await client.engine.look([Call(task.task_id, 1)]) == [Holding.HELD]


async def test_tasks_that_were_never_accepted_are_left_alone(
    rescuer: Rescuer, client: Client
) -> None:
    task = await client.managed.submit(service="t.add", user_id="hong", parameters={})
    for _ in range(3):
        await rescuer.round()
    assert await client.engine.look([Call(task.task_id, 1)]) == [Holding.ABSENT]


def test_shorter_heartbeats_are_rescued_sooner() -> None:
    assert RescuerSettings.of(15) == RescuerSettings()
    short = RescuerSettings.of(1.5)
    assert (short.period_seconds, short.grace_seconds) == (0.5, 1.0)
