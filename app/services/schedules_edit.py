"""Giving a schedule another spec: what the old one owes is settled first."""

from app.core.errors import InvalidScheduleError, ScheduleOwesError
from app.services.schedules_plan import Owed, SchedulePlan
from task_state.errors import InvalidRequestError, ScheduleConflictError
from task_state.schedules import ScheduleRecord, Schedules, ScheduleSpec


async def replaced(
    schedules: Schedules, record: ScheduleRecord, spec: ScheduleSpec
) -> ScheduleRecord | None:
    """The schedule with its new spec. None: something was settled first, by this or by others, and
    it is to be looked at again."""
    before: float | None = None
    if not record.paused and (old := _understood(record)) is not None:
        # Jitter delays a slot, and the new spec would not know of it: it fires now.
        old = old.without_jitter()
        owed = old.owed(record.cursor, await schedules.now())
        if owed is None:
            before = old.next_due(record.cursor)
        elif await _settle(schedules, record, old, owed):
            return None
    try:
        return await schedules.replace(
            record.schedule_id,
            spec,
            revision=record.revision,
            cursor=record.cursor,
            before=before,
        )
    except ScheduleConflictError:
        return None


async def _settle(
    schedules: Schedules, record: ScheduleRecord, plan: SchedulePlan, owed: Owed
) -> bool:
    """Whether it is to be looked at again; False when what is due can never become tasks."""
    try:
        settled = await schedules.settle(
            record.schedule_id,
            revision=record.revision,
            cursor=record.cursor,
            new_cursor=owed.new_cursor,
            tasks=plan.tasks(owed.slots),
            missed=owed.missed or (),
        )
    except (InvalidRequestError, InvalidScheduleError):
        return False
    if settled.state == "draining":
        raise ScheduleOwesError(
            f"slots of schedule {record.schedule_id!r} are due, and its service "
            f"{record.spec.service!r} is being drained: resume the service first; or give up what "
            "is due: pause the schedule, change it, and resume it"
        )
    return True


def _understood(record: ScheduleRecord) -> SchedulePlan | None:
    """The plan of what is stored; None where nothing can be due, for nobody understands it."""
    try:
        return SchedulePlan.of(record.schedule_id, record.spec)
    except InvalidScheduleError:
        return None
