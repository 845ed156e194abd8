"""What every broker of events promises: one suite, all adapters."""

import asyncio
import math
from typing import Any

import pytest

from app.event_system import (
    BrokerPort,
    ClosedError,
    ConsumerPort,
    EventBase,
    PublisherPort,
    SubscribeError,
    Subscription,
    TopicError,
)
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


async def test_each_subscription_gets_its_copy_in_order(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    first = await consumer.subscribe("numbers.*", Numbered)
    second = await consumer.subscribe("numbers.*", Numbered)
    await publish(publisher, *range(30))
    assert numbers_of(await take_acked(first, 30)) == list(range(30))
    assert numbers_of(await take_acked(second, 30)) == list(range(30))


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
    await publish(publisher, 1)
    subscription = await consumer.subscribe("numbers.all", Numbered)
    await publish(publisher, 2)
    assert numbers_of(await take_acked(subscription, 1)) == [2]


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
    assert numbers_of(await take_acked(other, 200)) == list(range(200))
    await consumer.close()
    await asyncio.gather(*workers)
    assert sorted(found) == list(range(200))
    assert (await queue_of(broker, "numbers.*", "team")).waiting == 0


async def test_a_group_collects_while_nobody_is_there(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await (await consumer.subscribe("numbers.*", group="team")).close()
    await publish(publisher, 1, 2, 3)
    queue = await queue_of(broker, "numbers.*", "team")
    assert (queue.members, queue.waiting) == (0, 3)
    again = await broker.consumer().subscribe("numbers.*", Numbered, group="team")
    assert numbers_of(await take_acked(again, 3)) == [1, 2, 3]


async def test_a_subscription_of_no_group_ends_with_its_consumer(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    await consumer.subscribe("numbers.*")
    assert len(await broker.queues()) == 1
    await consumer.close()
    assert await broker.queues() == []
    await publish(publisher, 1)


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
    await publish(publisher, 1, 2, 3, 4)
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
    await publish(publisher, 1, 2, 3)
    await take(leaving)
    staying = await consumer.subscribe("numbers.*", Numbered, group="team")
    await leaving.close()
    assert sorted(numbers_of(await take_acked(staying, 3))) == [1, 2, 3]


async def test_events_acknowledges_what_is_behind(
    publisher: PublisherPort, consumer: ConsumerPort, broker: BrokerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered, group="team")
    await publish(publisher, 1, 2, 3)
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
    await publish(publisher, 1, 2)
    (await take(subscription)).nack("once more")
    await publish(publisher, 3)
    seen: list[EventBase] = []
    async with asyncio.timeout(60):
        async for event in subscription.events():
            seen.append(event)
            if len(seen) == 3:
                await subscription.close()  # which ends the loop
    assert sorted(event.model_dump()["number"] for event in seen) == [1, 2, 3]
    assert await broker.queues() == []


@pytest.mark.parametrize(("group", "kind"), [("team", Numbered), (None, Numbered), (None, None)])
async def test_batches_are_what_is_there(
    publisher: PublisherPort,
    consumer: ConsumerPort,
    broker: BrokerPort,
    group: str | None,
    kind: type[Numbered] | None,
) -> None:
    subscription = await consumer.subscribe("numbers.*", kind or EventBase, group=group)
    assert subscription.take_nowait() is None
    await publisher.publish_many([numbered(number) for number in range(30)])
    seen: list[int] = []
    async with asyncio.timeout(60):
        async for batch in subscription.batches(7):
            assert 1 <= len(batch) <= 7
            seen += [event.model_dump()["number"] for event in batch]
            if len(seen) == 30:
                break
    assert seen == list(range(30))
    await subscription.flush()
    queue = await queue_of(broker, "numbers.*", group)
    assert 1 <= queue.waiting + queue.unsettled <= 7  # the last batch


@pytest.mark.parametrize("kind", [EventBase, Numbered])
async def test_closing_ends_at_once(
    publisher: PublisherPort, consumer: ConsumerPort, kind: type[EventBase]
) -> None:
    for ways in ("events", "batches", "deliveries"):
        subscription = await consumer.subscribe("numbers.*", kind)
        await publish(publisher, 1, 2, 3)
        each = {
            "events": subscription.events(),
            "batches": subscription.batches(1),
            "deliveries": subscription,
        }[ways]
        seen = 0
        async with asyncio.timeout(60):
            async for _ in each:
                seen += 1
                await subscription.close()
        assert (ways, seen) == (ways, 1)


async def test_concurrent_publishers_keep_their_own_order(
    publisher: PublisherPort, consumer: ConsumerPort
) -> None:
    subscription = await consumer.subscribe("numbers.*", Numbered)

    async def fill(topic: str) -> None:
        await publish(publisher, *range(20), topic=topic)

    topics = [f"numbers.{letter}" for letter in "abcdefgh"]
    publishing = [asyncio.create_task(fill(topic)) for topic in topics]
    events = await take_acked(subscription, 20 * len(topics))
    await asyncio.gather(*publishing)
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
        await publish(publisher, 1)
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
