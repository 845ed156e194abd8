"""Events for tests, and ways to wait for them: with a deadline, never with a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from app.event_system import BrokerPort, Delivery, EventBase, PublisherPort, QueueInfo, Subscription
from app.event_system.domain.events import E

PATIENCE = 60.0


class Numbered(EventBase):
    """An event that says which it is."""

    number: int
    text: str = ""


class Named(EventBase):
    """An event of another type, which a Numbered does not fit."""

    name: str


def numbered(number: int, topic: str = "numbers.all", text: str = "") -> Numbered:
    """The event of that number."""
    return Numbered(topic=topic, number=number, text=text)


def numbers_of(events: Iterable[Numbered]) -> list[int]:
    """Which they are."""
    return [event.number for event in events]


async def publish(publisher: PublisherPort, *numbers: int, topic: str = "numbers.all") -> None:
    """Publish these, one after the other."""
    for number in numbers:
        await publisher.publish(topic, numbered(number))


async def take(subscription: Subscription[E]) -> Delivery[E]:
    """The next delivery, not settled."""
    async with asyncio.timeout(PATIENCE):
        return await anext(subscription)


async def take_acked(subscription: Subscription[E], count: int) -> list[E]:
    """The next events, each acknowledged."""
    events: list[E] = []
    for _ in range(count):
        delivery = await take(subscription)
        delivery.ack()
        events.append(delivery.event)
    await subscription.flush()
    return events


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not await holds():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await asyncio.sleep(0.02)


async def queue_of(broker: BrokerPort, pattern: str, group: str | None = None) -> QueueInfo:
    """The one queue of that pattern and group."""
    found = [one for one in await broker.queues() if (one.pattern, one.group) == (pattern, group)]
    assert len(found) == 1, found
    return found[0]
