"""What every broker of events promises: one suite, all adapters."""

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from app.event_system import (
    BrokerPort,
    ClosedError,
    ConsumerPort,
    EventBase,
    Overflow,
    PublisherPort,
    QueueFullError,
    SubscribeError,
    Subscription,
    TopicError,
)
from app.event_system.infrastructure import InMemoryBroker, RedisBroker
from tests.support.events import (
    Named,
    Numbered,
    eventually,
    numbered,
    queue_of,
    take,
    take_acked,
)


@pytest_asyncio.fixture(params=["memory", "redis"])
async def broker(request: pytest.FixtureRequest) -> AsyncGenerator[BrokerPort]:
    if request.param == "memory":
        opened: BrokerPort = InMemoryBroker()
    else:
        opened = RedisBroker(request.getfixturevalue("dms_redis_url"), timeout=60)
    async with opened:
        yield opened


@pytest.fixture
def publisher(broker: BrokerPort) -> PublisherPort:
    return broker.publisher()


@pytest.fixture
def consumer(broker: BrokerPort) -> ConsumerPort:
    return broker.consumer()


async def _publish(publisher: PublisherPort, *numbers: int, topic: str = "numbers.all") -> None:
    for number in numbers:
        await publisher.publish(topic, numbered(number))


def _numbers(events: list[Numbered]) -> list[int]:
    return [event.number for event in events]


async def test_each_subscription_gets_its_copy_in_order(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    first = await consumer.subscribe("numbers.*", Numbered)
    second = await consumer.subscribe("numbers.*", Numbered)
    await _publish(publisher, *range(30))
    assert _numbers(await take_acked(first, 30)) == list(range(30))
    assert _numbers(await take_acked(second, 30)) == list(range(30))


@pytest.mark.parametrize(
    ("pattern", "topics"),
    [
        ("logs.**", ["logs", "logs.app", "logs.app.error"]),
        ("logs.*", ["logs.app"]),
        ("**.error", ["logs.app.error"]),
        ("logs.app", ["logs.app"]),
        ("**", ["logs", "logs.app", "logs.app.error", "other"]),
    ],
)
async def test_patterns_choose_topics(
    publisher: PublisherPort, consumer: ConsumerPort, pattern: str, topics: list[str]
) -> None:
    subscription = await consumer.subscribe(pattern)
    for topic in ("logs", "logs.app", "logs.app.error", "other"):
        await publisher.publish(topic, EventBase(topic=topic))
    marker = pattern.replace("**", "end").replace("*", "end")
    await publisher.publish(marker, EventBase(topic=marker))
    events = await take_acked(subscription, len(topics) + 1)
    assert [event.topic for event in events] == [*topics, marker]


async def test_what_nobody_subscribed_to_is_gone(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    await _publish(publisher, 1)
    subscription = await consumer.subscribe("numbers.all", Numbered)
    await _publish(publisher, 2)
    assert _numbers(await take_acked(subscription, 1)) == [2]


async def test_a_group_shares_its_events(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    members = [await consumer.subscribe("numbers.*", Numbered, group="team") for _ in range(3)]
    other = await consumer.subscribe("numbers.*", Numbered, group="other")
    found: list[int] = []

    async def work(member: Subscription[Numbered]) -> None:
        async for delivery in member:
            found.append(delivery.event.number)
            delivery.ack()

    async def all_found() -> bool:
        return len(found) >= 200

    workers = [asyncio.create_task(work(member)) for member in members]
    await publisher.publish_many([numbered(number) for number in range(200)])
    await eventually(all_found)
    assert _numbers(await take_acked(other, 200)) == list(range(200))
    await consumer.close()
    await asyncio.gather(*workers)
    assert sorted(found) == list(range(200))
    assert (await queue_of(broker, "numbers.*", "team")).waiting == 0


async def test_a_group_collects_while_nobody_is_there(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await (await consumer.subscribe("numbers.*", group="team")).close()
    await _publish(publisher, 1, 2, 3)
    queue = await queue_of(broker, "numbers.*", "team")
    assert (queue.members, queue.waiting) == (0, 3)
    again = await broker.consumer().subscribe("numbers.*", Numbered, group="team")
    assert _numbers(await take_acked(again, 3)) == [1, 2, 3]


async def test_a_subscription_of_no_group_ends_with_its_consumer(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await consumer.subscribe("numbers.*")
    assert len(await broker.queues()) == 1
    await consumer.close()
    assert await broker.queues() == []
    await _publish(publisher, 1)


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


async def test_dead_letters_are_replayed_as_new(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered, group="team", max_deliveries=1)
    await _publish(publisher, 1, 2)
    for _ in range(2):
        (await take(subscription)).nack("later")
    await subscription.flush()
    first, second = await broker.dead_letters()
    assert await broker.dead_letters(after=first.letter_id) == [second]
    assert await broker.dead_letters(limit=1) == [first]
    assert await broker.replay([first.letter_id, "999-9"]) == 1
    delivery = await take(subscription)
    assert (delivery.event.number, delivery.deliveries) == (1, 1)
    assert await broker.discard([second.letter_id, first.letter_id]) == 1
    assert await broker.dead_letters() == []


async def test_letters_of_a_queue_that_is_gone_stay(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", max_deliveries=1)
    await _publish(publisher, 1)
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
    await _publish(publisher, 8)
    assert _numbers(await take_acked(subscription, 1)) == [8]
    [letter] = await broker.dead_letters()
    assert letter.deliveries == 1
    assert "number" in letter.reason
    assert "Numbered" in letter.reason
    assert (await queue_of(broker, "numbers.*")).unsettled == 0


async def test_who_asks_for_no_type_gets_what_was_published(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    subscription = await consumer.subscribe("**")
    sent = [numbered(1), Named(topic="names", name="이름"), EventBase(topic="plain")]
    await publisher.publish_many(sent)
    received = await take_acked(subscription, 3)
    assert received == sent
    assert [type(event) for event in received] == [Numbered, Named, EventBase]


async def test_the_topic_of_publish_is_the_one_that_counts(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    subscription = await consumer.subscribe("there", Numbered)
    event = numbered(1, topic="here")
    await publisher.publish("there", event)
    [received] = await take_acked(subscription, 1)
    assert (received.topic, received.event_id) == ("there", event.event_id)
    assert event.topic == "here"


class Precious(EventBase):
    data: bytes
    ratio: float
    anything: Any = None


async def test_any_data_survives(publisher: PublisherPort, consumer: ConsumerPort) -> None:
    subscription = await consumer.subscribe("precious", Precious)
    sent = Precious(
        topic="precious",
        data=bytes(range(256)),
        ratio=math.inf,
        anything={"한글": ["값", None, 1.5, {"deep": True}], "zero": "\0", "emoji": "🚚"},
        headers={"보낸이": "김"},
        event_id="아이디-1",
    )
    await publisher.publish("precious", sent)
    assert await take_acked(subscription, 1) == [sent]


async def test_closing_gives_back_to_the_group(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    leaving = await consumer.subscribe("numbers.*", Numbered, group="team")
    await _publish(publisher, 1, 2, 3, 4)
    delivery = await take(leaving)
    assert (await queue_of(broker, "numbers.*", "team")).unsettled >= 1
    await leaving.close()
    delivery.ack()  # too late: it was given back
    staying = await consumer.subscribe("numbers.*", Numbered, group="team")
    deliveries = [await take(staying) for _ in range(4)]
    assert sorted(each.event.number for each in deliveries) == [1, 2, 3, 4]
    # What was in nobody's hands is not counted as delivered.
    unread = [each for each in deliveries if each.event.number != 1]
    assert [each.deliveries for each in unread] == [1, 1, 1]
    assert [each.event.number for each in unread] == [2, 3, 4]


async def test_members_that_stay_get_what_one_that_left_had(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    leaving = await consumer.subscribe("numbers.*", Numbered, group="team")
    await _publish(publisher, 1, 2, 3)
    await take(leaving)
    staying = await consumer.subscribe("numbers.*", Numbered, group="team")
    await leaving.close()
    assert sorted(_numbers(await take_acked(staying, 3))) == [1, 2, 3]


async def test_events_acknowledges_what_is_behind(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered, group="team")
    await _publish(publisher, 1, 2, 3)
    async with asyncio.timeout(60):
        async for event in subscription.events():
            if event.number == 3:
                break  # so the third is not acknowledged
    await subscription.flush()
    queue = await queue_of(broker, "numbers.*", "team")
    assert queue.waiting + queue.unsettled == 1


async def test_events_of_a_subscription_of_no_group(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*")
    await _publish(publisher, 1, 2)
    (await take(subscription)).nack("once more")
    await _publish(publisher, 3)
    seen: list[EventBase] = []
    async with asyncio.timeout(60):
        async for event in subscription.events():
            seen.append(event)
            if len(seen) == 3:
                await subscription.close()  # which ends the loop
    assert sorted(event.model_dump()["number"] for event in seen) == [1, 2, 3]
    assert await broker.queues() == []


async def test_settling_twice_does_nothing(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", group="team")
    await _publish(publisher, 1)
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
    await _publish(publisher, 1, 2)
    (await take(subscription)).nack("in a moment", delay=0.05)
    assert _numbers(await take_acked(subscription, 2)) == [2, 1]
    await _publish(publisher, 3)
    (await take(subscription)).nack("much later", delay=3600)
    await subscription.close()  # which does not wait for that: it is given back
    other = await consumer.subscribe("numbers.*", Numbered, group="team")
    assert _numbers(await take_acked(other, 1)) == [3]


async def test_a_full_queue_drops_the_oldest(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await _idle_group(consumer, Overflow.DROP_OLDEST)
    await _publish(publisher, *range(10))
    assert (await queue_of(broker, "numbers.*", "team")).dropped == 7
    late = await consumer.subscribe(
        "numbers.*", Numbered, group="team", limit=3, overflow=Overflow.DROP_OLDEST
    )
    assert _numbers(await take_acked(late, 3)) == [7, 8, 9]


async def test_a_full_queue_drops_the_newest(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await _idle_group(consumer, Overflow.DROP_NEWEST)
    other = await consumer.subscribe("numbers.*", Numbered)
    await _publish(publisher, *range(10))
    assert (await queue_of(broker, "numbers.*", "team")).dropped == 7
    assert len(await take_acked(other, 10)) == 10
    late = await consumer.subscribe(
        "numbers.*", Numbered, group="team", limit=3, overflow=Overflow.DROP_NEWEST
    )
    assert _numbers(await take_acked(late, 3)) == [0, 1, 2]


async def test_a_full_queue_refuses_and_then_nobody_has_the_event(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    other = await consumer.subscribe("numbers.*", Numbered)
    await _idle_group(consumer, Overflow.ERROR)
    await _publish(publisher, 0, 1, 2)
    with pytest.raises(QueueFullError, match="publish again later"):
        await _publish(publisher, 3)
    with pytest.raises(QueueFullError):
        await publisher.publish_many([numbered(4), numbered(5)])
    team = await consumer.subscribe(
        "numbers.*", Numbered, group="team", limit=3, overflow=Overflow.ERROR
    )
    assert _numbers(await take_acked(team, 3)) == [0, 1, 2]
    await _publish(publisher, 6)
    assert _numbers(await take_acked(other, 4)) == [0, 1, 2, 6]
    assert _numbers(await take_acked(team, 1)) == [6]
    assert (await queue_of(broker, "numbers.*", "team")).dropped == 0


async def _idle_group(consumer: ConsumerPort, overflow: Overflow) -> None:
    """A group for three events, and nobody there to take them."""
    joined = await consumer.subscribe("numbers.*", group="team", limit=3, overflow=overflow)
    await joined.close()


async def test_dropping_a_group(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await (await consumer.subscribe("numbers.*", group="team")).close()
    await _publish(publisher, 1)
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
        await _publish(publisher, 5)
        await asyncio.wait({received}, timeout=0.05)
        return received.done()

    await eventually(arrived)
    assert received.result().event.number == 5


async def test_concurrent_publishers_keep_their_own_order(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered)

    async def publish(topic: str) -> None:
        await _publish(publisher, *range(20), topic=topic)

    topics = [f"numbers.{letter}" for letter in "abcdefgh"]
    events, *_ = await asyncio.gather(
        take_acked(subscription, 20 * len(topics)), *(publish(topic) for topic in topics)
    )
    for topic in topics:
        own = [event.number for event in events if event.topic == topic]
        assert own == list(range(20))


async def test_closing_ends_the_loop(consumer: ConsumerPort) -> None:
    subscription = await consumer.subscribe("numbers.*")

    async def wait() -> object:
        return await anext(subscription, None)

    waiting = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    await consumer.close()
    async with asyncio.timeout(60):
        for task in waiting:
            assert await task is None
        assert await anext(subscription, None) is None
        assert [event async for event in subscription.events()] == []
    await subscription.close()


async def test_what_is_closed_says_so(
    broker: BrokerPort, publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    another = broker.publisher()
    late = broker.consumer()
    await publisher.close()
    await consumer.close()
    with pytest.raises(ClosedError):
        await _publish(publisher, 1)
    with pytest.raises(ClosedError):
        await consumer.subscribe("numbers.*")
    await broker.close()
    await broker.close()
    with pytest.raises(ClosedError):
        await another.publish_many([numbered(1)])
    with pytest.raises(ClosedError):
        await late.subscribe("numbers.*")


async def test_wrong_arguments_are_errors_that_name_them(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    with pytest.raises(TopicError, match=r"'a\.\*'"):
        await publisher.publish("a.*", numbered(1))
    with pytest.raises(TopicError, match=r"'a\.\*\*\*'"):
        await consumer.subscribe("a.***")
    with pytest.raises(SubscribeError, match="'no spaces'"):
        await consumer.subscribe("a", group="no spaces")
    with pytest.raises(SubscribeError, match="limit is 0"):
        await consumer.subscribe("a", limit=0)
    with pytest.raises(SubscribeError, match="max_deliveries is 0"):
        await consumer.subscribe("a", max_deliveries=0)


async def test_a_subscription_is_left_with_its_block(
    broker: BrokerPort, consumer: ConsumerPort
) -> None:
    async with await consumer.subscribe("numbers.*"):
        assert (await queue_of(broker, "numbers.*")).members == 1
    assert await broker.queues() == []
