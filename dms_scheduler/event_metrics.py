"""Gauges of the event broker's queues and dead letters, and of the task events not published."""

import asyncio
import logging
import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from app.core.events import TASK_EVENTS_GROUP
from app.event_system import BrokerPort, EventSystemError, QueueInfo
from task_state import TaskStateError
from task_state.outbox import OutboxDepth
from task_state.redis import RedisRepositoryProvider

logger = logging.getLogger(__name__)

MOST_QUEUES: Final = 100
OTHERS: Final = "(others)"
"""The pattern under which all queues beyond the MOST_QUEUES fullest are summed up, so that the
number of series is bounded whatever programs subscribe to."""

_STATES: Final = ("waiting", "unsettled", "dropped", "dead")


class EventMetrics:
    """Brings the gauges up to date when they are asked for. What cannot be read in time is left
    out of the metrics (or NaN), and `dms_event_broker_up` is 0."""

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        broker: BrokerPort,
        registry: CollectorRegistry,
        *,
        timeout_seconds: float,
    ) -> None:
        self._provider = provider
        self._broker = broker
        self._timeout = timeout_seconds
        self._up = Gauge(
            "dms_event_broker_up", "1 while the event broker answers", registry=registry
        )
        self._queues = Gauge(
            "dms_event_queue_events",
            "Events of the subscriptions and groups of a pattern: waiting or unsettled now, "
            "dropped or dead since the queue began",
            ["pattern", "group", "state"],
            registry=registry,
        )
        self._letters = Gauge(
            "dms_event_dead_letters", "Dead letters that wait for an operator", registry=registry
        )
        self._unread = Gauge(
            "dms_task_events_waiting",
            "Outbox entries that were not looked at for task events, 10000 at most",
            ["state"],
            registry=registry,
        )
        self._lag = Gauge(
            "dms_task_events_lag_seconds",
            "Age of the oldest outbox entry that is not published or passed over",
            registry=registry,
        )

    async def measure(self) -> None:
        """Read all of it; an outage is not the caller's trouble."""
        try:
            async with asyncio.timeout(self._timeout):
                queues = await self._broker.queues()
                letters = await self._broker.dead_count()
                depths = await (await self._provider.get_outbox()).depths()
        except (EventSystemError, TaskStateError, TimeoutError) as error:
            logger.debug(
                "The queues of events could not be measured",
                extra={"action": "event_metrics", "reason": str(error)},
            )
            self._up.set(0)
            self._forget()
            return
        self._up.set(1)
        self._letters.set(letters)
        self._show(queues)
        self._show_relay(depths.get(TASK_EVENTS_GROUP))

    def _forget(self) -> None:
        """What was read last is not told as if it were so still."""
        self._queues.clear()
        self._unread.clear()
        for gauge in (self._letters, self._lag):
            gauge.set(math.nan)

    def _show_relay(self, depth: OutboxDepth | None) -> None:
        """Nothing is known of the group until a relay has made it."""
        if depth is not None:
            self._unread.labels("unread").set(depth.unread)
            self._unread.labels("pending").set(depth.pending)
            self._lag.set(depth.lag_seconds)

    def _show(self, queues: Sequence[QueueInfo]) -> None:
        """Subscriptions of no group are shown together, by their pattern."""
        totals: dict[tuple[str, str], list[int]] = {}
        for queue in queues:
            row = totals.setdefault((queue.pattern, queue.group or ""), [0] * len(_STATES))
            for at, count in enumerate(attrgetter(*_STATES)(queue)):
                row[at] += count
        self._queues.clear()
        by_size = sorted(totals.items(), key=lambda item: (-item[1][0] - item[1][1], item[0]))
        for (pattern, group), row in by_size[:MOST_QUEUES]:
            self._set(pattern, group, row)
        if rest := [row for _, row in by_size[MOST_QUEUES:]]:
            self._set(OTHERS, "", [sum(column) for column in zip(*rest, strict=True)])

    def _set(self, pattern: str, group: str, row: Sequence[int]) -> None:
        for state, count in zip(_STATES, row, strict=True):
            self._queues.labels(pattern, group, state).set(count)
