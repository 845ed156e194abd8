"""A member of a queue in Redis: reads ahead, hands out, keeps its lease, relieves the dead."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from app.event_system.domain.errors import (
    BrokerUnavailableError,
    ClosedError,
    EventDecodeError,
    EventSystemError,
)
from app.event_system.domain.events import E_co, EventBase, decode_event
from app.event_system.domain.ports import Delivery, SubscribeOptions, Subscription
from app.event_system.infrastructure._redis_link import Fields, Link
from app.event_system.infrastructure._redis_routes import Route
from app.event_system.infrastructure._redis_settling import PAUSES, Settling

log = logging.getLogger(__name__)

BLOCK_SECONDS: Final = 5.0
_GONE, _LATE = 0, 2  # answers of the script `beat`


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Who reads which queue, and how."""

    queue_id: str
    consumer: str
    route: Route
    prefetch: int
    lease_seconds: float

    @property
    def lease_ms(self) -> int:
        """How long its lease is, in milliseconds."""
        return int(self.lease_seconds * 1000)

    @property
    def mortal(self) -> int:
        """1 when the queue ends with its only member."""
        return int(self.route.group is None)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry that was read and not handed out yet. It was `delivered` so often as this entry, and
    before that as others."""

    key: str
    fields: Fields
    delivered: int = 1

    @property
    def deliveries(self) -> int:
        """How often the event was delivered, this time included."""
        return int(self.fields.get(b"n", b"0")) + self.delivered


def _entry(key: bytes, delivered: int, flat: list[bytes]) -> _Entry:
    return _Entry(key.decode(), dict(zip(flat[::2], flat[1::2], strict=True)), delivered)


class RedisSubscription(Subscription[E_co]):
    """Deliveries from one queue. Two tasks of its own: one reads ahead as far as there is room, one
    keeps the lease and takes over what dead members held."""

    def __init__(
        self,
        link: Link,
        member: Membership,
        options: SubscribeOptions,
        event_type: type[E_co],
        on_close: Callable[[Subscription[EventBase]], None],
    ) -> None:
        self.options = options
        self._link = link
        self._member = member
        self._event_type = event_type
        self._on_close = on_close
        self._settling = Settling(link, member.queue_id)
        self._buffer: deque[_Entry] = deque()
        self._held: dict[str, Delivery[EventBase]] = {}
        self._suspects: set[str] = set()
        self._filled, self._room, self._look = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._taking = asyncio.Lock()
        self._unsure = False  # entries may be ours that we never saw
        self._leased_until = 0.0
        self._closing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reader = link.connection()

    async def start(self) -> None:
        """Become a member; raises BrokerUnavailableError."""
        try:
            await self._join()
        except BaseException:
            await self._reader.close()
            raise
        self._tasks = [
            asyncio.create_task(self._for_ever("read", self._read), name="events.read"),
            asyncio.create_task(self._for_ever("keep", self._keep), name="events.keep"),
        ]

    async def __anext__(self) -> Delivery[E_co]:
        while self._closing is None:
            if (delivery := self.take_nowait()) is not None:
                return delivery
            self._filled.clear()
            await self._filled.wait()
        raise StopAsyncIteration

    def take_nowait(self) -> Delivery[E_co] | None:
        # Without a lease, what was read ahead may be another's by now.
        while self._buffer and self._closing is None and time.monotonic() <= self._leased_until:
            if (delivery := self._handed(self._buffer.popleft())) is not None:
                return delivery
        return None

    async def flush(self) -> None:
        await self._settling.flush()

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="events.leave")
        await asyncio.shield(self._closing)

    def accept(self, delivery: Delivery[EventBase]) -> None:
        """The delivery was acknowledged."""
        if self._settled(delivery.key):
            self._settling.ack(delivery.key)

    def reject(self, delivery: Delivery[EventBase], reason: str) -> None:
        """The delivery was refused."""
        if self._settled(delivery.key):
            dead = delivery.deliveries >= self.options.max_deliveries
            self._settling.nack(delivery.key, delivery.deliveries, reason, dead=dead)

    def _settled(self, key: str) -> bool:
        if self._held.pop(key, None) is None:
            return False  # closed meanwhile: it was given back
        if key in self._suspects:
            self._suspects.discard(key)
            self._look.set()
        self._make_room()
        return True

    def _make_room(self) -> None:
        # Half of it at a time: an entry for each round trip would be slow.
        if len(self._buffer) + len(self._held) <= self._member.prefetch // 2:
            self._room.set()

    def _handed(self, entry: _Entry) -> Delivery[E_co] | None:
        payload, kind = entry.fields.get(b"e", b""), entry.fields.get(b"t", b"")
        try:
            event = decode_event(payload, kind.decode(errors="replace"), self._event_type)
        except EventDecodeError as error:
            self._settling.nack(entry.key, entry.deliveries, str(error), dead=True)
            self._suspects.discard(entry.key)
            self._make_room()
            return None
        delivery = Delivery(event, entry.deliveries, self, entry.key)
        self._held[entry.key] = delivery
        return delivery

    async def _for_ever(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Nothing but closing ends it: not Redis being away, and no defect of ours."""
        failures = 0
        while self._closing is None and not self._link.closed:
            if await self._tried(name, step, first=failures == 0):
                if failures:
                    log.info("Events again", extra={"action": "events.resumed", **self._fields()})
                failures = 0
                continue
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1
            self._unsure = True
            self._look.set()

    async def _tried(self, name: str, step: Callable[[], Awaitable[None]], *, first: bool) -> bool:
        extra = {"action": f"events.{name}.failed", **self._fields()}
        try:
            await step()
        except ClosedError:
            return False
        except EventSystemError as error:
            if first:
                log.warning("No events for now", extra=extra | {"reason": str(error)})
            return False
        except Exception:  # the edge of a loop: whatever it was, the next turn must come
            log.exception("A subscription failed", extra=extra)
            return False
        return True

    def _fields(self) -> dict[str, Any]:
        return {"pattern": self.options.pattern, "group": self.options.group}

    async def _read(self) -> None:
        if self._unsure:
            await self._recover()
        count = self._member.prefetch - len(self._buffer) - len(self._held)
        if count <= 0:
            self._room.clear()
            await self._room.wait()
            return
        entries = await self._reader.read(
            self._member.queue_id,
            self._member.consumer,
            count=count,
            block_ms=int(BLOCK_SECONDS * 1000),
        )
        for key, fields in entries:
            if b"w" in fields:  # another member left, and tells that it left something
                self._settling.ack(key)
                self._look.set()
            else:
                self._buffer.append(_Entry(key, fields))
                self._filled.set()

    async def _recover(self) -> None:
        """Find the entries that are ours although the reply that had them was lost."""
        await self._join()
        async with self._taking:
            self._unsure = False
            try:
                await self._take_unseen()
            except BaseException:
                self._unsure = True
                raise

    async def _take_unseen(self) -> None:
        member = self._member
        seen = self._held.keys() | {entry.key for entry in self._buffer} | self._settling.unsent()
        unseen = await self._link.run("mine", member.queue_id, member.consumer, *seen)
        self._buffer.extend(_entry(*one) for one in unseen)
        self._filled.set()

    async def _keep(self) -> None:
        await self._beat()
        await self._claim()
        self._look.clear()
        wait = asyncio.timeout(self._member.lease_seconds / 3)
        try:
            async with wait:
                await self._look.wait()
        except TimeoutError:
            return

    async def _beat(self) -> None:
        member, start = self._member, time.monotonic()
        found = await self._link.run(
            "beat", member.queue_id, member.consumer, member.lease_ms, member.mortal
        )
        if found == _GONE:
            await self._join()
        elif found == _LATE:  # this process stood still: what it read ahead may be another's now
            self._buffer.clear()
            self._suspects &= self._held.keys()
            self._unsure = True
            await self._reader.unblock()
        self._leased_until = start + member.lease_seconds
        self._filled.set()

    async def _join(self) -> None:
        member, start = self._member, time.monotonic()
        known = await self._link.run(
            "join",
            member.queue_id,
            member.route.to_json(),
            member.consumer,
            member.lease_ms,
            member.mortal,
        )
        self._leased_until = start + member.lease_seconds
        if self._tasks and not known:
            log.error(
                "The queue of a subscription was gone: events may be missing",
                extra={"action": "events.gap", **self._fields()},
            )

    async def _claim(self) -> None:
        async with self._taking:
            room = self._member.prefetch - len(self._buffer) - len(self._held)
            if room <= 0:
                return
            taken = await self._link.run(
                "claim",
                self._member.queue_id,
                self._member.consumer,
                room,
                int(not self._suspects),
                self.options.max_deliveries,
            )
            self._take_over(taken)

    def _take_over(self, taken: Iterable[tuple[bytes, int, list[bytes]]]) -> None:
        """Put what others held before what was read: it is older."""
        entries = [_entry(*one) for one in taken]
        self._suspects.update(entry.key for entry in entries if entry.delivered > 1)
        self._buffer.extendleft(reversed(entries))
        self._filled.set()

    async def _close(self) -> None:
        self._filled.set()
        self._room.set()
        self._look.set()
        held = list(self._held)
        self._held.clear()
        self._on_close(self)
        try:
            await self._stop_reading()
            await self._settling.close()
            await self._link.run(
                "leave", self._member.queue_id, self._member.consumer, self._member.mortal, *held
            )
        except (BrokerUnavailableError, ClosedError) as error:
            log.warning(
                "A subscription could not say that it ends; its lease will",
                extra={"action": "events.leave.failed", "reason": str(error), **self._fields()},
            )
        finally:
            await self._reader.close()

    async def _stop_reading(self) -> None:
        """End the tasks. A read that waits is told to end, for what the server gives to one that
        was cut off is nobody's until a lease ends."""
        try:
            for _ in range(20):  # it may be just about to wait
                await self._reader.unblock()
                _, running = await asyncio.wait(self._tasks, timeout=0.05)
                if not running:
                    break
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
