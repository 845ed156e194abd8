"""Carries the events of the outbox to the scheduler: not the event bus, which knows no tasks."""

import asyncio
import contextlib
import logging
import random
import socket
import time
from typing import Final

from app.core.errors import SchedulerUnavailableError
from app.core.events import DISPATCH_GROUP
from app.core.metrics import Metrics
from app.services.background import PAUSE_SECONDS, Background
from app.services.breaker import Breaker
from app.services.dispatch import Dispatcher
from app.services.outbox_reader import OutboxReader
from task_state import StoreUnavailableError
from task_state.outbox import Outbox, OutboxEvent
from task_state.redis import RedisRepositoryProvider

log = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 1.0
_TRIM_SECONDS: Final = 5.0
_SWEEP_LIMIT: Final = 1000
_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 24.0  # with the jitter, 30 seconds
_DEFECT_DELAY: Final = 30.0
# The first seven delays take more than a minute, and so do any three of the later ones.
_LOG_EVERY: Final = 3


def backoff_seconds(tries: int) -> float:
    """How long an event waits after `tries` earlier failures: 1, 2, 4 ... s, at most 30."""
    jitter = random.uniform(1.0, 1.25)  # noqa: S311  # nosec B311
    return min(_FIRST_DELAY * 2 ** min(tries, 10), _LONGEST_DELAY) * jitter


def worth_logging(tries: int) -> bool:
    """Whether a wait is told in the task's log: the first, then no more than one a minute."""
    return tries == 0 or (tries > 6 and tries % _LOG_EVERY == 0)


class TaskEventProcessor:
    """A consumer of the group `dispatch`: one reader, `worker_count` coroutines, and the sweeper.

    What has to wait goes to the due set, never into a coroutine. What a replica of this name took
    and left is taken up first, and again after each outage of the store; what another one left,
    three request time-outs later. start() returns at once, whether Redis and the scheduler are
    there or not; stop() gives back what was not begun.
    """

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        dispatcher: Dispatcher,
        metrics: Metrics,
        *,
        worker_count: int,
        request_timeout: float,
    ) -> None:
        self._provider = provider
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._worker_count = worker_count
        # Names a replica; two of one name only do some of each other's work, which is harmless.
        consumer = socket.gethostname()
        self._reader = OutboxReader(DISPATCH_GROUP, consumer, abandoned_seconds=request_timeout * 3)
        self._queue: asyncio.Queue[OutboxEvent] = asyncio.Queue(worker_count)
        self._held: set[OutboxEvent] = set()
        self._breaker = Breaker()
        self._background = Background()
        self._next_trim = time.monotonic() + _TRIM_SECONDS

    @property
    def scheduler_reachable(self) -> bool:
        """False while dispatching is paused because the scheduler does not answer."""
        return not self._breaker.is_open

    def start(self) -> None:
        """Begin to consume."""
        self._background.start("dispatch.read", self._read)
        for number in range(self._worker_count):
            self._background.start(f"dispatch.work.{number}", self._work)
        self._background.start("sweeper", self._housekeeping)

    async def stop(self) -> None:
        """End all loops; the events that they held go back, to be taken at once by whoever is up.

        Such a one may have been told to the scheduler already: it is told again, which is safe.
        """
        await self._background.stop()
        held, self._held = self._held, set()
        with contextlib.suppress(StoreUnavailableError):  # then they are claimed later
            for event in held:
                outbox = await self._provider.get_outbox()
                await outbox.defer(DISPATCH_GROUP, event, delay_seconds=0)

    async def _read(self) -> None:
        """One turn: wait for the breaker, then hand on what is due, abandoned or new."""
        await self._breaker.wait()
        self._metrics.breaker_open.set(self._breaker.is_open)
        outbox = await self._provider.get_outbox()
        probing = self._breaker.is_open
        count = 1 if probing else self._worker_count
        events = await self._reader.next(outbox, count, held=self._held)
        self._held.update(events)
        for event in events:
            await self._queue.put(event)
        if probing:
            await self._queue.join()

    async def _work(self) -> None:
        event = await self._queue.get()
        try:
            while True:
                if await self._settle(event):
                    break
                await asyncio.sleep(PAUSE_SECONDS)
            self._held.discard(event)
        except Exception:
            self._held.discard(event)  # so that it is claimed; a cancelled one stop() gives back
            raise
        finally:
            self._queue.task_done()

    async def _settle(self, event: OutboxEvent) -> bool:
        """Handle an event; False when the store is away, so that all of it has to be repeated."""
        try:
            outbox = await self._provider.get_outbox()
            try:
                outcome = await self._dispatcher.handle(event)
            except SchedulerUnavailableError as error:
                await self._put_off(outbox, event, str(error))
                return True
            except StoreUnavailableError:
                raise
            except (
                Exception
            ):  # a defect of ours must not lose an event, nor stop the ones behind it
                log.exception("An event could not be handled", extra=_fields(event))
                await outbox.defer(DISPATCH_GROUP, event, delay_seconds=_DEFECT_DELAY)
                return True
            if outcome in {"sent", "rejected"}:
                self._breaker.succeeded()
            await outbox.done(DISPATCH_GROUP, event)
        except StoreUnavailableError:
            return False
        self._metrics.dispatches.labels(event.kind, outcome).inc()
        log.debug("Event settled", extra=_fields(event) | {"outcome": outcome})
        return True

    async def _put_off(self, outbox: Outbox, event: OutboxEvent, reason: str) -> None:
        self._breaker.failed()
        if event.kind == "submitted" and worth_logging(event.tries):
            await self._dispatcher.note_waiting(event, reason)
        delay = backoff_seconds(event.tries)
        await outbox.defer(DISPATCH_GROUP, event, delay_seconds=delay)
        self._metrics.dispatches.labels(event.kind, "deferred").inc()
        log.warning(
            "Event put off", extra=_fields(event) | {"reason": reason, "delay": round(delay, 1)}
        )

    async def _housekeeping(self) -> None:
        """One turn of the sweeper: purge what expired, trim the outbox now and then."""
        managed = await self._provider.get_managed()
        purged = await managed.sweep(_SWEEP_LIMIT, turn_seconds=_SWEEP_SECONDS)
        self._metrics.purged.inc(purged)
        if time.monotonic() >= self._next_trim:
            self._next_trim = time.monotonic() + _TRIM_SECONDS
            await (await self._provider.get_outbox()).trim()
        await asyncio.sleep(_SWEEP_SECONDS)


def _fields(event: OutboxEvent) -> dict[str, object]:
    return {
        "action": f"dispatch.{event.kind}",
        "task_id": event.task_id,
        "service": event.service,
        "user_id": event.user_id,
        "tries": event.tries,
    }
