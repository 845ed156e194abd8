"""Stored schedules: created, changed, run by hand, made up for. Not triggers, which publish events.

What fires them at their times is `dms_scheduler.schedule_runner`.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from math import floor
from typing import Any, Final

from app.core.errors import BadInputError, ScheduleFromFileError
from app.services.deadline import store_deadline
from app.services.schedules_backfill import Range
from app.services.schedules_edit import replaced
from app.services.schedules_plan import SchedulePlan
from app.services.schedules_views import (
    Backfill,
    Preview,
    ScheduleList,
    ScheduleView,
    preview_of,
    read_spec,
    view_of,
)
from task_state.errors import ScheduleConflictError, ScheduleNotFoundError
from task_state.redis import RedisRepositoryProvider
from task_state.schedules import (
    Fire,
    Overlap,
    ScheduleRecord,
    Schedules,
    ScheduleSpec,
    Source,
)
from task_state.timezone import now

log = logging.getLogger(__name__)

MAX_PREVIEW: Final = 100
_EDITS: Final = 50


class ScheduleService:
    """What may be done with schedules. Raises task_state's errors, and InvalidScheduleError for a
    spec that means nothing. Times that have no zone are meant in the schedule's."""

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        *,
        timeout_seconds: float,
        default_timezone: str,
    ) -> None:
        self._provider = provider
        self._timeout = timeout_seconds
        self._default_timezone = default_timezone

    def read(self, values: Mapping[str, Any]) -> ScheduleSpec:
        """A spec out of what a person wrote; without a time zone it has DMS's own."""
        return read_spec(values, self._default_timezone)

    def preview(
        self,
        spec: ScheduleSpec,
        *,
        schedule_id: str = "preview",
        count: int = 5,
        after: datetime | None = None,
    ) -> Preview:
        """What a spec means: the expression in words, and the next fires after a time (now) with
        the parameters of their tasks. Nothing is stored."""
        if not 1 <= count <= MAX_PREVIEW:
            raise BadInputError(f"count is {count}: give 1 to {MAX_PREVIEW}")
        plan = SchedulePlan.of(schedule_id, spec)
        start = now() if after is None else plan.aware(after)
        return preview_of(plan, spec, start.timestamp(), count)

    # -------------------------------------------------------------------------------------- reading
    async def get(self, schedule_id: str) -> ScheduleView:
        """One schedule; raises ScheduleNotFoundError."""
        async with store_deadline(self._timeout):
            record = await _load(await self._provider.get_schedules(), schedule_id)
        return view_of(record, now().timestamp())

    async def list(self, *, after: str | None = None, limit: int = 50) -> ScheduleList:
        """Schedules by name, those after `after`."""
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            page = await schedules.page(after=after, limit=limit)
        moment = now().timestamp()
        views = [view_of(record, moment) for record in page.records]
        return ScheduleList(views, page.unreadable, page.next_after)

    async def fires(
        self, schedule_id: str, *, limit: int = 50, before: int | None = None
    ) -> "list[Fire]":
        """What became of its slots, newest first; `before` is the number of an entry."""
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            return await schedules.fires(schedule_id, limit=limit, before=before)

    # ------------------------------------------------------------------------------------- changing
    async def create(
        self,
        schedule_id: str,
        spec: ScheduleSpec,
        *,
        source: Source = "api",
        paused: bool = False,
        reason: str | None = None,
    ) -> ScheduleView:
        """Store a new schedule; its slots count from now on. Raises ScheduleExistsError."""
        check_schedule(schedule_id, spec)
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            record = await schedules.create(
                schedule_id, spec, source=source, paused=paused, reason=reason
            )
        return _changed("create", record)

    async def replace(
        self, schedule_id: str, spec: ScheduleSpec, *, revision: int | None = None
    ) -> ScheduleView:
        """Give a schedule another spec, which says what fires from now on.

        What is due by the old one fires by the old one, first. With `revision`, only if that is
        the one that the schedule has: else, or when others change it all the time, raises
        ScheduleConflictError. Raises ScheduleOwesError while something is due and its service
        takes no tasks.
        """
        check_schedule(schedule_id, spec)
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            for _ in range(_EDITS):
                record = await _load(schedules, schedule_id)
                if revision is not None and record.revision != revision:
                    break
                if (edited := await replaced(schedules, record, spec)) is not None:
                    return _changed("replace", edited)
        raise ScheduleConflictError(schedule_id)

    async def changed(
        self, schedule_id: str, changes: Mapping[str, Any], revision: int | None = None
    ) -> tuple[ScheduleSpec, int]:
        """The spec with these fields changed (None sets one to its default), and the revision that
        `replace` is to expect. Raises ScheduleFromFileError."""
        async with store_deadline(self._timeout):
            record = await _load_own(await self._provider.get_schedules(), schedule_id)
        values = {**record.spec.model_dump(), **changes}
        spec = self.read({name: value for name, value in values.items() if value is not None})
        return spec, record.revision if revision is None else revision

    async def pause(self, schedule_id: str, reason: str | None = None) -> ScheduleView:
        """Let nothing fire from now on, not even what is due already."""
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            return _changed("pause", await schedules.pause(schedule_id, reason))

    async def resume(self, schedule_id: str) -> ScheduleView:
        """End a pause. Its slots are not made up: `backfill` does that."""
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            return _changed("resume", await schedules.resume(schedule_id))

    async def delete(self, schedule_id: str, *, source: Source = "api") -> None:
        """Remove a schedule with its history; its tasks stay, and go on. What a file made, only
        the file (`source`) removes: else it raises ScheduleFromFileError."""
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            if source == "api":
                await _load_own(schedules, schedule_id)
            if not await schedules.delete(schedule_id):
                raise ScheduleNotFoundError(schedule_id)
        log.info(
            "Schedule deleted", extra={"action": "schedule.delete", "schedule_id": schedule_id}
        )

    # --------------------------------------------------------------------------------------- firing
    async def run(self, schedule_id: str, *, idempotency_key: str | None = None) -> Fire:
        """Start a task by hand, now, whatever runs already, and also while paused. Templates are
        filled in as if this moment were the slot."""
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            record = await _load(schedules, schedule_id)
            plan = SchedulePlan.of(schedule_id, record.spec)
            parameters = plan.parameters(floor(await schedules.now()))
            return await schedules.run(schedule_id, parameters, idempotency_key=idempotency_key)

    async def backfill(
        self,
        schedule_id: str,
        start: datetime,
        end: datetime | None,
        *,
        overlap: Overlap = Overlap.BUFFER_ALL,
        dry_run: bool = False,
    ) -> Backfill:
        """Make up the slots from `start` to before `end` (now), by the spec as it is, 1000 at most;
        with `dry_run` only say what would happen. A slot that has its task already is left alone,
        so repeating it is safe. Each call to the store has its own time-out."""
        async with store_deadline(self._timeout):
            schedules = await self._provider.get_schedules()
            record = await _load(schedules, schedule_id)
            moment = await schedules.now()
        plan = SchedulePlan.of(schedule_id, record.spec)
        until = datetime.fromtimestamp(moment, plan.zone) if end is None else end
        found = Range(plan, start, until, moment)
        if dry_run:
            fires = await found.preview(self._provider, self._timeout)
        else:
            fires = await found.make_up(self._provider, self._timeout, overlap)
        return Backfill(dry_run, fires)


async def _load(schedules: Schedules, schedule_id: str) -> ScheduleRecord:
    record = await schedules.get(schedule_id)
    if record is None:
        raise ScheduleNotFoundError(schedule_id)
    return record


async def _load_own(schedules: Schedules, schedule_id: str) -> ScheduleRecord:
    """A schedule that may be changed here: at the next start the file would undo it."""
    record = await _load(schedules, schedule_id)
    if record.source == "file":
        raise ScheduleFromFileError(schedule_id)
    return record


def check_schedule(schedule_id: str, spec: ScheduleSpec) -> None:
    """Try what the runner will do with it; raises InvalidScheduleError."""
    preview_of(SchedulePlan.of(schedule_id, spec), spec, now().timestamp(), 1)


def _changed(action: str, record: ScheduleRecord) -> ScheduleView:
    log.info(
        "Schedule changed",
        extra={
            "action": f"schedule.{action}",
            "schedule_id": record.schedule_id,
            "revision": record.revision,
        },
    )
    return view_of(record, now().timestamp())
