"""Event triggers on a real broker in memory: filters, failures, loops, groups, stopping."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.event_system import (
    BrokerPort,
    EventBase,
    EventEncodeError,
    PublisherPort,
    Subscription,
    TopicError,
)
from app.event_system.infrastructure import InMemoryBroker
from app.scheduler import EventTrigger, Scheduler, TriggerConfigError, create_event_trigger
from app.scheduler.infrastructure import event_trigger as module
from tests.support.triggers import Recorder, left_behind, until


class Source(EventBase):
    """What triggers."""

    number: int = 0
    timestamp: datetime | None = None


class Result(EventBase):
    """What is triggered."""

    number: int = 0


def result(source: Source) -> Result:
    return Result(topic="results", number=source.number)


@pytest.fixture
async def broker() -> AsyncGenerator[BrokerPort]:
    async with InMemoryBroker() as broker:
        yield broker


@pytest.fixture
async def publisher(broker: BrokerPort) -> PublisherPort:
    return broker.publisher()


@pytest.fixture
async def scheduler(publisher: PublisherPort) -> AsyncGenerator[Scheduler]:
    scheduler = Scheduler(publisher)
    yield scheduler
    await scheduler.stop()
    assert left_behind() == []


async def listen(broker: BrokerPort, pattern: str = "results") -> Subscription[EventBase]:
    return await broker.consumer().subscribe(pattern)


async def numbers(arrived: Subscription[EventBase], count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(30):
        for _ in range(count):
            delivery = await anext(arrived)
            delivery.ack()
            found.append(getattr(delivery.event, "number", -1))
    return found


async def registered(
    scheduler: Scheduler,
    broker: BrokerPort,
    factory: Callable[[Any], Any] = result,
    filter_func: Callable[[Any], bool | Awaitable[bool]] | None = None,
    **options: Any,
) -> EventTrigger[Any]:
    trigger = create_event_trigger(broker.consumer(), "sources.**", factory, filter_func, **options)
    await scheduler.register_trigger("t", trigger, "results")
    await scheduler.start()
    return trigger


async def send(publisher: PublisherPort, *sent: int, **fields: Any) -> None:
    for number in sent:
        topic = "sources.a.b"
        await publisher.publish(topic, Source(topic=topic, number=number, **fields))


async def test_events_make_events_in_order(
    scheduler: Scheduler, broker: BrokerPort, publisher: PublisherPort
) -> None:
    arrived = await listen(broker)
    trigger = await registered(scheduler, broker, filter_func=lambda event: event.number % 2 == 1)
    await send(publisher, 1, 2, 3, 4, 5)
    assert await numbers(arrived, 3) == [1, 3, 5]
    assert trigger.get_trigger_count() == 3
    assert trigger.get_error_count() == 0


async def test_async_factory_and_filter(
    scheduler: Scheduler, broker: BrokerPort, publisher: PublisherPort
) -> None:
    async def keep(event: Source) -> bool:
        await asyncio.sleep(0)
        return event.number > 1

    async def factory(event: Source) -> Result:
        await asyncio.sleep(0)
        return result(event)

    arrived = await listen(broker)
    await registered(scheduler, broker, factory, keep)
    await send(publisher, 1, 2)
    assert await numbers(arrived, 1) == [2]


@pytest.mark.parametrize("where", ["filter", "factory"])
async def test_what_raises_skips_the_event_alone(
    scheduler: Scheduler,
    broker: BrokerPort,
    publisher: PublisherPort,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    def breaks(event: Source) -> Any:
        if event.number == 1:
            raise LookupError("no such number")
        return True if where == "filter" else result(event)

    arrived = await listen(broker)
    broken = (result, breaks) if where == "filter" else (breaks, None)
    trigger = await registered(scheduler, broker, *broken)
    event = Source(topic="sources", number=1)
    await publisher.publish("sources", event)
    await send(publisher, 2)
    assert await numbers(arrived, 1) == [2]
    assert (trigger.get_trigger_count(), trigger.get_error_count()) == (1, 1)
    (told,) = (each for each in caplog.records if each.__dict__["action"] == "trigger.failed")
    assert told.__dict__["event_id"] == event.event_id
    assert (
        f"the {'filter' if where == 'filter' else 'event factory'} failed: LookupError"
        in (told.__dict__["reason"])
    )


async def test_a_filter_may_compare_naive_times_with_naive_fields_only(
    scheduler: Scheduler, broker: BrokerPort, publisher: PublisherPort
) -> None:
    def recent(event: Source) -> bool:
        assert event.timestamp is not None
        return event.timestamp > datetime.now() - timedelta(hours=1)  # noqa: DTZ005

    arrived = await listen(broker)
    trigger = await registered(scheduler, broker, filter_func=recent)
    await send(publisher, 1, timestamp=datetime.now(UTC))
    await send(publisher, 2, timestamp=datetime.now())  # noqa: DTZ005
    assert await numbers(arrived, 1) == [2]
    assert trigger.get_error_count() == 1


async def test_a_trigger_that_triggers_itself_is_stopped(
    scheduler: Scheduler,
    broker: BrokerPort,
    publisher: PublisherPort,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arrived = await listen(broker, "circle")
    trigger = create_event_trigger(
        broker.consumer(),
        "circle",
        lambda event: Result(topic="circle", number=getattr(event, "number", 0) + 1),
        max_hops=5,
    )
    await scheduler.register_trigger("circle", trigger, "circle")
    await scheduler.start()
    await publisher.publish("circle", Result(topic="circle"))
    assert await numbers(arrived, 6) == [0, 1, 2, 3, 4, 5]
    await until(lambda: trigger.get_loop_count() == 1, "the circle is cut")
    assert trigger.get_trigger_count() == 5
    told = [each for each in caplog.records if each.__dict__["action"] == "trigger.loop"]
    assert [each.__dict__["hops"] for each in told] == [5]
    assert told[0].levelno == logging.ERROR


@pytest.mark.parametrize("hops", ["", "-1", "many", "٣", "9" * 50])
async def test_a_strange_hop_count_is_none(
    scheduler: Scheduler, broker: BrokerPort, publisher: PublisherPort, hops: str
) -> None:
    arrived = await listen(broker)
    await registered(scheduler, broker)
    await send(publisher, 1, headers={"dms-hops": hops})
    delivery = await anext(arrived)
    assert delivery.event.headers["dms-hops"] == "1"


async def test_events_come_as_the_type_that_is_asked_for(
    scheduler: Scheduler, broker: BrokerPort, publisher: PublisherPort
) -> None:
    arrived = await listen(broker)
    await registered(scheduler, broker, event_type=Source)
    await publisher.publish("sources", EventBase.model_validate({"topic": "sources", "number": 7}))
    assert await numbers(arrived, 1) == [7]


async def test_what_arrived_is_worked_off_before_it_stops(
    scheduler: Scheduler, broker: BrokerPort, publisher: PublisherPort
) -> None:
    async def slow(event: Source) -> Result:
        await asyncio.sleep(0)
        return result(event)

    arrived = await listen(broker)
    trigger = await registered(scheduler, broker, slow)
    await send(publisher, *range(200))
    await scheduler.stop()
    assert await numbers(arrived, 200) == list(range(200))
    assert not trigger.is_running()
    await send(publisher, 1000)
    await scheduler.start()
    await send(publisher, 1001)
    assert await numbers(arrived, 1) == [1001], "without a group it misses what is published"


async def test_a_group_keeps_what_is_published_while_it_is_stopped(
    scheduler: Scheduler, broker: BrokerPort, publisher: PublisherPort
) -> None:
    arrived = await listen(broker)
    await registered(scheduler, broker, group="workers")
    await scheduler.stop()
    await send(publisher, 1, 2)
    await scheduler.start()
    assert await numbers(arrived, 2) == [1, 2]


async def test_members_of_a_group_share_the_events(
    broker: BrokerPort, publisher: PublisherPort
) -> None:
    arrived = await listen(broker)
    schedulers = [Scheduler(publisher) for _ in range(3)]
    for scheduler in schedulers:
        await registered(scheduler, broker, group="workers")
    await send(publisher, *range(30))
    assert sorted(await numbers(arrived, 30)) == list(range(30))
    for scheduler in schedulers:
        await scheduler.stop()
    (queue,) = (each for each in await broker.queues() if each.pattern == "results")
    assert queue.waiting == 0


async def test_what_cannot_be_published_is_delivered_again(
    monkeypatch: pytest.MonkeyPatch, broker: BrokerPort, publisher: PublisherPort
) -> None:
    monkeypatch.setattr(module, "REDELIVERY_SECONDS", 0.0)
    recorder = Recorder([EventEncodeError("no JSON")] * 2)
    scheduler = Scheduler(recorder)
    trigger = await registered(scheduler, broker)
    await send(publisher, 1)
    await until(lambda: recorder.published, "it was published")
    assert (trigger.get_trigger_count(), trigger.get_error_count()) == (1, 2)
    await scheduler.stop()


async def test_what_can_never_be_published_is_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch, broker: BrokerPort, publisher: PublisherPort
) -> None:
    monkeypatch.setattr(module, "REDELIVERY_SECONDS", 0.0)
    recorder = Recorder([EventEncodeError("no JSON")] * 5)
    scheduler = Scheduler(recorder)
    await registered(scheduler, broker)
    await send(publisher, 1)
    await until(lambda: recorder.tries == 5, "it was tried five times")
    await send(publisher, 2)
    await until(lambda: recorder.published, "the next was published")
    (letter,) = await broker.dead_letters()
    assert letter.reason == "EventEncodeError: no JSON"
    await scheduler.stop()


async def test_stopping_while_nobody_can_publish(
    monkeypatch: pytest.MonkeyPatch, broker: BrokerPort, publisher: PublisherPort
) -> None:
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.05)
    recorder = Recorder()
    recorder.open.clear()
    scheduler = Scheduler(recorder, drain_seconds=0.05)
    trigger = await registered(scheduler, broker, group="workers")
    await send(publisher, 1, 2)
    await until(lambda: recorder.tries == 1, "publishing began")
    await scheduler.stop()
    assert left_behind() == []
    assert not trigger.is_running()
    recorder.open.set()
    await scheduler.start()
    await until(lambda: len(recorder.published) == 2, "both were given back to the group")
    await scheduler.stop()


async def test_a_closed_consumer_is_told(
    scheduler: Scheduler, broker: BrokerPort, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = broker.consumer()
    trigger = create_event_trigger(consumer, "sources", result)
    await scheduler.register_trigger("t", trigger, "results")
    await scheduler.start()
    await until(trigger._waits.is_set, "it runs")
    await consumer.close()
    await until(
        lambda: any(each.__dict__.get("action") == "trigger.ended" for each in caplog.records),
        "it was told",
    )


async def test_alone(broker: BrokerPort, publisher: PublisherPort) -> None:
    trigger = create_event_trigger(broker.consumer(), "sources.**", result)
    assert [event async for event in trigger.emit()] == []
    await trigger.start()
    await trigger.start()
    await send(publisher, 1, 2)
    events = trigger.emit()
    assert (await anext(events)).number == 1
    assert (await anext(events)).number == 2
    ending = asyncio.ensure_future(anext(events, None))
    await trigger.stop()
    await trigger.stop()
    assert await ending is None
    assert trigger.get_trigger_count() == 2


async def test_bad_arguments(broker: BrokerPort) -> None:
    consumer = broker.consumer()
    with pytest.raises(TopicError):
        create_event_trigger(consumer, "a..b", result)
    with pytest.raises(TriggerConfigError, match="event_factory is 'x': give a function"):
        create_event_trigger(consumer, "a", "x")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TriggerConfigError, match="filter_func"):
        create_event_trigger(consumer, "a", result, 7)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TriggerConfigError, match="max_hops is 0"):
        create_event_trigger(consumer, "a", result, max_hops=0)
