"""The cron trigger: an event for each slot of a cron expression."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import tzinfo
from typing import Generic
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.event_system import EventSystemError
from app.event_system.domain.events import E
from app.scheduler.domain.clock import LONGEST_SLEEP, Clock
from app.scheduler.domain.cron_expression import CronExpression
from app.scheduler.domain.errors import EventFactoryError, TriggerConfigError
from app.scheduler.domain.slots import DEFAULT_POLICY, FirePolicy, due_at, first_slot, look
from app.scheduler.domain.trigger_port import Publish, TriggerPort
from app.scheduler.infrastructure._making import (
    HOPS_HEADER,
    SLOT_HEADER,
    check_callable,
    make_event,
    slot_text,
    stamped,
)
from app.scheduler.infrastructure._system_clock import SYSTEM_CLOCK
from task_state.timezone import get_timezone

log = logging.getLogger(__name__)


class CronTrigger(TriggerPort[E], Generic[E]):
    """Makes an event for each slot after its start: made by `create_cron_trigger`.

    A scheduler serves all its cron triggers by one heap and one sleeper. Without a scheduler
    `emit()` does the same for this one. Slots that pass while the trigger is stopped are not made
    up. The trigger of an expression and `end` that have no further slot ends by itself.
    """

    # A hundred thousand of these are wanted in one process.
    __slots__ = (
        "_clock",
        "_count",
        "_errors",
        "_expression",
        "_factory",
        "_key",
        "_policy",
        "_running",
        "_slot",
        "_wake",
        "_zone",
    )

    def __init__(
        self,
        expression: CronExpression,
        event_factory: Callable[[], E | Awaitable[E]],
        zone: tzinfo,
        policy: FirePolicy = DEFAULT_POLICY,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_callable("event_factory", event_factory)
        self._expression = expression
        self._factory = event_factory
        self._zone = zone
        self._policy = policy
        self._clock = clock
        self._key = expression.text
        self._slot: int | None = None
        self._wake: asyncio.Event | None = None
        self._running = False
        self._count = 0
        self._errors = 0

    @property
    def expression(self) -> CronExpression:
        """What it goes by."""
        return self._expression

    @property
    def policy(self) -> FirePolicy:
        """How it treats its slots."""
        return self._policy

    def use(self, key: str, clock: Clock) -> None:
        """Take the id and the clock of a scheduler; before the start."""
        self._key = key
        self._clock = clock

    async def start(self) -> None:
        if not self._running:
            self._running = True
            self._slot = first_slot(self._expression, self._zone, self._policy, self._clock.now())

    async def stop(self) -> None:
        self._running = False
        if self._wake is not None:
            self._wake.set()

    def is_running(self) -> bool:
        return self._running and self._slot is not None

    def get_trigger_count(self) -> int:
        """How many events it emitted."""
        return self._count

    def get_error_count(self) -> int:
        """How many slots had no event, because the factory failed or nobody could publish it."""
        return self._errors

    def due_at(self) -> float | None:
        """When it wants to fire next (seconds since 1970 UTC, jitter included); None: never."""
        if self._slot is None or not self._running:
            return None
        if not self._policy.jitter:
            return self._slot
        return due_at(self._expression, self._zone, self._policy, self._key, self._slot)

    async def fire(self, now: float, publish: Publish) -> float | None:
        """Make and publish the events of what is due; answers `due_at()`. Raises nothing."""
        for slot in self._take(now):
            event = await self._made(slot)
            if event is not None:
                try:
                    await publish(event)
                except EventSystemError:  # `publish` logged it
                    self._errors += 1
                else:
                    self._count += 1
        return self.due_at()

    async def emit(self) -> AsyncGenerator[E, None]:
        self._wake = asyncio.Event()
        while (due := self.due_at()) is not None:
            now = self._clock.now()
            if now < due:
                await self._clock.sleep(min(due - now, LONGEST_SLEEP), self._wake)
                continue
            for slot in self._take(now):
                event = await self._made(slot)
                if event is not None:
                    self._count += 1
                    yield event

    def _take(self, now: float) -> list[int]:
        """The slots that fire now; the trigger goes on to the one after them."""
        if self._slot is None or not self._running:
            return []
        slot = self._slot
        found = look(self._expression, self._zone, self._policy, self._key, slot, now)
        self._slot = found.following
        if found.skipped:
            log.warning(
                "Slots of a cron trigger were missed",
                extra={
                    "action": "trigger.misfire",
                    "trigger": self._key,
                    "oldest": slot_text(slot),
                    "late_seconds": round(now - slot, 3),
                    "fires": len(found.fires),
                    "coalesce": self._policy.coalesce,
                },
            )
        return found.fires

    async def _made(self, slot: int) -> E | None:
        try:
            event = await make_event(self._factory)
        except EventFactoryError as error:
            self._errors += 1
            log.warning(
                "A cron trigger made no event",
                exc_info=error,
                extra={
                    "action": "trigger.failed",
                    "trigger": self._key,
                    "slot": slot_text(slot),
                    "reason": str(error),
                },
            )
            return None
        return stamped(event, {SLOT_HEADER: slot_text(slot), HOPS_HEADER: "0"})


def find_zone(timezone: str | tzinfo | None) -> tzinfo:
    """The zone of that name; None is DMS's own (`DMS_TIMEZONE`). Raises TriggerConfigError."""
    if timezone is None:
        return get_timezone()
    if isinstance(timezone, tzinfo):
        return timezone
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError) as error:
        raise TriggerConfigError(
            f"timezone {timezone!r} is not known: give a name such as 'Asia/Seoul' or 'UTC'"
        ) from error
