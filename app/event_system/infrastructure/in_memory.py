"""Events inside one process: nothing is stored, and what the process held ends with it.

Events are handed over as they are, without JSON: what cannot travel is only found by a broker
that makes it travel.
"""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from itertools import islice
from typing import Final

from app.event_system.domain.errors import ClosedError, EventDecodeError, EventEncodeError
from app.event_system.domain.events import E, E_co, EventBase, as_type, encode_event
from app.event_system.domain.ports import (
    BrokerPort,
    ConsumerPort,
    DeadLetter,
    Delivery,
    PublisherPort,
    QueueInfo,
    SubscribeOptions,
    Subscription,
)
from app.event_system.domain.topics import TopicTrie
from app.event_system.infrastructure._memory_queue import Again, MemoryQueue

MOST_DEAD_LETTERS: Final = 10_000


class InMemoryBroker(BrokerPort):
    """Carries events between publishers and consumers of one event loop.

    A queue holds 1000 events unless its subscription says otherwise, and a publisher waits for
    room. The latest 10,000 dead letters are kept.
    """

    def __init__(self) -> None:
        self.routes: TopicTrie[MemoryQueue] = TopicTrie()
        self.closed = False
        self.refusing = 0  # how many queues refuse when they are full
        self._groups: dict[tuple[str, str], MemoryQueue] = {}
        self._queues: dict[MemoryQueue, None] = {}
        self._letters: dict[str, tuple[DeadLetter, MemoryQueue, EventBase]] = {}
        self._buried = 0
        self._subscriptions: set[InMemorySubscription[EventBase]] = set()

    def publisher(self) -> "InMemoryPublisher":
        return InMemoryPublisher(self)

    def consumer(self) -> "InMemoryConsumer":
        return InMemoryConsumer(self)

    async def queues(self) -> list[QueueInfo]:
        return [queue.info() for queue in self._queues]

    async def drop_group(self, pattern: str, group: str) -> bool:
        queue = self._groups.get((pattern, group))
        if queue is None:
            return False
        if queue.members:
            queue.room += len(queue.entries)
            queue.entries.clear()
            queue.dropped = queue.dead = 0
            queue.admit()
        else:
            self._remove(queue)
        return True

    async def dead_letters(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        later = (letter for letter, *_ in self._letters.values() if letter.letter_id > after)
        return list(islice(later, limit))

    async def dead_count(self) -> int:
        return len(self._letters)

    async def replay(self, letter_ids: Iterable[str]) -> int:
        replayed = 0
        for letter_id in letter_ids:
            found = self._letters.get(letter_id)
            if found and found[1] in self._queues:
                del self._letters[letter_id]
                found[1].room -= 1
                found[1].again(found[2], 0)
                replayed += 1
        return replayed

    async def discard(self, letter_ids: Iterable[str]) -> int:
        return sum(self._letters.pop(letter_id, None) is not None for letter_id in letter_ids)

    async def close(self) -> None:
        self.closed = True
        for subscription in list(self._subscriptions):
            await subscription.close()

    def join(self, subscription: "InMemorySubscription[EventBase]") -> MemoryQueue:
        """The queue of a new member."""
        if self.closed:
            raise ClosedError("the broker was closed: make another one")
        queue = self._queue(subscription.options)
        queue.members += 1
        self._subscriptions.add(subscription)
        return queue

    def leave(self, subscription: "InMemorySubscription[EventBase]", queue: MemoryQueue) -> None:
        """A member goes. Its queue goes with it, unless it is a group's."""
        self._subscriptions.discard(subscription)
        queue.left()
        if queue.options.group is None:
            self._remove(queue)

    def bury(self, queue: MemoryQueue, event: EventBase, reason: str, deliveries: int) -> None:
        """Keep an event that the queue could not use."""
        self._buried += 1
        queue.dead += 1
        letter = DeadLetter(
            letter_id=f"{self._buried:012d}",
            pattern=queue.options.pattern,
            group=queue.options.group,
            topic=event.topic,
            type_name=event.type_name,
            payload=_shown(event),
            reason=reason,
            deliveries=deliveries,
        )
        self._letters[letter.letter_id] = (letter, queue, event)
        if len(self._letters) > MOST_DEAD_LETTERS:
            del self._letters[next(iter(self._letters))]

    def _queue(self, options: SubscribeOptions) -> MemoryQueue:
        if options.group is None:
            return self._added(MemoryQueue(options))
        key = (options.pattern, options.group)
        queue = self._groups.get(key)
        if queue is None:
            queue = self._groups[key] = self._added(MemoryQueue(options))
        return queue

    def _added(self, queue: MemoryQueue) -> MemoryQueue:
        self._queues[queue] = None
        self.refusing += queue.refuses
        self.routes.add(queue.options.pattern, queue)
        return queue

    def _remove(self, queue: MemoryQueue) -> None:
        del self._queues[queue]
        self.refusing -= queue.refuses
        self.routes.remove(queue.options.pattern, queue)
        if queue.options.group is not None:
            del self._groups[queue.options.pattern, queue.options.group]


def _shown(event: EventBase) -> str:
    try:
        return encode_event(event).decode()
    except EventEncodeError:
        return repr(event)


class InMemoryPublisher(PublisherPort):
    """Publishes to the subscriptions of one InMemoryBroker."""

    def __init__(self, broker: InMemoryBroker) -> None:
        self._broker = broker
        self._closed = False

    async def publish(self, topic: str, event: EventBase) -> None:
        if self._closed or self._broker.closed:
            raise ClosedError("the publisher or its broker was closed: open another one")
        if event.topic != topic:
            event = event.on(topic)
        queues = self._broker.routes.match(topic)
        if self._broker.refusing:
            for queue in queues:
                queue.check_room()
        for queue in queues:
            if (room := queue.room) > 0:  # put(), without the cost of a call
                queue.room = room - 1
                queue.append(event)
                if queue.sleepers:
                    queue.wake()
            elif (waiting := queue.put(event)) is not None:
                await waiting

    async def publish_many(self, events: Iterable[EventBase]) -> None:
        for event in events:
            await self.publish(event.topic, event)

    async def close(self) -> None:
        self._closed = True


class InMemoryConsumer(ConsumerPort):
    """Subscribes to an InMemoryBroker."""

    def __init__(self, broker: InMemoryBroker) -> None:
        super().__init__()
        self._broker = broker

    async def _subscribed(
        self, options: SubscribeOptions, event_type: type[E]
    ) -> "InMemorySubscription[E]":
        return InMemorySubscription(self._broker, self, options, event_type)


class InMemorySubscription(Subscription[E_co]):
    """One member of a queue."""

    def __init__(
        self,
        broker: InMemoryBroker,
        consumer: InMemoryConsumer,
        options: SubscribeOptions,
        event_type: type[E_co],
    ) -> None:
        self.options = replace(options)
        self._broker = broker
        self._consumer = consumer
        self._event_type = event_type
        self._unsettled: dict[Delivery[EventBase], None] = {}
        self._closed = False
        self._queue = broker.join(self)
        # Nobody else can get its events, and they need no conversion: a delivery of each would
        # cost time and tell nothing.
        self._plain = options.group is None and event_type is EventBase

    async def __anext__(self) -> Delivery[E_co]:
        while not self._closed:
            if (delivery := self.take_nowait()) is not None:
                return delivery
            await self._queue.sleep()
        raise StopAsyncIteration

    def take_nowait(self) -> Delivery[E_co] | None:
        entries = self._queue.entries
        while entries and not self._closed:
            if (delivery := self._handed(entries.popleft())) is not None:
                return delivery
        return None

    async def events(self) -> AsyncGenerator[E_co]:
        if not self._plain:
            async for event in super().events():
                yield event
            return
        queue, popleft = self._queue, self._queue.entries.popleft
        while True:
            try:
                entry = popleft()
            except IndexError:  # as it ends, too, once it is closed
                if self._closed:
                    return
                await queue.sleep()
                continue
            # A look at the type costs a tenth of all this less than isinstance().
            event = entry.event if type(entry) is Again else entry
            yield event  # pyright: ignore[reportReturnType]  # EventBase is the type: it is plain
            queue.room += 1  # free(), without the cost of a call
            if queue.blocked:
                queue.admit()

    async def batches(self, most: int = 100) -> AsyncGenerator[list[E_co]]:
        if not self._plain:
            async for batch in super().batches(most):
                yield batch
            return
        queue, entries = self._queue, self._queue.entries
        while not self._closed:
            count = min(most, len(entries))
            if not count:
                await queue.sleep()
                continue
            taken = [entries.popleft() for _ in range(count)]
            events = [one.event if isinstance(one, Again) else one for one in taken]
            yield events  # pyright: ignore[reportReturnType]  # as above
            queue.room += count
            queue.admit()

    async def flush(self) -> None:
        """Nothing is under way: settling takes effect at once."""

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._consumer.forget(self)
        while self._unsettled:
            delivery, _ = self._unsettled.popitem()  # the last first: each goes before the others
            self._queue.again(delivery.event, delivery.deliveries - 1, first=True)
        for sleeper in list(self._queue.sleepers):
            if not sleeper.done():
                sleeper.set_result(None)
        self._broker.leave(self, self._queue)
        if self.options.group is None:
            self._queue.entries.clear()  # nobody will ask for these any more

    def accept(self, delivery: Delivery[EventBase]) -> None:
        """The delivery was acknowledged."""
        if self._unsettled.pop(delivery, delivery) is None:
            self._queue.free()

    def reject(self, delivery: Delivery[EventBase], reason: str) -> None:
        """The delivery was refused."""
        if self._unsettled.pop(delivery, delivery) is not None:
            return  # closed meanwhile: it was given back
        if delivery.deliveries < self._queue.options.max_deliveries:
            self._queue.again(delivery.event, delivery.deliveries)
        else:
            self._bury(delivery.event, reason, delivery.deliveries)

    def _handed(self, entry: EventBase | Again) -> Delivery[E_co] | None:
        event, before = (entry.event, entry.deliveries) if isinstance(entry, Again) else (entry, 0)
        try:
            typed = as_type(event, self._event_type)
        except EventDecodeError as error:
            self._bury(event, str(error), before + 1)
            return None
        delivery = Delivery(typed, before + 1, self)
        self._unsettled[delivery] = None
        return delivery

    def _bury(self, event: EventBase, reason: str, deliveries: int) -> None:
        self._broker.bury(self._queue, event, reason, deliveries)
        self._queue.free()
