"""What every broker of events promises of refused events, full queues and groups that go."""

import asyncio

import pytest

from app.event_system import (
    BrokerPort,
    ConsumerPort,
    Overflow,
    PublisherPort,
    QueueFullError,
)
from app.event_system.infrastructure import redis_streams
from tests.support.events import (
    Named,
    Numbered,
    eventually,
    numbered,
    numbers_of,
    publish,
    queue_of,
    take,
    take_acked,
)


async def test_refused_events_come_again_and_then_are_dead_letters(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered, group="team", max_deliveries=3)
    original = numbered(7, text="값 하나")
    await publisher.publish("numbers.all", original)
    for time in (1, 2, 3):
        delivery = await take(subscription)
        assert (delivery.event, delivery.deliveries) == (original, time)
        delivery.nack(f"no use: {time}, 이유")
    await subscription.flush()
    [letter] = await broker.dead_letters()
    assert (letter.pattern, letter.group, letter.deliveries) == ("numbers.*", "team", 3)
    assert (letter.topic, letter.type_name) == ("numbers.all", Numbered.type_name)
    assert letter.reason == "no use: 3, 이유"
    assert Numbered.model_validate_json(letter.payload) == original
    queue = await queue_of(broker, "numbers.*", "team")
    assert (queue.waiting, queue.unsettled, queue.dead) == (0, 0, 1)


async def test_many_queues_are_told_of(
    publisher: PublisherPort,
    consumer: ConsumerPort,
    broker: BrokerPort,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_streams, "_AT_ONCE", 3)  # the last of several questions is short
    assert await broker.queues() == []
    for number in range(8):
        await consumer.subscribe(f"numbers.n{number}", group="team")
        await publish(publisher, *range(number), topic=f"numbers.n{number}")
    found = {
        queue.pattern: queue.waiting + queue.unsettled  # members may have read ahead
        for queue in await broker.queues()
    }
    assert found == {f"numbers.n{number}": number for number in range(8)}


async def test_dead_letters_are_replayed_as_new(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered, group="team", max_deliveries=1)
    await publish(publisher, 1, 2)
    for _ in range(2):
        (await take(subscription)).nack("later")
    await subscription.flush()
    first, second = await broker.dead_letters()
    assert await broker.dead_count() == 2
    assert await broker.dead_letters(after=first.letter_id) == [second]
    assert await broker.dead_letters(limit=1) == [first]
    assert await broker.replay([first.letter_id, "999-9"]) == 1
    assert await broker.dead_count() == 1
    delivery = await take(subscription)
    assert (delivery.event.number, delivery.deliveries) == (1, 1)
    assert await broker.discard([second.letter_id, first.letter_id]) == 1
    assert await broker.dead_letters() == []


async def test_letters_of_a_queue_that_is_gone_stay(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", max_deliveries=1)
    await publish(publisher, 1)
    (await take(subscription)).nack("no")
    await subscription.flush()
    await subscription.close()
    [letter] = await broker.dead_letters()
    assert letter.group is None
    assert await broker.replay([letter.letter_id]) == 0
    assert await broker.dead_letters() == [letter]


async def test_replaying_and_discarding_nothing_is_nothing(broker: BrokerPort) -> None:
    assert await broker.replay([]) == await broker.discard([]) == 0


async def test_events_that_do_not_fit_are_dead_letters_at_once(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered)
    await publisher.publish("numbers.all", Named(topic="numbers.all", name="seven"))
    await publish(publisher, 8)
    assert numbers_of(await take_acked(subscription, 1)) == [8]
    [letter] = await broker.dead_letters()
    assert letter.deliveries == 1
    assert "number" in letter.reason
    assert "Numbered" in letter.reason
    assert (await queue_of(broker, "numbers.*")).unsettled == 0


async def test_settling_twice_does_nothing(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", group="team")
    await publish(publisher, 1)
    delivery = await take(subscription)
    delivery.ack()
    delivery.nack("no")
    delivery.ack()
    await subscription.flush()
    queue = await queue_of(broker, "numbers.*", "team")
    assert (queue.waiting, queue.unsettled, queue.dead) == (0, 0, 0)


async def test_a_refusal_may_wait(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered, group="team")
    await publish(publisher, 1, 2)
    (await take(subscription)).nack("in a moment", delay=0.05)
    assert numbers_of(await take_acked(subscription, 2)) == [2, 1]
    await publish(publisher, 3)
    (await take(subscription)).nack("much later", delay=3600)
    await subscription.close()  # which does not wait for that: it is given back
    other = await consumer.subscribe("numbers.*", Numbered, group="team")
    assert numbers_of(await take_acked(other, 1)) == [3]


async def test_a_full_queue_drops_the_oldest(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await _idle_group(consumer, Overflow.DROP_OLDEST)
    await publish(publisher, *range(10))
    assert (await queue_of(broker, "numbers.*", "team")).dropped == 7
    late = await consumer.subscribe(
        "numbers.*", Numbered, group="team", limit=3, overflow=Overflow.DROP_OLDEST
    )
    assert numbers_of(await take_acked(late, 3)) == [7, 8, 9]


async def test_a_full_queue_drops_the_newest(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await _idle_group(consumer, Overflow.DROP_NEWEST)
    other = await consumer.subscribe("numbers.*", Numbered)
    await publish(publisher, *range(10))
    assert (await queue_of(broker, "numbers.*", "team")).dropped == 7
    assert len(await take_acked(other, 10)) == 10
    late = await consumer.subscribe(
        "numbers.*", Numbered, group="team", limit=3, overflow=Overflow.DROP_NEWEST
    )
    assert numbers_of(await take_acked(late, 3)) == [0, 1, 2]


async def test_a_full_queue_refuses_and_then_nobody_has_the_event(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    other = await consumer.subscribe("numbers.*", Numbered)
    await _idle_group(consumer, Overflow.ERROR)
    await publish(publisher, 0, 1, 2)
    with pytest.raises(QueueFullError, match="publish again later"):
        await publish(publisher, 3)
    with pytest.raises(QueueFullError):
        await publisher.publish_many([numbered(4), numbered(5)])
    team = await consumer.subscribe(
        "numbers.*", Numbered, group="team", limit=3, overflow=Overflow.ERROR
    )
    assert numbers_of(await take_acked(team, 3)) == [0, 1, 2]
    await publish(publisher, 6)
    assert numbers_of(await take_acked(other, 4)) == [0, 1, 2, 6]
    assert numbers_of(await take_acked(team, 1)) == [6]
    assert (await queue_of(broker, "numbers.*", "team")).dropped == 0


async def _idle_group(consumer: ConsumerPort, overflow: Overflow) -> None:
    """A group for three events, and nobody there to take them."""
    joined = await consumer.subscribe("numbers.*", group="team", limit=3, overflow=overflow)
    await joined.close()


async def test_dropping_a_group(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await (await consumer.subscribe("numbers.*", group="team")).close()
    await publish(publisher, 1)
    assert await broker.drop_group("numbers.*", "team")
    assert await broker.queues() == []
    assert not await broker.drop_group("numbers.*", "team")


async def test_dropping_a_group_with_members_empties_it(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered, group="team")
    assert await broker.drop_group("numbers.*", "team")
    received = asyncio.create_task(take(subscription))

    async def arrived() -> bool:
        await publish(publisher, 5)
        await asyncio.wait({received}, timeout=0.05)
        return received.done()

    await eventually(arrived)
    assert received.result().event.number == 5
