"""What a broker offers, whichever carries the events: ports, and the semantics all adapters share.

Delivery. Each subscription has its own copy of every event that was published after `subscribe`
returned. Subscriptions of one pattern that name the same group share one copy: each event goes to
one of them, and the group goes on collecting while none is there. In a subscription (or group) the
events of a topic come in the order in which they were published; one that is delivered again may
come behind later ones. An event is delivered until it is acknowledged, at most `max_deliveries`
times; then, or at once when it does not fit the type that was asked for, it is a dead letter.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Generic, Protocol, Self, overload

from app.event_system.domain.errors import ClosedError, SubscribeError
from app.event_system.domain.events import E, E_co, EventBase
from app.event_system.domain.topics import check_pattern

MAX_DELIVERIES: Final = 5
_GROUP_LENGTH: Final = 64
_GROUP_EXTRA: Final = frozenset("._@-")


class Overflow(StrEnum):
    """What happens to an event when a subscription's queue is full."""

    WAIT = "wait"  # the publisher waits for room (in memory only)
    DROP_OLDEST = "drop_oldest"  # the oldest that waits goes; counted
    DROP_NEWEST = "drop_newest"  # the new one goes, for this subscription; counted
    ERROR = "error"  # nobody gets it, and the publisher gets QueueFullError


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeOptions:
    """How a subscription wants its events. `limit` is how many may wait or be in work at once;
    None: the broker's own. Raises SubscribeError or TopicError."""

    pattern: str
    group: str | None = None
    limit: int | None = None
    overflow: Overflow | None = None
    max_deliveries: int = MAX_DELIVERIES

    def __post_init__(self) -> None:
        check_pattern(self.pattern)
        if self.group is not None:
            check_group(self.group)
        if self.limit is not None and self.limit < 1:
            raise SubscribeError(f"limit is {self.limit}: give a number of events from 1 on")
        if self.max_deliveries < 1:
            raise SubscribeError(f"max_deliveries is {self.max_deliveries}: give 1 or more")


def check_group(group: str) -> str:
    """The group's name itself; raises SubscribeError when it is none."""
    plain = all(char.isascii() and (char.isalnum() or char in _GROUP_EXTRA) for char in group)
    if not plain or not 0 < len(group) <= _GROUP_LENGTH:
        raise SubscribeError(
            f"{group[:100]!r} is no name of a group: use 1 to {_GROUP_LENGTH} letters, "
            "digits or . _ @ -"
        )
    return group


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """A subscription or group as it is now: `waiting` events are delivered to nobody, `unsettled`
    ones to somebody; `dropped` and `dead` count since the queue began."""

    pattern: str
    group: str | None
    members: int
    waiting: int
    unsettled: int
    dropped: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that a subscription could not use, and why. `payload` is the event as it was, JSON;
    `deliveries` says how often it was delivered."""

    letter_id: str
    pattern: str
    group: str | None
    topic: str
    type_name: str
    payload: str
    reason: str
    deliveries: int


class _Settles(Protocol):
    """Who handed a delivery out."""

    def accept(self, delivery: "Delivery[EventBase]") -> None: ...
    def reject(self, delivery: "Delivery[EventBase]", reason: str) -> None: ...


class Delivery(Generic[E_co]):
    """An event in the hands of a consumer, to be settled once: `ack` or `nack`. Both take effect
    soon, in the background; settling twice does nothing."""

    __slots__ = ("_origin", "_settled", "deliveries", "event", "key")

    def __init__(self, event: E_co, deliveries: int, origin: _Settles, key: str = "") -> None:
        self.event = event
        self.deliveries = deliveries
        """How often the event was delivered, this time included."""
        self.key = key
        self._origin = origin
        self._settled = False

    def ack(self) -> None:
        """Done: it is not delivered again."""
        if not self._settled:
            self._settled = True
            self._origin.accept(self)

    def nack(self, reason: str = "", *, delay: float = 0.0) -> None:
        """Not done: it is delivered again, after `delay` seconds, or becomes a dead letter when it
        was delivered as often as it may be. `reason` is kept with it."""
        if self._settled:
            return
        self._settled = True
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self._origin.reject, self, reason)
        else:
            self._origin.reject(self, reason)


class _Closing(ABC):
    """Something that is open until close(), or until the end of its `async with`."""

    @abstractmethod
    async def close(self) -> None:
        """Close it; closing twice is harmless."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Subscription(_Closing, Generic[E_co]):
    """The deliveries of one subscription: `async for delivery in subscription`, each to be settled.

    Ends when it is closed. Closing gives what is not settled back: to the group, where there is
    one; otherwise it is gone with the subscription.
    """

    options: SubscribeOptions

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> Delivery[E_co]:
        """The next delivery; raises StopAsyncIteration once it is closed."""

    @abstractmethod
    def take_nowait(self) -> Delivery[E_co] | None:
        """A delivery that is there already, or None."""

    @abstractmethod
    async def flush(self) -> None:
        """Wait until what was settled so far has reached the broker."""

    async def events(self) -> AsyncGenerator[E_co]:
        """The events themselves. Each is acknowledged when the next is asked for: one at which the
        loop ended, by an error or by `break`, stays unsettled."""
        async for delivery in self:
            yield delivery.event
            delivery.ack()

    async def batches(self, most: int = 100) -> AsyncGenerator[list[E_co]]:
        """Lists of those events that are there, from 1 to `most`; waits only for the first. A list
        is acknowledged when the next is asked for, as with `events`."""
        async for first in self:
            deliveries = [first]
            while len(deliveries) < most and (one := self.take_nowait()) is not None:
                deliveries.append(one)
            yield [delivery.event for delivery in deliveries]
            for delivery in deliveries:
                delivery.ack()


class PublisherPort(_Closing):
    """Publishes events."""

    @abstractmethod
    async def publish(self, topic: str, event: EventBase) -> None:
        """Publish the event on `topic`, whatever topic it names itself. On return every
        subscription has its copy. Raises TopicError, EventEncodeError, QueueFullError,
        BrokerUnavailableError (the outcome is unknown: repeat it), ClosedError."""

    @abstractmethod
    async def publish_many(self, events: Iterable[EventBase]) -> None:
        """Publish each on its own topic, in this order, in few round trips. When it raises, some
        may have been published, and all may be published again."""


class ConsumerPort(_Closing):
    """Opens subscriptions, and closes those it opened."""

    def __init__(self) -> None:
        self._open: set[Subscription[EventBase]] = set()
        self._closed = False

    @overload
    async def subscribe(
        self,
        pattern: str,
        event_type: None = None,
        *,
        group: str | None = None,
        limit: int | None = None,
        overflow: Overflow | None = None,
        max_deliveries: int = MAX_DELIVERIES,
    ) -> Subscription[EventBase]: ...

    @overload
    async def subscribe(
        self,
        pattern: str,
        event_type: type[E],
        *,
        group: str | None = None,
        limit: int | None = None,
        overflow: Overflow | None = None,
        max_deliveries: int = MAX_DELIVERIES,
    ) -> Subscription[E]: ...

    async def subscribe(
        self,
        pattern: str,
        event_type: type[EventBase] | None = None,
        *,
        group: str | None = None,
        limit: int | None = None,
        overflow: Overflow | None = None,
        max_deliveries: int = MAX_DELIVERIES,
    ) -> Subscription[EventBase]:
        """Subscribe to the topics of `pattern`, those to come included. Events arrive as
        `event_type`, or as they are when it is None. Raises TopicError, SubscribeError,
        BrokerUnavailableError, ClosedError."""
        if self._closed:
            raise ClosedError("the consumer was closed: open another one")
        options = SubscribeOptions(
            pattern=pattern,
            group=group,
            limit=limit,
            overflow=overflow,
            max_deliveries=max_deliveries,
        )
        subscription = await self._subscribed(options, event_type or EventBase)
        self._open.add(subscription)
        return subscription

    async def close(self) -> None:
        """Close all its subscriptions."""
        self._closed = True
        while self._open:
            await self._open.pop().close()

    def forget(self, subscription: Subscription[EventBase]) -> None:
        """The subscription was closed by itself."""
        self._open.discard(subscription)

    @abstractmethod
    async def _subscribed(
        self, options: SubscribeOptions, event_type: type[E]
    ) -> Subscription[E]: ...


class BrokerPort(_Closing):
    """Carries events from publishers to subscriptions, and keeps what could not be used."""

    @abstractmethod
    def publisher(self) -> PublisherPort:
        """A publisher on this broker; its caller closes it."""

    @abstractmethod
    def consumer(self) -> ConsumerPort:
        """A consumer on this broker; its caller closes it."""

    @abstractmethod
    async def queues(self) -> list[QueueInfo]:
        """Every subscription and group, those without members too."""

    @abstractmethod
    async def drop_group(self, pattern: str, group: str) -> bool:
        """End a group and all that it still holds; False when there is none. Its members, if it
        has any, start it anew, and empty."""

    @abstractmethod
    async def dead_letters(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """Dead letters, oldest first, those behind the one of id `after`."""

    @abstractmethod
    async def dead_count(self) -> int:
        """How many dead letters there are now."""

    @abstractmethod
    async def replay(self, letter_ids: Iterable[str]) -> int:
        """Deliver these again to the subscription or group that they died in, their deliveries
        counted anew. Letters whose queue is gone stay. Returns how many it were."""

    @abstractmethod
    async def discard(self, letter_ids: Iterable[str]) -> int:
        """Remove these for good; returns how many were there."""
