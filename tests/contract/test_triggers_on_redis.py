"""Triggers on the Redis broker, with real servers: a pipeline, groups, a stop with work waiting."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.event_system.infrastructure import RedisBroker
from app.scheduler import (
    EventTrigger,
    Scheduler,
    create_api_trigger,
    create_cron_trigger,
    create_event_trigger,
)
from tests.support.events import Numbered, numbered, numbers_of, take, take_acked
from tests.support.triggers import HandClock, left_behind


@pytest.fixture
async def broker(dms_redis_url: str) -> AsyncGenerator[RedisBroker]:
    async with RedisBroker(dms_redis_url) as broker:
        yield broker


def doubling(broker: RedisBroker, **options: Any) -> EventTrigger[Numbered]:
    return create_event_trigger(
        broker.consumer(),
        "steps.one",
        lambda event: numbered(event.number * 2, topic="steps.two"),
        lambda event: event.number % 10 != 0,
        event_type=Numbered,
        **options,
    )


async def test_a_pipeline(broker: RedisBroker) -> None:
    arrived = await broker.consumer().subscribe("steps.two", Numbered)
    scheduler = Scheduler(broker.publisher())
    api = create_api_trigger(lambda number: numbered(number, topic="steps.one"))
    await scheduler.register_trigger("api", api, "steps.one")
    await scheduler.register_trigger("doubling", doubling(broker), "steps.two")
    await scheduler.start()
    await asyncio.gather(*(api.trigger(number) for number in range(1, 31)))
    events = await take_acked(arrived, 27)
    assert sorted(numbers_of(events)) == [2 * n for n in range(1, 31) if n % 10]
    assert {event.headers["dms-hops"] for event in events} == {"1"}
    await scheduler.stop()
    assert left_behind() == []


async def test_a_cron_trigger(broker: RedisBroker) -> None:
    arrived = await broker.consumer().subscribe("ticks")
    clock = HandClock()
    scheduler = Scheduler(broker.publisher(), clock=clock)
    trigger = create_cron_trigger("* * * * *", lambda: numbered(1, topic="ticks"), "UTC")
    await scheduler.register_trigger("tick", trigger, "ticks")
    await scheduler.start()
    async with asyncio.timeout(60):
        while not clock.asleep:
            await asyncio.sleep(0)
    clock.advance(30)
    delivery = await take(arrived)
    delivery.ack()
    assert delivery.event.headers["dms-slot"] == "2026-01-05T09:00:00+00:00"
    await scheduler.stop()


async def test_a_group_loses_nothing_between_two_schedulers(broker: RedisBroker) -> None:
    """One is stopped in the middle, and another goes on: each event once or more, none never."""
    arrived = await broker.consumer().subscribe("steps.two", Numbered)
    numbers = [number for number in range(1, 300) if number % 10]
    first, second = (Scheduler(broker.publisher()) for _ in range(2))
    await first.register_trigger("doubling", doubling(broker, group="doubling"), "steps.two")
    await first.start()
    publisher = broker.publisher()
    await publisher.publish_many(numbered(number, topic="steps.one") for number in numbers)
    seen = set(numbers_of(await take_acked(arrived, 10)))
    await first.stop()
    await publisher.publish("steps.one", numbered(1001, topic="steps.one"))
    await second.register_trigger("doubling", doubling(broker, group="doubling"), "steps.two")
    await second.start()
    while not seen >= {2 * number for number in [*numbers, 1001]}:
        seen.update(numbers_of(await take_acked(arrived, 1)))
    await second.stop()
    assert left_behind() == []
