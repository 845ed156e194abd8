"""What the Redis broker promises while consumers die, stand still, or Redis goes and comes."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from typing import cast

import pytest
import pytest_asyncio

from app.event_system import (
    BrokerUnavailableError,
    EventBase,
    Overflow,
    PublisherPort,
    SubscribeError,
    Subscription,
)
from app.event_system.infrastructure import RedisBroker
from tests.contract.servers import RealServer
from tests.support.event_consumer import EventConsumer
from tests.support.events import (
    Numbered,
    eventually,
    numbered,
    queue_of,
    take,
    take_acked,
)

PATTERN, GROUP = "numbers.**", "team"
QUEUE = f"dms:{{events}}:queue:{PATTERN}:{GROUP}"
MEMBERS = f"dms:{{events}}:members:{PATTERN}:{GROUP}"


@pytest.fixture
def url(shared_server: RealServer) -> str:
    """The shared server, emptied."""
    with shared_server.client() as client:
        client.flushall()
    return shared_server.url


@pytest_asyncio.fixture
async def broker(url: str) -> AsyncGenerator[RedisBroker]:
    async with RedisBroker(url, timeout=60, lease_seconds=1) as opened:
        yield opened


async def _join(broker: RedisBroker, most: int = 5) -> Subscription[Numbered]:
    consumer = broker.consumer()
    return await consumer.subscribe(PATTERN, Numbered, group=GROUP, max_deliveries=most)


async def _publish(broker: RedisBroker, *numbers: int) -> None:
    await broker.publisher().publish_many([numbered(number) for number in numbers])


async def test_events_of_a_killed_consumer_go_to_another(url: str, broker: RedisBroker) -> None:
    with EventConsumer(url, hold=True) as consumer:
        await consumer.ready()
        await _publish(broker, *range(20))
        assert await consumer.line() == "0"
        consumer.process.kill()
        await consumer.ended()
        other = await _join(broker)
        events = await take_acked(other, 20)
    assert sorted(event.number for event in events) == list(range(20))
    queue = await queue_of(broker, PATTERN, GROUP)
    assert (queue.waiting, queue.unsettled, queue.dead) == (0, 0, 0)


async def test_an_event_that_kills_ends_as_a_dead_letter_alone(
    url: str, broker: RedisBroker
) -> None:
    """The others that its consumers had read ahead are not counted on."""
    await (await _join(broker)).close()
    await _publish(broker, *range(10))
    seen: set[str] = set()
    for _ in range(3):
        with EventConsumer(url, poison=4, most=3) as consumer:
            await consumer.ready()
            while line := await consumer.line():
                seen.add(line)
            assert await consumer.ended() == -signal.SIGKILL
    survivor = await _join(broker, most=3)
    await eventually(lambda: _letters(broker, 1))
    [letter] = await broker.dead_letters()
    assert Numbered.model_validate_json(letter.payload).number == 4
    assert letter.deliveries == 3
    assert "died" in letter.reason
    drain = asyncio.create_task(_acknowledge(survivor))
    await eventually(lambda: _empty(broker))
    await survivor.close()
    assert seen | {str(event.number) for event in await drain} == {str(n) for n in range(10)}
    assert await broker.dead_letters() == [letter]


async def _acknowledge(subscription: Subscription[Numbered]) -> list[Numbered]:
    events: list[Numbered] = []
    async for delivery in subscription:
        events.append(delivery.event)
        delivery.ack()
    return events


async def test_a_slow_consumer_keeps_what_it_has(
    shared_server: RealServer, broker: RedisBroker
) -> None:
    slow, other = await _join(broker), await _join(broker)
    await _publish(broker, 1)
    waiting = {asyncio.create_task(take(one)): one for one in (slow, other)}
    done, idle = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    delivery = done.pop().result()

    def believed_until() -> float:
        with shared_server.client() as client:
            found = client.zrange(MEMBERS, 0, -1, withscores=True)
            return min(score for _, score in cast("list[tuple[bytes, float]]", found))

    start = believed_until()

    async def three_leases_later() -> bool:
        return believed_until() > start + 3000

    await eventually(three_leases_later)
    assert not any(task.done() for task in idle)
    assert (await queue_of(broker, PATTERN, GROUP)).unsettled == 1
    delivery.ack()
    await slow.flush()
    await other.flush()
    await _publish(broker, 2)
    for task in idle:
        task.cancel()
    await asyncio.gather(*idle, return_exceptions=True)


async def test_a_consumer_that_stood_still_gives_way(url: str, broker: RedisBroker) -> None:
    with EventConsumer(url, lease=1.0) as consumer:
        await consumer.ready()
        await _publish(broker, 0)
        assert await consumer.line() == "0"
        await eventually(lambda: _empty(broker))
        consumer.process.send_signal(signal.SIGSTOP)
        other = await _join(broker)
        await _publish(broker, *range(1, 11))
        events = await take_acked(other, 10)
        assert sorted(event.number for event in events) == list(range(1, 11))
        await other.close()
        consumer.process.send_signal(signal.SIGCONT)
        await _publish(broker, 50)
        assert await consumer.line() == "50"


async def test_subscriptions_of_dead_processes_end(url: str, broker: RedisBroker) -> None:
    with EventConsumer(url, group=None, lease=0.5) as consumer:
        await consumer.ready()
        assert len(await broker.queues()) == 1
        consumer.process.kill()
        await consumer.ended()

    async def gone() -> bool:
        await _publish(broker, 1)
        return await broker.queues() == []

    await eventually(gone)


async def test_nothing_is_lost_when_redis_restarts(own_server: RealServer) -> None:
    async with RedisBroker(own_server.url, timeout=5, lease_seconds=1) as broker:
        publisher = broker.publisher()
        subscription = await _join(broker)
        await publisher.publish_many([numbered(number) for number in range(10)])
        first = await take(subscription)
        own_server.kill()
        with pytest.raises(BrokerUnavailableError, match="unknown"):
            await publisher.publish("numbers.all", numbered(10))
        first.ack()  # told once it is back
        own_server.start()
        await _publish_until_stored(publisher, numbered(10))
        numbers = {event.number for event in await take_acked(subscription, 10)}
        assert numbers == set(range(1, 11))
        await eventually(lambda: _empty(broker))


async def _publish_until_stored(publisher: PublisherPort, event: EventBase) -> None:
    async def stored() -> bool:
        try:
            await publisher.publish(event.topic, event)
        except BrokerUnavailableError:
            return False
        return True

    await eventually(stored)


async def test_every_event_arrives_through_a_storm_of_resets(
    shared_server: RealServer, url: str, broker: RedisBroker
) -> None:
    """Replies are lost, be it of publishing, reading, settling or taking over."""
    publisher, subscription = broker.publisher(), await _join(broker)
    received: set[int] = set()

    async def consume() -> None:
        async for delivery in subscription:
            received.add(delivery.event.number)
            delivery.ack()

    async def publish() -> None:
        for number in range(300):
            await _publish_until_stored(publisher, numbered(number))

    async def storm() -> None:
        with shared_server.client() as client:
            while True:
                client.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.01)

    async def all_there() -> bool:
        return received == set(range(300))

    consuming, storming = asyncio.create_task(consume()), asyncio.create_task(storm())
    await publish()
    storming.cancel()
    await asyncio.gather(storming, return_exceptions=True)
    await eventually(all_there)
    await eventually(lambda: _empty(broker))
    await subscription.close()
    await consuming
    assert await broker.dead_letters() == []


async def _empty(broker: RedisBroker) -> bool:
    queue = await queue_of(broker, PATTERN, GROUP)
    return (queue.waiting, queue.unsettled) == (0, 0)


async def test_events_whose_reply_was_lost_are_found(
    shared_server: RealServer, broker: RedisBroker
) -> None:
    subscription = await broker.consumer(prefetch=1).subscribe(PATTERN, Numbered, group=GROUP)
    await _publish(broker, 1, 2)
    first = await take(subscription)  # and with that it has no room to read the other
    with shared_server.client() as client:
        [name] = cast("list[bytes]", client.zrange(MEMBERS, 0, -1))
        lost = client.xreadgroup("members", name.decode(), {QUEUE: ">"})  # as if it had read that
        assert lost
        first.ack()
        await subscription.flush()
        received = asyncio.create_task(take(subscription))

        async def arrived() -> bool:
            client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.wait({received}, timeout=0.1)
            return received.done()

        await eventually(arrived)
    assert received.result().event.number == 2
    received.result().ack()
    await eventually(lambda: _empty(broker))


async def test_a_subscription_outlives_the_loss_of_everything(
    shared_server: RealServer, broker: RedisBroker, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = await broker.consumer().subscribe(PATTERN, Numbered)
    publisher = broker.publisher()
    await publisher.publish("numbers.all", numbered(1))
    await take_acked(subscription, 1)
    with shared_server.client() as client:
        client.flushall()
    received = asyncio.create_task(take(subscription))

    async def arrived() -> bool:
        await publisher.publish("numbers.all", numbered(2))
        await asyncio.wait({received}, timeout=0.05)
        return received.done()

    await eventually(arrived)
    assert received.result().event.number == 2
    assert any("events may be missing" in record.message for record in caplog.records)


async def test_garbage_in_a_queue_is_a_dead_letter(
    shared_server: RealServer, broker: RedisBroker
) -> None:
    subscription = await _join(broker)
    with shared_server.client() as client:
        client.xadd(QUEUE, {"e": b"\xff not JSON", "t": "?"})
        client.xadd(QUEUE, {"something": "else"})
    await _publish(broker, 3)
    assert [event.number for event in await take_acked(subscription, 1)] == [3]
    await eventually(lambda: _letters(broker, 2))
    assert [letter.topic for letter in await broker.dead_letters()] == ["", ""]


async def _letters(broker: RedisBroker, count: int) -> bool:
    return len(await broker.dead_letters()) == count


async def test_publishers_learn_of_subscriptions_elsewhere(url: str, broker: RedisBroker) -> None:
    publisher = broker.publisher()
    await publisher.publish("numbers.all", numbered(1))
    async with RedisBroker(url, timeout=60) as elsewhere:
        subscription = await _join(elsewhere)
        await publisher.publish("numbers.all", numbered(2))
        assert [event.number for event in await take_acked(subscription, 1)] == [2]


async def test_brokers_of_another_prefix_have_nothing_in_common(
    url: str, broker: RedisBroker
) -> None:
    async with RedisBroker(url, prefix="other:{events}:", timeout=60) as other:
        await other.consumer().subscribe("**")
        await _publish(broker, 1)
        assert (await queue_of(other, "**")).waiting == 0
        assert await broker.queues() == []


async def test_publishes_at_once_share_a_round_trip(
    shared_server: RealServer, broker: RedisBroker
) -> None:
    publisher, subscription = broker.publisher(), await _join(broker)
    await publisher.publish("numbers.all", numbered(-1))  # the routes are known from now on
    with shared_server.client() as client:
        client.config_resetstat()
        numbers = range(300)
        await asyncio.gather(*(publisher.publish("numbers.x", numbered(n)) for n in numbers))
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert calls < 30  # of publishing, the lease and settling
    events = await take_acked(subscription, 301)
    assert [event.number for event in events] == [-1, *numbers]


async def test_a_consumer_reads_no_further_ahead_than_it_may(url: str, broker: RedisBroker) -> None:
    subscription = await broker.consumer(prefetch=10).subscribe(PATTERN, Numbered, group=GROUP)
    await _publish(broker, *range(100))
    held = [await take(subscription) for _ in range(10)]
    queue = await queue_of(broker, PATTERN, GROUP)
    assert (queue.waiting, queue.unsettled) == (90, 10)
    for delivery in held:
        delivery.ack()
    numbers = [event.number for event in await take_acked(subscription, 90)]
    assert numbers == list(range(10, 100))


async def test_dropped_events_are_loud(
    broker: RedisBroker, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = await broker.consumer().subscribe(PATTERN, group=GROUP, limit=2)
    await subscription.close()
    await _publish(broker, *range(5))
    assert (await queue_of(broker, PATTERN, GROUP)).waiting == 2
    dropped = [record for record in caplog.records if "dropped" in record.message]
    assert dropped
    assert (await queue_of(broker, PATTERN, GROUP)).dropped == 3


async def test_waiting_for_room_is_not_offered(broker: RedisBroker) -> None:
    with pytest.raises(SubscribeError, match="drop_oldest"):
        await broker.consumer().subscribe(PATTERN, overflow=Overflow.WAIT)
    with pytest.raises(SubscribeError, match="prefetch"):
        broker.consumer(prefetch=0)


async def test_redis_away_is_an_error_in_time(own_server: RealServer) -> None:
    own_server.kill()
    async with RedisBroker(own_server.url, timeout=2) as broker:
        with pytest.raises(BrokerUnavailableError):
            await broker.publisher().publish("a", EventBase(topic="a"))
        with pytest.raises(BrokerUnavailableError):
            await broker.consumer().subscribe("a")
        with pytest.raises(BrokerUnavailableError):
            await broker.queues()


async def test_a_server_that_hangs_is_an_error_in_time(own_server: RealServer) -> None:
    async with RedisBroker(own_server.url, timeout=0.5) as broker:
        publisher = broker.publisher()
        await publisher.publish("a", EventBase(topic="a"))
        own_server.signal(signal.SIGSTOP)
        with pytest.raises(BrokerUnavailableError, match=r"did not answer within 0\.5 s"):
            await publisher.publish("a", EventBase(topic="a"))
        own_server.signal(signal.SIGCONT)
        await _publish_until_stored(publisher, EventBase(topic="a"))


async def test_closing_while_redis_is_away_ends(own_server: RealServer) -> None:
    async with RedisBroker(own_server.url, timeout=0.5) as broker:
        subscription = await _join(broker)
        await _publish(broker, 1)
        (await take(subscription)).ack()
        own_server.kill()
        async with asyncio.timeout(60):
            await subscription.close()
