"""Publishes the ends of tasks as events: from the outbox, which loses none, to the event broker."""

import asyncio
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from app.core.events import TASK_EVENTS_GROUP
from app.event_system import EventSystemError, PublisherPort
from app.services.background import PAUSE_SECONDS, repeat
from app.services.outbox_reader import OutboxReader
from app.tasks.events import MAX_ERROR, TaskEvent, task_event_id, task_topic
from task_state.outbox import Ending, Outbox, OutboxEvent
from task_state.redis import RedisRepositoryProvider

logger = logging.getLogger(__name__)

ABANDONED_SECONDS: Final = 15.0
_BATCH: Final = 500


class TaskEventRelay:
    """A consumer of the outbox's group `events`; any number of them share the work.

    An entry is done with when its event is published. What could not be published is tried again
    every second, by this relay or, when it is silent for `abandoned_seconds`, by another: an event
    may be published twice, always with the same id. A queue that is full and refuses holds up the
    events that it should get, and no others.
    """

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        publisher: PublisherPort,
        registry: CollectorRegistry,
        *,
        abandoned_seconds: float = ABANDONED_SECONDS,
    ) -> None:
        self._provider = provider
        self._publisher = publisher
        # A name of its own: two relays of one name would publish each other's entries once more.
        consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._reader = OutboxReader(
            TASK_EVENTS_GROUP, consumer, abandoned_seconds=abandoned_seconds
        )
        self._retry_at = math.inf
        self._complaint = ""
        self._published = Counter(
            "dms_task_events_published",
            "Ends of tasks that were published as events",
            ["status"],
            registry=registry,
        )

    async def run(self) -> None:
        """Relay until cancelled; what is away is waited for."""
        await repeat("task_events", self._turn)

    async def _turn(self) -> None:
        try:
            # Not in the middle: what is stuck may be more than is gone through until then.
            if time.monotonic() >= self._retry_at and not self._reader.behind:
                self._retry_at = math.inf
                self._reader.again()
            outbox = await self._provider.get_outbox()
            entries = await self._reader.next(outbox, _BATCH)
            await self._relay(outbox, entries)
        except BaseException:
            self._reader.again()
            raise

    async def _relay(self, outbox: Outbox, entries: Sequence[OutboxEvent]) -> None:
        ended = [entry for entry in entries if entry.kind == "finished"]
        endings = await outbox.endings([entry.task_id for entry in ended])
        events = [_event(*pair) for pair in zip(ended, endings, strict=True)]
        published = await self._publish(events)
        done = [entry for entry, ok in zip(ended, published, strict=True) if ok]
        others = [entry for entry in entries if entry.kind != "finished"]
        await outbox.done(TASK_EVENTS_GROUP, *done, *others)
        if len(done) < len(ended):
            self._retry_at = min(self._retry_at, time.monotonic() + PAUSE_SECONDS)
        if ended and not done:
            await asyncio.sleep(PAUSE_SECONDS)

    async def _publish(self, events: Sequence[TaskEvent]) -> list[bool]:
        """Which of them were published. As they come at once, they share a round trip; as each has
        its own outcome, none is published again because another was refused."""
        outcomes = await asyncio.gather(
            *(self._publisher.publish(event.topic, event) for event in events),
            return_exceptions=True,
        )
        reason = ""
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, EventSystemError):
                reason = str(outcome)
            elif outcome is not None:
                raise outcome
            else:
                self._published.labels(event.status.value).inc()
        self._complain(reason)
        return [outcome is None for outcome in outcomes]

    def _complain(self, reason: str) -> None:
        if reason and reason != self._complaint:
            logger.warning(
                "Task events wait to be published",
                extra={"action": "task_events.wait", "reason": reason},
            )
        self._complaint = reason


def _event(entry: OutboxEvent, ending: Ending | None) -> TaskEvent:
    written = _written_at(entry)
    event = TaskEvent(
        topic=task_topic(entry.service, entry.status),
        event_id=task_event_id(entry.task_id, entry.entry_id, written),
        occurred_at=written,
        task_id=entry.task_id,
        service=entry.service,
        user_id=entry.user_id,
        status=entry.status,
        completed_at=written,
    )
    if ending is None or ending.status is not entry.status:
        return event  # the record is gone, or tells of something later
    known = {
        "completed_at": ending.completed_at or written,
        "attempts": ending.attempts,
        "error": ending.error and ending.error[:MAX_ERROR],
        "retry_of": ending.retry_of,
        "schedule_id": ending.schedule_id,
    }
    return event.model_copy(update=known)


def _written_at(entry: OutboxEvent) -> datetime:
    """When the entry was written: its id begins with the server's time in milliseconds."""
    milliseconds = int(entry.entry_id.partition("-")[0])
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
