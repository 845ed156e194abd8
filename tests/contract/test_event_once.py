"""Events that are published once: of all who try, anywhere, one does it."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from app.event_system import (
    BrokerUnavailableError,
    ClosedError,
    EventEncodeError,
    Overflow,
    QueueFullError,
)
from app.event_system.infrastructure import RedisBroker
from tests.contract.servers import RealServer
from tests.support.events import Numbered, eventually, numbered, queue_of, take_acked

HOUR = 3600.0


@pytest_asyncio.fixture
async def broker(shared_server: RealServer) -> AsyncGenerator[RedisBroker]:
    """A broker on the shared server, emptied."""
    with shared_server.client() as client:
        client.flushall()
    async with RedisBroker(shared_server.url, timeout=60) as opened:
        yield opened


async def test_of_many_at_once_one_publishes(
    broker: RedisBroker, shared_server: RealServer
) -> None:
    subscription = await broker.consumer().subscribe("numbers.*", Numbered)
    events = [numbered(number) for number in range(3)]
    async with RedisBroker(shared_server.url, timeout=60) as other:
        ends = [broker.publisher(), other.publisher(), other.publisher()]
        tries = [
            end.publish_once("numbers.all", event, seconds=HOUR)
            for _ in range(20)
            for end in ends
            for event in events
        ]
        done = await asyncio.gather(*tries)
    assert done.count(True) == 3
    got = await take_acked(subscription, 3)
    assert sorted(event.number for event in got) == [0, 1, 2]
    assert {event.event_id for event in got} == {event.event_id for event in events}
    queue = await queue_of(broker, "numbers.*")
    assert (queue.waiting, queue.unsettled) == (0, 0)


async def test_it_is_the_id_that_counts(broker: RedisBroker) -> None:
    subscription = await broker.consumer().subscribe("**", Numbered)
    publisher = broker.publisher()
    event = numbered(1)
    changed = event.model_copy(update={"number": 2})
    assert await publisher.publish_once("numbers.all", event, seconds=HOUR)
    assert not await publisher.publish_once("numbers.other", changed, seconds=HOUR)
    await publisher.publish("numbers.all", event)  # says nothing of once
    assert [one.number for one in await take_acked(subscription, 2)] == [1, 1]


async def test_the_id_is_forgotten_after_its_time(broker: RedisBroker) -> None:
    publisher, event = broker.publisher(), numbered(1)
    assert await publisher.publish_once("numbers.all", event, seconds=0.2)
    await eventually(lambda: publisher.publish_once("numbers.all", event, seconds=HOUR))
    assert not await publisher.publish_once("numbers.all", event, seconds=HOUR)


async def test_what_was_refused_may_be_repeated(broker: RedisBroker) -> None:
    subscription = await broker.consumer().subscribe(
        "numbers.*", Numbered, limit=1, overflow=Overflow.ERROR
    )
    publisher = broker.publisher()
    await publisher.publish("numbers.all", numbered(1))
    event = numbered(2)
    with pytest.raises(QueueFullError):
        await publisher.publish_once("numbers.all", event, seconds=HOUR)
    await take_acked(subscription, 1)
    assert await publisher.publish_once("numbers.all", event, seconds=HOUR)
    assert [one.number for one in await take_acked(subscription, 1)] == [2]


async def test_who_subscribed_since_gets_it(broker: RedisBroker) -> None:
    """The publisher's routes are old: nothing is marked before it has read the new ones."""
    publisher = broker.publisher()
    assert await publisher.publish_once("numbers.all", numbered(1), seconds=HOUR)
    subscription = await broker.consumer().subscribe("numbers.*", Numbered)
    assert await publisher.publish_once("numbers.all", numbered(2), seconds=HOUR)
    assert [one.number for one in await take_acked(subscription, 1)] == [2]


async def test_an_outage_is_no_first_time(own_server: RealServer) -> None:
    async with RedisBroker(own_server.url, timeout=5) as broker:
        consumer = broker.consumer()
        subscription = await consumer.subscribe("numbers.*", Numbered, group="team")
        publisher = broker.publisher()
        first, second = numbered(1), numbered(2)
        assert await publisher.publish_once("numbers.all", first, seconds=HOUR)
        own_server.kill()
        with pytest.raises(BrokerUnavailableError):
            await publisher.publish_once("numbers.all", second, seconds=HOUR)
        own_server.start()
        assert not await publisher.publish_once("numbers.all", first, seconds=HOUR)
        assert await publisher.publish_once("numbers.all", second, seconds=HOUR)
        assert [one.number for one in await take_acked(subscription, 2)] == [1, 2]


async def test_what_cannot_travel_or_has_no_way_is_told(broker: RedisBroker) -> None:
    publisher = broker.publisher()
    with pytest.raises(EventEncodeError):
        await publisher.publish_once("a", numbered(1, text="x" * 2**20), seconds=HOUR)
    await publisher.close()
    with pytest.raises(ClosedError):
        await publisher.publish_once("a", numbered(1), seconds=HOUR)
