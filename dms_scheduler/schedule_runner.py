"""Fires stored schedules at their times. Not `app.scheduler`, whose triggers publish events.

Any number of replicas run this, and none leads: the store lets each slot be settled once.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final

from app.core.errors import InvalidScheduleError
from app.scheduler.infrastructure import Timetable
from app.services.schedules_plan import Owed, SchedulePlan
from dms_scheduler.schedule_metrics import ScheduleMetrics, State
from dms_scheduler.store_clock import StoreClock
from task_state.errors import (
    InvalidRequestError,
    ScheduleConflictError,
    ScheduleNotFoundError,
    ScheduleUnreadableError,
    StoreUnavailableError,
)
from task_state.redis import RedisRepositoryProvider
from task_state.schedules import ScheduleRecord, Schedules, Settled

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.5
"""How often replicas look for edits: these take effect within a second."""
_PAGE: Final = 200
_RELEASED: Final = 100
_STOP_SECONDS: Final = 2.0
_AWAY_SECONDS: Final = (0.1, 1.0)
_EARLY_SECONDS: Final = 0.25
_DRAINING_SECONDS: Final = 2.0
_STUCK_SECONDS: Final = 1.0
_REASON: Final = 500


@dataclass(slots=True)
class _Known:
    """What this replica knows of a schedule; `plan` is None where nobody can tell what it means."""

    schedule_id: str
    service: str
    revision: int
    cursor: int
    paused: bool
    plan: SchedulePlan | None
    problem: str = ""


class ScheduleRunner:
    """Settles what is due, and lets slots go that waited for other tasks. An outage of the store is
    waited out; then each schedule's misfire policy decides."""

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        metrics: ScheduleMetrics,
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._provider = provider
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._clock = StoreClock()
        self._timetable = Timetable(self._serve, self._clock)
        self._known: dict[str, _Known] = {}
        self._unreadable: set[str] = set()
        self._busy: set[str] = set()
        self._drained: dict[str, float] = {}  # when a service that is being drained is tried again
        self._version = 0
        self._online = asyncio.Event()
        self._away = False
        metrics.watch(self._count)

    async def run(self) -> None:
        """Until cancelled."""
        self._timetable.start()
        pause = _AWAY_SECONDS[0]
        try:
            while True:
                try:
                    await self._round()
                    self._found()
                    pause = _AWAY_SECONDS[0]
                    await asyncio.sleep(self._poll_seconds)
                except StoreUnavailableError as error:
                    self._lost(error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _AWAY_SECONDS[1])
                except Exception:
                    # Without it no schedule fires any more, so a defect must not end it.
                    logger.exception("A round of schedules failed", extra={"action": "schedule"})
                    await asyncio.sleep(_AWAY_SECONDS[1])
        finally:
            await self._timetable.stop(_STOP_SECONDS)

    # ------------------------------------------------------------------------------------ following
    async def _round(self) -> None:
        schedules = await self._provider.get_schedules()
        more = True
        while more:
            more = await self._follow(schedules)
        while len(fires := await schedules.release(_RELEASED)) >= _RELEASED:
            self._metrics.released(fires)
        self._metrics.released(fires)

    async def _follow(self, schedules: Schedules) -> bool:
        """Take what changed; whether there is more."""
        asked = time.monotonic()
        changed = await schedules.changed(self._version, limit=_PAGE)
        self._clock.read(changed.now, asked, time.monotonic())
        if changed.reset:
            self._known.clear()  # what the timetable still has of them is void
        for schedule_id in changed.deleted:
            self._known.pop(schedule_id, None)
        for record in changed.records:
            self._take(record)
        for schedule_id in changed.unreadable:
            self._cannot_read(schedule_id)
        self._version = changed.version
        return changed.more

    def _cannot_read(self, schedule_id: str) -> None:
        """Another version of DMS wrote it, and fires it."""
        self._known.pop(schedule_id, None)
        if schedule_id not in self._unreadable:
            self._unreadable.add(schedule_id)
            logger.error(
                "A stored schedule cannot be read by this version, and does not fire here",
                extra={"action": "schedule.unreadable", "schedule_id": schedule_id},
            )

    def _take(self, record: ScheduleRecord) -> None:
        self._unreadable.discard(record.schedule_id)
        known = _known(record)
        self._known[record.schedule_id] = known
        if record.schedule_id not in self._busy:  # else it is put when it has been served
            due = self._due(known)
            if due is not None:
                self._timetable.put(record.schedule_id, due)

    def _due(self, known: _Known) -> float | None:
        if known.paused:
            return None
        if known.plan is None:  # to be set aside
            return self._clock.now()
        return known.plan.next_due(known.cursor)

    def _count(self, state: State) -> int:
        return sum(known.paused == (state == "paused") for known in self._known.values())

    # -------------------------------------------------------------------------------------- serving
    async def _serve(self, schedule_id: str, _: float) -> float | None:
        """Settle what a schedule owes; when it is to be served next, by what is known then."""
        self._busy.add(schedule_id)
        try:
            wait = await self._attend(schedule_id)
        finally:
            self._busy.discard(schedule_id)
        known = self._known.get(schedule_id)
        due = None if known is None else self._due(known)
        return due if due is None else max(due, self._clock.now() + wait)

    async def _attend(self, schedule_id: str) -> float:
        """Answers for how many seconds it is to be left alone at least."""
        await self._online.wait()
        known = self._known.get(schedule_id)
        if known is None or known.paused:
            return 0
        rest = self._drained.get(known.service, 0) - self._clock.now()
        if rest > 0:
            return rest
        try:
            schedules = await self._provider.get_schedules()
            if known.plan is None:
                return await self._set_aside(schedules, known, known.problem)
            return await self._settle(schedules, known, known.plan)
        except StoreUnavailableError as error:
            self._lost(error)
            return 0

    async def _settle(self, schedules: Schedules, known: _Known, plan: SchedulePlan) -> float:
        owed = plan.owed(known.cursor, self._clock.now())
        if owed is None:  # the store's clock was set back
            return 0
        try:
            settled = await schedules.settle(
                known.schedule_id,
                revision=known.revision,
                cursor=known.cursor,
                new_cursor=owed.new_cursor,
                tasks=plan.tasks(owed.slots),
                missed=owed.missed or (),
            )
        except (InvalidScheduleError, InvalidRequestError) as error:
            return await self._set_aside(schedules, known, str(error))
        if settled.state == "done":
            self._note(plan, owed, settled)
        return await self._heed(schedules, known, settled)

    async def _heed(self, schedules: Schedules, known: _Known, settled: Settled) -> float:
        match settled.state:
            case "done":
                known.cursor = settled.cursor
                return 0
            case "moved" if settled.revision == known.revision:  # another replica was quicker
                moved = settled.cursor != known.cursor
                known.cursor = settled.cursor
                return 0 if moved else _STUCK_SECONDS
            case "early":
                return _EARLY_SECONDS
            case "draining":
                self._drained[known.service] = self._clock.now() + _DRAINING_SECONDS
                return _DRAINING_SECONDS
            case "moved" | "paused" | "gone":
                await self._reload(schedules, known)
                return 0

    def _note(self, plan: SchedulePlan, owed: Owed, settled: Settled) -> None:
        self._metrics.settled(settled.fires, owed.missed_count, plan.due)
        if owed.missed_count:
            logger.warning(
                "Slots of a schedule were missed",
                extra={
                    "action": "schedule.misfire",
                    "schedule_id": plan.schedule_id,
                    "missed": owed.missed_count,
                    "fired": len(owed.slots),
                    "coalesce": plan.policy.coalesce,
                },
            )

    async def _reload(self, schedules: Schedules, known: _Known) -> None:
        """Take the record as it is now, unless what changed has come meanwhile: that is newer, or
        the next round brings what is."""
        try:
            record = await schedules.get(known.schedule_id)
        except ScheduleUnreadableError:
            self._cannot_read(known.schedule_id)
            return
        if self._known.get(known.schedule_id) is not known:
            return
        if record is None:
            del self._known[known.schedule_id]
        else:
            self._take(record)

    async def _set_aside(self, schedules: Schedules, known: _Known, problem: str) -> float:
        """Pause a schedule that can never fire as it is, so that somebody sees it; not one that was
        mended since this replica read it."""
        reason = f"it cannot fire: {problem}"[:_REASON]
        try:
            await schedules.pause(known.schedule_id, reason, revision=known.revision)
        except (ScheduleConflictError, ScheduleNotFoundError):  # others were quicker
            await self._reload(schedules, known)
            return 0
        known.paused = True
        logger.error(
            "A stored schedule means nothing, and is paused",
            extra={
                "action": "schedule.broken",
                "schedule_id": known.schedule_id,
                "problem": problem,
            },
        )
        return 0

    # -------------------------------------------------------------------------------------- outages
    def _lost(self, error: StoreUnavailableError) -> None:
        self._online.clear()
        if not self._away:
            logger.warning(
                "Schedules wait for the task store",
                extra={"action": "schedule.wait", "error": str(error)},
            )
        self._away = True

    def _found(self) -> None:
        self._online.set()
        if self._away:
            logger.info("Schedules go on", extra={"action": "schedule.resume"})
        self._away = False


def _known(record: ScheduleRecord) -> _Known:
    plan, problem = None, ""
    try:
        plan = SchedulePlan.of(record.schedule_id, record.spec)
    except InvalidScheduleError as error:
        problem = str(error)
    return _Known(
        record.schedule_id,
        record.spec.service,
        record.revision,
        record.cursor,
        record.paused,
        plan,
        problem,
    )
