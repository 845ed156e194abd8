"""Publishes to Redis. Publishes that come while one is under way share the next round trip."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from app.event_system.domain.errors import (
    BrokerUnavailableError,
    ClosedError,
    EventSystemError,
    QueueFullError,
)
from app.event_system.domain.events import EventBase, encode_event
from app.event_system.domain.ports import PublisherPort
from app.event_system.infrastructure._redis_link import Argument, Link
from app.event_system.infrastructure._redis_routes import Routes

log = logging.getLogger(__name__)

MOST_EVENTS: Final = 500
MOST_BYTES: Final = 4 * 2**20
MOST_RELOADS: Final = 100


@dataclass(frozen=True, slots=True)
class _Letter:
    """An event on its way, and who waits for it."""

    topic: str
    type_name: str
    payload: bytes
    sent: asyncio.Future[None]


class RedisPublisher(PublisherPort):
    """Publishes to the queues of one RedisBroker. A publish that raised BrokerUnavailableError may
    have been stored: repeat it with the same event, whose id tells consumers of the repeat."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._routes = Routes(link)
        self._waiting: deque[_Letter] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._closed = False

    async def publish(self, topic: str, event: EventBase) -> None:
        event = event.on(topic)
        await self._post(event, encode_event(event))

    async def publish_many(self, events: Iterable[EventBase]) -> None:
        encoded = [(event, encode_event(event)) for event in events]  # all or none is posted
        posted = [self._post(event, payload) for event, payload in encoded]
        outcomes = await asyncio.gather(*posted, return_exceptions=True)
        if errors := [outcome for outcome in outcomes if outcome is not None]:
            raise errors[0]

    async def publish_once(self, topic: str, event: EventBase, *, seconds: float) -> bool:
        """Publish the event, unless one of its id was published by this method within `seconds`:
        False then. One step: of any number of callers at once, anywhere, one publishes it. A call
        that failed may be repeated."""
        self._check_open()
        event = event.on(topic)
        sent = asyncio.get_running_loop().create_future()
        letter = _Letter(topic, event.type_name, encode_event(event), sent)
        results, queues = await self._store([letter], event.event_id, int(seconds * 1000))
        if not results:
            return False
        _tell([letter], results, queues)
        await sent
        return True

    async def close(self) -> None:
        """Send what is under way, and refuse what comes."""
        self._closed = True
        if self._sending is not None:
            await asyncio.wait({self._sending})

    def _post(self, event: EventBase, payload: bytes) -> asyncio.Future[None]:
        self._check_open()
        sent = asyncio.get_running_loop().create_future()
        self._waiting.append(_Letter(event.topic, event.type_name, payload, sent))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="events.publish")
        return sent

    def _check_open(self) -> None:
        if self._closed or self._link.closed:
            raise ClosedError("the publisher or its broker was closed: open another one")

    async def _send(self) -> None:
        while self._waiting:
            batch = list(self._batch())
            try:
                results, full = await self._store(batch)
            except EventSystemError as error:
                _fail(batch, error)
            except BaseException:
                _fail(batch, BrokerUnavailableError("the publisher was stopped: outcome unknown"))
                raise
            else:
                _tell(batch, results, full)

    def _batch(self) -> Iterator[_Letter]:
        size = 0
        for _ in range(MOST_EVENTS):
            if not self._waiting or size >= MOST_BYTES:
                return
            letter = self._waiting.popleft()
            size += len(letter.payload)
            yield letter

    async def _store(
        self, batch: list[_Letter], once: str = "", life_ms: int = 0
    ) -> tuple[list[int], list[str]]:
        """What became of each, and the names of the queues that the numbers mean. With an id as
        `once` nothing became of any when that was done before."""
        for _ in range(MOST_RELOADS):
            if not self._routes.version:
                await self._routes.reload()
            targets, arguments = self._addressed(batch)
            reply = await self._link.run("publish", self._routes.version, once, life_ms, *arguments)
            if reply[0] == b"BEFORE":
                return [], []
            if reply[0] == b"DONE":
                self._report_drops(reply[2])
                return reply[1], targets
            self._routes.version = ""
        raise BrokerUnavailableError(
            f"subscriptions changed {MOST_RELOADS} times while an event was published: nothing was "
            "stored; see who subscribes and leaves without end, and publish again"
        )

    def _addressed(self, batch: list[_Letter]) -> tuple[list[str], list[Argument]]:
        """The queues that are meant, and the script's arguments: what events have in common (their
        type and queues) is said once, for each argument costs time at both ends."""
        queues: dict[str, int] = {}
        kinds: dict[tuple[str, tuple[str, ...]], bytes] = {}
        events: list[Argument] = []
        for letter in batch:
            kind = (letter.type_name, self._routes.trie.match(letter.topic))
            if (number := kinds.get(kind)) is None:
                number = kinds[kind] = b"%d" % (len(kinds) + 1)
            events += (number, letter.payload)
        described: list[Argument] = [len(kinds)]
        for type_name, targets in kinds:
            described += (type_name, len(targets))
            described += [queues.setdefault(each, len(queues) + 1) for each in targets]
        head: list[Argument] = [len(queues)]
        for queue_id in queues:
            route = self._routes.known[queue_id]
            head += (queue_id, route.limit, route.overflow)
        return list(queues), head + described + events

    def _report_drops(self, drops: list[Any]) -> None:
        for queue_id, dropped in zip(drops[::2], drops[1::2], strict=True):
            log.error(
                "A queue of events is full, and events were dropped",
                extra={"action": "events.dropped", "queue": queue_id.decode(), "dropped": dropped},
            )


def _tell(batch: list[_Letter], results: list[int], queues: list[str]) -> None:
    for letter, refused in zip(batch, results, strict=True):
        if letter.sent.done():
            continue  # its publisher waits no more
        if refused:
            letter.sent.set_exception(
                QueueFullError(f"the queue {queues[refused - 1]!r} is full: publish again later")
            )
        else:
            letter.sent.set_result(None)


def _fail(batch: list[_Letter], error: EventSystemError) -> None:
    for letter in batch:
        if not letter.sent.done():
            letter.sent.set_exception(type(error)(str(error)).with_traceback(error.__traceback__))
