"""Schedulers and the server die while tasks end: each end is told all the same, under one id."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

from app.event_system import Delivery
from app.event_system.infrastructure import RedisBroker
from app.tasks import TaskEvent
from task_state import StoreUnavailableError, TaskStatus
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.contract.store import record
from tests.support.stack import Stack

TASKS = 150
PATIENCE = 90.0


class Told:
    """What a subscriber was told: the ids of the events of each task."""

    def __init__(self) -> None:
        self.events: dict[str, set[str]] = {}

    async def listen(self, broker: RedisBroker, ready: asyncio.Event) -> None:
        subscription = await broker.consumer().subscribe("tasks.**", TaskEvent, group="test")
        ready.set()
        async for delivery in subscription:
            self._note(delivery)

    def _note(self, delivery: Delivery[TaskEvent]) -> None:
        event = delivery.event
        self.events.setdefault(event.task_id, set()).add(event.event_id)
        delivery.ack()


async def _end_tasks(repository: RedisTaskRepository, ended: list[str]) -> None:
    """Records of another program, each saved as COMPLETED, until it is known to be written."""
    for number in range(TASKS):
        task = record(f"t{number}", status=TaskStatus.COMPLETED)
        while True:
            with suppress(StoreUnavailableError):
                if await repository.get(task.task_id) is None:
                    await repository.save(task)
                break
            await asyncio.sleep(0.05)
        ended.append(task.task_id)
        await asyncio.sleep(0.02)  # a pace, so that what is killed is killed in the middle of it


async def _reached(ended: list[str], count: int) -> None:
    while len(ended) < count:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.timeout(240)
async def test_no_end_is_lost_when_scheduler_and_server_are_killed(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    with Stack(tmp_path, without=("frontend", "worker")) as stack:
        settings = RedisRepositorySettings(write_url=stack.redis_url, timeout_seconds=5)
        provider = RedisRepositoryProvider(settings)
        told, ready, ended = Told(), asyncio.Event(), list[str]()
        async with (
            RedisBroker(stack.redis_url, timeout=5) as broker,
            asyncio.timeout(200),
        ):
            listening = asyncio.create_task(told.listen(broker, ready))
            await ready.wait()
            ending = asyncio.create_task(_end_tasks(await provider.get_repository(), ended))
            victims = ["scheduler", "server", "scheduler"]
            moments = sorted(chance.sample(range(10, TASKS - 10), len(victims)))
            for moment, victim in zip(moments, victims, strict=True):
                await _reached(ended, moment)
                stack.kill(victim)
                await asyncio.to_thread(stack.start, victim)
            await ending
            async with asyncio.timeout(PATIENCE):
                while told.events.keys() != set(ended):
                    await asyncio.sleep(0.05)
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        await provider.close()
    assert len(ended) == TASKS
    assert {len(ids) for ids in told.events.values()} == {1}, "a repeat has the same id"
