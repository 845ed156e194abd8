"""The scheduler of triggers: publishes their events. It runs no task: that is `dms_scheduler`."""

import asyncio
import logging
from functools import partial

from app.event_system import (
    BrokerUnavailableError,
    EventBase,
    EventSystemError,
    PublisherPort,
    QueueFullError,
    check_topic,
)
from app.event_system.domain.events import E
from app.scheduler.domain.clock import Clock
from app.scheduler.domain.errors import DuplicateTriggerError, UnknownTriggerError
from app.scheduler.domain.scheduler_port import SchedulerPort
from app.scheduler.domain.trigger_port import TriggerPort
from app.scheduler.infrastructure._making import reason
from app.scheduler.infrastructure._system_clock import SYSTEM_CLOCK
from app.scheduler.infrastructure._timetable import Timetable
from app.scheduler.infrastructure.cron_trigger import CronTrigger

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_RESTART_PAUSE, _LONGEST_RESTART_PAUSE = 1.0, 60.0


class Scheduler(SchedulerPort):
    """Publishes by one publisher, which its caller closes afterwards.

    `repeat_seconds`: how long an event is published again while the broker is away or full.
    `drain_seconds`: how long stopping waits for what a trigger has emitted; then it is cancelled.
    """

    def __init__(
        self,
        publisher: PublisherPort,
        *,
        repeat_seconds: float = 30.0,
        drain_seconds: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._publisher = publisher
        self._repeat_seconds = repeat_seconds
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._triggers: dict[str, tuple[TriggerPort[EventBase], str]] = {}
        self._known: set[int] = set()  # the identities of the triggers
        self._renamed: set[str] = set()  # of these it was logged that their topic is replaced
        self._timetable = Timetable(self._fire, clock)
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._running = False
        self._changing = asyncio.Lock()

    async def register_trigger(self, trigger_id: str, trigger: TriggerPort[E], topic: str) -> None:
        check_topic(topic)
        async with self._changing:
            self._check_new(trigger_id, trigger)
            if isinstance(trigger, CronTrigger):
                trigger.use(trigger_id, self._clock)
            self._triggers[trigger_id] = trigger, topic
            self._known.add(id(trigger))
            if self._running:
                try:
                    await self._begin(trigger_id)
                except BaseException:
                    self._forget(trigger_id)
                    raise

    async def unregister_trigger(self, trigger_id: str) -> None:
        async with self._changing:
            if trigger_id not in self._triggers:
                raise UnknownTriggerError(
                    f"no trigger is registered as {trigger_id!r}: get_registered_triggers() has all"
                )
            try:
                await self._end(trigger_id)
            finally:
                self._forget(trigger_id)

    async def start(self) -> None:
        async with self._changing:
            if self._running:
                return
            self._running = True
            try:
                for trigger_id in self._triggers:
                    await self._begin(trigger_id)
            except BaseException:
                await self._end_all()
                raise
            self._timetable.start()

    async def stop(self) -> None:
        async with self._changing:
            if self._running:
                await self._end_all()

    def get_registered_triggers(self) -> dict[str, tuple[TriggerPort[EventBase], str]]:
        return dict(self._triggers)

    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._running

    def _check_new(self, trigger_id: str, trigger: TriggerPort[EventBase]) -> None:
        if trigger_id in self._triggers:
            raise DuplicateTriggerError(
                f"a trigger is registered as {trigger_id!r} already: unregister it first, or give "
                "another id"
            )
        if id(trigger) in self._known:
            raise DuplicateTriggerError(
                f"the trigger for {trigger_id!r} is registered already, by another id: make another"
            )

    def _forget(self, trigger_id: str) -> None:
        trigger, _ = self._triggers.pop(trigger_id)
        self._known.discard(id(trigger))
        self._renamed.discard(trigger_id)

    async def _begin(self, trigger_id: str) -> None:
        trigger, topic = self._triggers[trigger_id]
        await trigger.start()
        if isinstance(trigger, CronTrigger):
            if (at := trigger.due_at()) is not None:
                self._timetable.put(trigger_id, at)
        else:
            run = self._run(trigger_id, trigger, topic)
            self._runs[trigger_id] = asyncio.create_task(run, name=f"trigger {trigger_id}")

    async def _end(self, trigger_id: str) -> None:
        trigger, _ = self._triggers[trigger_id]
        try:
            await trigger.stop()
        finally:
            await self._timetable.drop(trigger_id, self._drain_seconds)
            if (run := self._runs.pop(trigger_id, None)) is not None:
                await self._join([run])

    async def _end_all(self) -> None:
        self._running = False
        triggers = [trigger for trigger, _ in self._triggers.values()]
        timed = [trigger for trigger in triggers if isinstance(trigger, CronTrigger)]
        for trigger in timed:
            await trigger.stop()
        others = [trigger.stop() for trigger in triggers if not isinstance(trigger, CronTrigger)]
        try:
            await self._timetable.stop(self._drain_seconds)
            failures = await asyncio.gather(*others, return_exceptions=True)
        finally:
            runs = list(self._runs.values())
            self._runs.clear()
            await self._join(runs)
        for failure in failures:
            if isinstance(failure, Exception):
                log.error(
                    "A trigger could not be stopped",
                    exc_info=failure,
                    extra={"action": "trigger.stop", "reason": reason(failure)},
                )

    async def _join(self, runs: list[asyncio.Task[None]]) -> None:
        others = [run for run in runs if run is not asyncio.current_task()]
        if not others:
            return
        _, late = await asyncio.wait(others, timeout=self._drain_seconds)
        for run in late:
            run.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _fire(self, trigger_id: str, now: float) -> float | None:
        """Serve a cron trigger; answers when it wants to be served again."""
        trigger, topic = self._triggers.get(trigger_id, (None, ""))
        if not isinstance(trigger, CronTrigger):
            return None
        return await trigger.fire(now, partial(self._publish, trigger_id, topic, repeats=True))

    async def _run(self, trigger_id: str, trigger: TriggerPort[EventBase], topic: str) -> None:
        """Let the trigger run until it ends; one that breaks runs again, after a pause."""
        publish = partial(self._publish, trigger_id, topic, repeats=trigger.repeats)
        pause = _RESTART_PAUSE
        while True:
            try:
                return await trigger.run(publish)
            except Exception:
                log.exception(
                    "A trigger broke, and runs again after a pause",
                    extra={"action": "trigger.broke", "trigger": trigger_id, "seconds": pause},
                )
            if not trigger.is_running():
                return None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_RESTART_PAUSE)

    async def _publish(
        self, trigger_id: str, topic: str, event: EventBase, *, repeats: bool
    ) -> None:
        if event.topic != topic and trigger_id not in self._renamed:
            self._log_topic(trigger_id, topic, event)
        try:
            try:
                await self._publisher.publish(topic, event)
            except (BrokerUnavailableError, QueueFullError):
                if not repeats:
                    raise
                await self._publish_again(topic, event)
        except EventSystemError as error:
            log.error(
                "An event of a trigger was not published",
                extra={
                    "action": "trigger.unpublished",
                    "trigger": trigger_id,
                    "topic": topic,
                    "event_id": event.event_id,
                    "reason": reason(error),
                },
            )
            raise

    async def _publish_again(self, topic: str, event: EventBase) -> None:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._repeat_seconds, _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._publisher.publish(topic, event)
            except (BrokerUnavailableError, QueueFullError):
                if loop.time() + pause > deadline:
                    raise
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _log_topic(self, trigger_id: str, topic: str, event: EventBase) -> None:
        self._renamed.add(trigger_id)
        log.warning(
            "A trigger's events name another topic than it is registered for, which is replaced",
            extra={
                "action": "trigger.topic",
                "trigger": trigger_id,
                "topic": topic,
                "named": event.topic,
                "event_id": event.event_id,
            },
        )
