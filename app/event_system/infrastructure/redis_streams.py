"""Events by way of Redis Streams: between processes and machines, kept until they are acknowledged.

Each subscription or group has a stream of its own, and publishing writes to those whose pattern has
the topic (docs/decisions/0011-events-on-streams.md).
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final
from weakref import WeakSet

from pydantic_core import from_json

from app.event_system.domain.errors import SubscribeError
from app.event_system.domain.events import E
from app.event_system.domain.ports import (
    BrokerPort,
    ConsumerPort,
    DeadLetter,
    QueueInfo,
    SubscribeOptions,
)
from app.event_system.infrastructure._redis_link import PREFIX, Link
from app.event_system.infrastructure._redis_publisher import RedisPublisher
from app.event_system.infrastructure._redis_routes import Routes, group_queue, route_of
from app.event_system.infrastructure._redis_subscription import Membership, RedisSubscription

LEASE_SECONDS: Final = 30.0
PREFETCH: Final = 200
_AT_ONCE: Final = 500


class RedisBroker(BrokerPort):
    """Carries events through the Redis or Valkey server at `url`; connects on first use.

    `timeout` seconds is the whole deadline of one call. A member that is not heard of for
    `lease_seconds` is dead: others take over what it held, and a subscription of no group ends.
    Brokers of one `prefix` share their events. Raises ConfigurationError on a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        timeout: float = 5.0,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._link = Link(url, prefix=prefix, timeout=timeout)
        self._lease = lease_seconds
        self._ends: WeakSet[RedisPublisher | RedisConsumer] = WeakSet()

    def publisher(self) -> RedisPublisher:
        publisher = RedisPublisher(self._link)
        self._ends.add(publisher)
        return publisher

    def consumer(self, *, prefetch: int = PREFETCH) -> "RedisConsumer":
        """A consumer on this broker. Each of its subscriptions has one connection, and holds at
        most `prefetch` events that are not settled."""
        consumer = RedisConsumer(self._link, lease_seconds=self._lease, prefetch=prefetch)
        self._ends.add(consumer)
        return consumer

    async def queues(self) -> list[QueueInfo]:
        routes = Routes(self._link)
        await routes.reload()
        lines: list[Any] = []
        for ids in _batches(list(routes.known)):  # nobody shall wait long for a script to end
            lines += await self._link.run("queues", *ids)
        return [
            QueueInfo(
                pattern=route.pattern,
                group=route.group,
                members=line[0],
                waiting=max(0, line[1] - line[2]),
                unsettled=line[2],
                dropped=line[3],
                dead=line[4],
            )
            for route, line in zip(routes.known.values(), lines, strict=True)
            if line
        ]

    async def drop_group(self, pattern: str, group: str) -> bool:
        return bool(await self._link.run("drop", group_queue(pattern, group)))

    async def dead_letters(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        start = f"({after}" if after else "-"
        command = ("XRANGE", self._link.dead_key, start, "+", "COUNT", limit)
        return [_letter(key.decode(), fields) for key, fields in await self._link.call(*command)]

    async def dead_count(self) -> int:
        return int(await self._link.call("XLEN", self._link.dead_key))

    async def replay(self, letter_ids: Iterable[str]) -> int:
        return int(await self._link.run("replay", *letter_ids))

    async def discard(self, letter_ids: Iterable[str]) -> int:
        ids = list(letter_ids)
        return int(await self._link.call("XDEL", self._link.dead_key, *ids)) if ids else 0

    async def close(self) -> None:
        await asyncio.gather(*(end.close() for end in list(self._ends)))
        await self._link.close()


def _batches(ids: list[str]) -> Iterator[list[str]]:
    return (ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE))


def _letter(key: str, fields: Any) -> DeadLetter:
    known: dict[bytes, bytes] = fields
    texts = {name.decode(): value.decode(errors="replace") for name, value in known.items()}
    pattern, _, group = texts["q"].partition(":")
    return DeadLetter(
        letter_id=key,
        pattern=pattern,
        group=None if group.startswith("~") else group,
        topic=_topic(texts.get("e", "")),
        type_name=texts.get("t", ""),
        payload=texts.get("e", ""),
        reason=texts["r"],
        deliveries=int(texts["n"]),
    )


def _topic(payload: str) -> str:
    """The topic of an event, or nothing when the payload is none."""
    try:
        event: Any = from_json(payload)
        return str(event["topic"])
    except (ValueError, LookupError, TypeError):
        return ""


class RedisConsumer(ConsumerPort):
    """Subscribes to the queues of one RedisBroker."""

    def __init__(self, link: Link, *, lease_seconds: float, prefetch: int) -> None:
        super().__init__()
        if prefetch < 1:
            raise SubscribeError(f"prefetch is {prefetch}: give a number of events from 1 on")
        self._link = link
        self._lease = lease_seconds
        self._prefetch = prefetch

    async def _subscribed(
        self, options: SubscribeOptions, event_type: type[E]
    ) -> RedisSubscription[E]:
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"
        group = f"~{name}" if options.group is None else options.group
        member = Membership(
            queue_id=group_queue(options.pattern, group),
            consumer=name,
            route=route_of(options),
            prefetch=self._prefetch,
            lease_seconds=self._lease,
        )
        subscription = RedisSubscription(self._link, member, options, event_type, self.forget)
        await subscription.start()
        return subscription
