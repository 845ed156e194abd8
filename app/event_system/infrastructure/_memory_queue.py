"""A bounded queue of one subscription or group in memory, and who waits for it."""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Final, final

from app.event_system.domain.errors import QueueFullError
from app.event_system.domain.events import EventBase
from app.event_system.domain.ports import Overflow, QueueInfo, SubscribeOptions

log = logging.getLogger(__name__)

DEFAULT_LIMIT: Final = 1000


@final
@dataclass(frozen=True, slots=True)
class Again:
    """An event that was delivered before, so many times."""

    event: EventBase
    deliveries: int


class MemoryQueue:
    """Events that wait for the members of one subscription or group.

    `room` is what is left of `limit` when those that wait and those in a member's hands are taken
    off. Publishers that wait for room (`blocked`) have theirs put in by whoever makes it, in the
    order in which they came.
    """

    __slots__ = (
        "append",
        "blocked",
        "dead",
        "dropped",
        "entries",
        "limit",
        "members",
        "options",
        "overflow",
        "refuses",
        "room",
        "sleepers",
    )

    def __init__(self, options: SubscribeOptions) -> None:
        self.options = options
        self.limit = options.limit or DEFAULT_LIMIT
        self.overflow = options.overflow or Overflow.WAIT
        self.refuses = self.overflow is Overflow.ERROR
        self.entries: deque[EventBase | Again] = deque()
        self.sleepers: deque[asyncio.Future[None]] = deque()
        self.append = self.entries.append
        self.members = 0
        self.room = self.limit
        self.dropped = 0
        self.dead = 0
        self.blocked: deque[tuple[EventBase, asyncio.Future[None]]] = deque()

    def put(self, event: EventBase) -> asyncio.Future[None] | None:
        """Take the event; when it has to wait for room, the future of its being in."""
        if self.room > 0:
            self.room -= 1
            self.entries.append(event)
            if self.sleepers:
                self.wake()
            return None
        return self._overflown(event)

    def check_room(self) -> None:
        """Raise QueueFullError where the policy is to refuse, and there is no room."""
        if self.refuses and self.room <= 0:
            raise QueueFullError(
                f"a subscription to {self.options.pattern!r} (group {self.options.group!r}) has "
                f"{self.limit} events in wait or in work, its limit: publish again later"
            )

    def wake(self) -> None:
        """Let one member that waits look for an event."""
        while self.sleepers:
            sleeper = self.sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                return

    async def sleep(self) -> None:
        """Wait until there may be an event."""
        sleeper = asyncio.get_running_loop().create_future()
        self.sleepers.append(sleeper)
        try:
            await sleeper
        except asyncio.CancelledError:
            if sleeper.done() and not sleeper.cancelled() and self.entries:
                self.wake()  # it was this one's turn, and it will not come
            raise

    def free(self) -> None:
        """One event less: it was settled."""
        self.room += 1
        if self.blocked:
            self.admit()

    def admit(self) -> None:
        """Put in what publishers wait with, as far as there is room."""
        while self.blocked and self.room > 0:
            event, waiting = self.blocked.popleft()
            if not waiting.done():
                waiting.set_result(None)
                self.put(event)

    def again(self, event: EventBase, deliveries: int, *, first: bool = False) -> None:
        """Deliver it once more, behind those that wait, or before them."""
        entry = Again(event, deliveries) if deliveries else event
        if first:
            self.entries.appendleft(entry)
        else:
            self.entries.append(entry)
        self.wake()

    def left(self) -> None:
        """A member went. With nobody to make room, publishers must not wait."""
        self.members -= 1
        blocked, self.blocked = self.blocked, deque()
        if self.members:
            self.blocked = blocked
            self.wake()  # what the member was about to take, another takes
            return
        for event, waiting in blocked:
            if not waiting.done():
                waiting.set_result(None)
                self.put(event)

    def info(self) -> QueueInfo:
        """What it is like now."""
        waiting = len(self.entries)
        return QueueInfo(
            pattern=self.options.pattern,
            group=self.options.group,
            members=self.members,
            waiting=waiting,
            unsettled=self.limit - self.room - waiting,
            dropped=self.dropped,
            dead=self.dead,
        )

    def _overflown(self, event: EventBase) -> asyncio.Future[None] | None:
        self.check_room()
        if self.overflow is Overflow.WAIT and self.members:
            waiting = asyncio.get_running_loop().create_future()
            self.blocked.append((event, waiting))
            return waiting
        self._count_drop()
        if self.entries and self.overflow is not Overflow.DROP_NEWEST:
            self.entries.popleft()
            self.entries.append(event)
        return None

    def _count_drop(self) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            log.warning(
                "A subscription is full and drops events",
                extra={
                    "action": "events.dropped",
                    "pattern": self.options.pattern,
                    "group": self.options.group,
                    "limit": self.limit,
                    "dropped": self.dropped,
                },
            )
