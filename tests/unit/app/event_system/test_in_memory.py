"""What the broker in memory alone does: publishers that wait for room, and no conversion."""

import asyncio
from typing import Any

import pytest

from app.event_system import EventBase, Overflow
from app.event_system.infrastructure import InMemoryBroker, InMemoryConsumer, InMemoryPublisher
from tests.support.events import Numbered, numbered, queue_of, take, take_acked


async def _turns(count: int = 20) -> None:
    """Let every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_samples_of_the_document_need_no_start() -> None:
    broker = InMemoryBroker()
    publisher, consumer = InMemoryPublisher(broker), InMemoryConsumer(broker)
    subscription = await consumer.subscribe("logs.**")
    event = EventBase(topic="logs.app")
    await publisher.publish("logs.app", event)
    assert (await take(subscription)).event is event


async def test_a_publisher_waits_for_room() -> None:
    broker = InMemoryBroker()
    publisher = broker.publisher()
    subscription = await broker.consumer().subscribe("numbers.*", Numbered, limit=2)
    done: list[int] = []

    async def publish(number: int) -> None:
        await publisher.publish("numbers.all", numbered(number))
        done.append(number)

    publishing = [asyncio.create_task(publish(number)) for number in range(5)]
    await _turns()
    assert done == [0, 1]
    first = await take(subscription)
    await _turns()
    assert done == [0, 1]  # in work is not out of the way
    first.ack()
    await _turns()
    assert done == [0, 1, 2]
    events = await take_acked(subscription, 4)
    assert [event.number for event in events] == [1, 2, 3, 4]
    await asyncio.gather(*publishing)
    assert done == [0, 1, 2, 3, 4]
    assert (await queue_of(broker, "numbers.*")).dropped == 0


async def test_a_publisher_that_waits_is_not_overtaken() -> None:
    broker = InMemoryBroker()
    publisher = broker.publisher()
    subscription = await broker.consumer().subscribe("numbers.*", Numbered, limit=1)
    await publisher.publish("numbers.all", numbered(0))
    waiting = asyncio.create_task(publisher.publish("numbers.all", numbered(1)))
    await _turns()
    (await take(subscription)).ack()
    late = asyncio.create_task(publisher.publish("numbers.all", numbered(2)))
    assert [event.number for event in await take_acked(subscription, 2)] == [1, 2]
    await asyncio.gather(waiting, late)


async def test_a_publisher_that_gives_up_takes_its_event_along() -> None:
    broker = InMemoryBroker()
    publisher = broker.publisher()
    subscription = await broker.consumer().subscribe("numbers.*", Numbered, limit=1)
    await publisher.publish("numbers.all", numbered(0))
    waiting = [
        asyncio.create_task(publisher.publish("numbers.all", numbered(number))) for number in (1, 2)
    ]
    await _turns()
    waiting[0].cancel()
    await _turns()
    assert [event.number for event in await take_acked(subscription, 2)] == [0, 2]
    await waiting[1]


async def test_publishers_go_on_when_the_subscription_closes() -> None:
    broker = InMemoryBroker()
    publisher = broker.publisher()
    subscription = await broker.consumer().subscribe("numbers.*", limit=1)
    publishing = [
        asyncio.create_task(publisher.publish("numbers.all", numbered(number)))
        for number in range(3)
    ]
    await _turns()
    await subscription.close()
    async with asyncio.timeout(60):
        await asyncio.gather(*publishing)


async def test_nobody_waits_for_a_group_without_members() -> None:
    broker = InMemoryBroker()
    publisher = broker.publisher()
    joined = await broker.consumer().subscribe("numbers.*", Numbered, group="team", limit=2)
    publishing = [
        asyncio.create_task(publisher.publish("numbers.all", numbered(number)))
        for number in range(4)
    ]
    await _turns()
    await joined.close()
    async with asyncio.timeout(60):
        await asyncio.gather(*publishing)
        await publisher.publish("numbers.all", numbered(4))
    queue = await queue_of(broker, "numbers.*", "team")
    assert (queue.waiting, queue.dropped) == (2, 3)
    again = await broker.consumer().subscribe("numbers.*", Numbered, group="team", limit=2)
    assert [event.number for event in await take_acked(again, 2)] == [3, 4]


async def test_a_member_that_is_cancelled_passes_its_turn_on() -> None:
    broker = InMemoryBroker()
    publisher = broker.publisher()
    consumer = broker.consumer()
    first = await consumer.subscribe("numbers.*", Numbered, group="team")
    second = await consumer.subscribe("numbers.*", Numbered, group="team")
    waiting = asyncio.create_task(take(first))
    other = asyncio.create_task(take(second))
    await _turns()
    await publisher.publish("numbers.all", numbered(1))
    waiting.cancel()  # it was woken for the event, and does not take it
    async with asyncio.timeout(60):
        assert (await other).event.number == 1


async def test_drops_while_all_is_in_work_are_of_the_newest() -> None:
    broker = InMemoryBroker()
    publisher = broker.publisher()
    subscription = await broker.consumer().subscribe(
        "numbers.*", Numbered, limit=1, overflow=Overflow.DROP_OLDEST
    )
    await publisher.publish("numbers.all", numbered(0))
    delivery = await take(subscription)
    await publisher.publish("numbers.all", numbered(1))
    delivery.ack()
    await publisher.publish("numbers.all", numbered(2))
    assert [event.number for event in await take_acked(subscription, 1)] == [2]
    assert (await queue_of(broker, "numbers.*")).dropped == 1


async def test_events_need_not_be_json() -> None:
    class Carrier(EventBase):
        value: Any

    broker = InMemoryBroker()
    subscription = await broker.consumer().subscribe("carried", max_deliveries=1)
    await broker.publisher().publish("carried", Carrier(topic="carried", value=object()))
    (await take(subscription)).nack("why")
    [letter] = await broker.dead_letters()
    assert "Carrier" in letter.type_name
    assert "object" in letter.payload


async def test_dead_letters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.event_system.infrastructure.in_memory.MOST_DEAD_LETTERS", 3)
    broker = InMemoryBroker()
    publisher = broker.publisher()
    subscription = await broker.consumer().subscribe("numbers.*", max_deliveries=1)
    for number in range(5):
        await publisher.publish("numbers.all", numbered(number))
        (await take(subscription)).nack(str(number))
    assert [letter.reason for letter in await broker.dead_letters()] == ["2", "3", "4"]
    assert (await queue_of(broker, "numbers.*")).dead == 5
