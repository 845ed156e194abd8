"""The event trigger: an event for each event of a topic that a filter lets through."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Generic

from app.event_system import (
    ConsumerPort,
    Delivery,
    EventBase,
    EventSystemError,
    Subscription,
    check_pattern,
)
from app.event_system.domain.events import E
from app.scheduler.domain.errors import EventFactoryError, TriggerConfigError
from app.scheduler.domain.trigger_port import Publish, TriggerPort
from app.scheduler.infrastructure._making import (
    HOPS_HEADER,
    MAX_HOPS,
    awaited,
    check_callable,
    make_event,
    reason,
    stamped,
)

log = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 5.0
REDELIVERY_SECONDS: Final = 1.0
_TURNS: Final = 3
"""A consumer that asks for the next event and has none after so many turns of the loop waits."""


class EventTrigger(TriggerPort[E], Generic[E]):
    """Makes events of events: made by `create_event_trigger`.

    Where it has a group, the group's other members share its work, and what is published while it
    is stopped waits for it. An event is acknowledged when what was made of it is published; one
    that nobody could publish is delivered again.
    """

    def __init__(
        self,
        consumer: ConsumerPort,
        source_topic: str,
        event_factory: Callable[[Any], E | Awaitable[E]],
        filter_func: Callable[[Any], bool | Awaitable[bool]] | None = None,
        *,
        event_type: type[EventBase] | None = None,
        group: str | None = None,
        max_hops: int = MAX_HOPS,
    ) -> None:
        check_pattern(source_topic)
        check_callable("event_factory", event_factory)
        if filter_func is not None:
            check_callable("filter_func", filter_func)
        if max_hops < 1:
            raise TriggerConfigError(f"max_hops is {max_hops}: give 1 or more")
        self._consumer = consumer
        self._source_topic = source_topic
        self._factory = event_factory
        self._filter = filter_func
        self._event_type = event_type
        self._group = group
        self._max_hops = max_hops
        self._subscription: Subscription[EventBase] | None = None
        self._waits = asyncio.Event()  # there is nothing to do, as far as is known
        self._waits.set()
        self._count = self._errors = self._loops = 0

    async def start(self) -> None:
        """Subscribe: events published from here on are seen. Raises EventSystemError."""
        if self._subscription is None:
            self._subscription = await self._consumer.subscribe(
                self._source_topic, self._event_type, group=self._group
            )

    async def stop(self) -> None:
        """Events that have arrived have DRAIN_SECONDS to be worked off; others are given back to
        the group."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._worked_off()
        finally:
            await subscription.close()

    def is_running(self) -> bool:
        return self._subscription is not None

    def get_trigger_count(self) -> int:
        """How many events it emitted."""
        return self._count

    def get_error_count(self) -> int:
        """How many events were skipped because filter or factory failed, or were not published."""
        return self._errors

    def get_loop_count(self) -> int:
        """How many events were dropped for having gone through `max_hops` triggers."""
        return self._loops

    async def emit(self) -> AsyncGenerator[E, None]:
        """Each source event is acknowledged when the next event is asked for."""
        subscription = self._subscription
        while subscription and (delivery := await self._next(subscription)) is not None:
            event = await self._made(delivery.event)
            if event is not None:
                self._count += 1
                try:
                    yield event
                except BaseException:
                    delivery.nack("whoever asked for the event gave up")
                    raise
            delivery.ack()

    async def run(self, publish: Publish) -> None:
        subscription = self._subscription
        while subscription and (delivery := await self._next(subscription)) is not None:
            try:
                await self._pass_on(delivery, publish)
            except asyncio.CancelledError:
                delivery.nack("the trigger was stopped")
                raise
        if subscription and subscription is self._subscription:
            log.error(
                "An event trigger gets no events any more, for its consumer was closed",
                extra={"action": "trigger.ended", "source_topic": self._source_topic},
            )

    async def _pass_on(self, delivery: Delivery[EventBase], publish: Publish) -> None:
        event = await self._made(delivery.event)
        if event is None:
            delivery.ack()
            return
        try:
            await publish(event)
        except EventSystemError as error:
            self._errors += 1
            delivery.nack(reason(error), delay=REDELIVERY_SECONDS)
        else:
            self._count += 1
            delivery.ack()

    async def _next(self, subscription: Subscription[EventBase]) -> Delivery[EventBase] | None:
        self._waits.set()
        delivery = await anext(subscription, None)
        if delivery is not None:
            self._waits.clear()
        return delivery

    async def _worked_off(self) -> None:
        quiet = 0
        while quiet < _TURNS:
            if not self._waits.is_set():
                quiet = 0
                await self._waits.wait()
            await asyncio.sleep(0)
            quiet += self._waits.is_set()

    async def _made(self, source: EventBase) -> E | None:
        """The event to publish; None when the filter keeps it out, or on an error, which is logged
        and counted."""
        hops = _hops(source)
        try:
            if not await self._lets_through(source):
                return None
            if hops >= self._max_hops:
                self._drop(source, hops)
                return None
            event = await make_event(self._factory, source)
        except EventFactoryError as error:
            self._errors += 1
            log.warning(
                "An event trigger skipped an event",
                exc_info=error,
                extra={
                    "action": "trigger.failed",
                    "source_topic": self._source_topic,
                    "topic": source.topic,
                    "event_id": source.event_id,
                    "reason": str(error),
                },
            )
            return None
        return stamped(event, {HOPS_HEADER: str(hops + 1)})

    async def _lets_through(self, source: EventBase) -> bool:
        if self._filter is None:
            return True
        try:
            return bool(await awaited(self._filter(source)))
        except Exception as error:
            raise EventFactoryError(f"the filter failed: {reason(error)}") from error

    def _drop(self, source: EventBase, hops: int) -> None:
        self._loops += 1
        log.error(
            "An event went through too many triggers: do they start each other in a circle?",
            extra={
                "action": "trigger.loop",
                "source_topic": self._source_topic,
                "topic": source.topic,
                "event_id": source.event_id,
                "hops": hops,
                "max_hops": self._max_hops,
            },
        )


def _hops(event: EventBase) -> int:
    text = event.headers.get(HOPS_HEADER, "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
