"""Reads the outbox for one consumer of a group: what was left behind first, then what is new."""

import time
from collections.abc import Collection
from typing import Final

from task_state import StoreUnavailableError
from task_state.outbox import Outbox, OutboxEvent

_BLOCK_MS: Final = 500


class OutboxReader:
    """The events of a group in the order in which one of its consumers should take them.

    What this consumer's name took and never finished comes first, and again after each outage of
    the store, in turns with the rest, which so much of it may not hold up: what was put off and is
    due; then what other consumers took `abandoned_seconds` ago and did not finish; then what is
    new. The group is made when it is not there.
    """

    def __init__(self, group: str, consumer: str, *, abandoned_seconds: float) -> None:
        self._group = group
        self._consumer = consumer
        self._abandoned_ms = int(abandoned_seconds * 1000)
        self._joined = False
        self._left_behind: str | None = None
        self._rest_is_next = False
        self._next_claim = 0.0

    @property
    def behind(self) -> bool:
        """Whether it goes through what this consumer has taken and not finished."""
        return self._left_behind is not None

    def again(self) -> None:
        """Begin anew with what this consumer has taken and not finished."""
        self._left_behind = "0"

    async def next(
        self, outbox: Outbox, count: int, *, held: Collection[OutboxEvent] = ()
    ) -> list[OutboxEvent]:
        """At most `count` events, or half a second later none; those in `held` are in work already
        and do not come again. Raises StoreUnavailableError."""
        # As they are before it asks: one that ends while the reply travels may stand in that reply.
        in_work = frozenset(held)
        try:
            return await self._next(outbox, count, in_work)
        except StoreUnavailableError:
            self._joined = False  # the store may come back without its data
            raise

    async def _next(
        self, outbox: Outbox, count: int, in_work: Collection[OutboxEvent]
    ) -> list[OutboxEvent]:
        if not self._joined:
            await outbox.ensure_group(self._group)
            self._joined = True
            self.again()
        if self._left_behind is not None and not self._rest_is_next:
            self._rest_is_next = True
            return await self._take_up(outbox, self._left_behind, count, in_work)
        self._rest_is_next = False
        events = await outbox.take_due(self._group, hide_ms=self._abandoned_ms, count=count)
        if time.monotonic() >= self._next_claim:
            self._next_claim = time.monotonic() + self._abandoned_ms / 3000
            events += await outbox.claim(
                self._group, self._consumer, min_idle_ms=self._abandoned_ms, count=count
            )
        if events := [event for event in events if event not in in_work]:
            return events
        block_ms = 0 if self.behind else _BLOCK_MS
        return await outbox.read(self._group, self._consumer, count=count, block_ms=block_ms)

    async def _take_up(
        self, outbox: Outbox, after: str, count: int, in_work: Collection[OutboxEvent]
    ) -> list[OutboxEvent]:
        events = await outbox.unfinished(self._group, self._consumer, after=after, count=count)
        self._left_behind = events[-1].entry_id if events else None
        return [event for event in events if event not in in_work]
