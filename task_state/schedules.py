"""Stored schedules: what they are, and the scripts by which their slots become tasks.

Not the cron expressions, which `app.scheduler` reads: the caller says which slots are due, and with
which parameters. Everything here is safe to be called by any number of replicas at the same time:
a slot becomes one task at most, because its schedule's cursor is compared and moved in the step
that creates the task, whose id is `s.<schedule>.<slot>`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from task_state._schedule_codec import (
    check_reason,
    check_schedule_id,
    decode_fire,
    decode_schedule,
    encode_parameters,
    refused,
    slot_arguments,
    spec_fields,
    stamp,
)
from task_state._schedule_models import (
    MAX_BUFFERED,
    MAX_FIRES,
    MAX_PARAMETERS_BYTES,
    MAX_SLOT_TASKS,
    SCHEDULE_PATTERN,
    Changed,
    Coalesce,
    Fire,
    FireKind,
    FireOutcome,
    MissedSlots,
    Overlap,
    SchedulePage,
    ScheduleRecord,
    ScheduleSpec,
    Settled,
    SettledState,
    SlotTask,
    Source,
)
from task_state._store import Argument, Store
from task_state.errors import InvalidRequestError, ScheduleUnreadableError
from task_state.log_entry import format_log_entry
from task_state.models import JsonObject

__all__ = [
    "MAX_BUFFERED",
    "MAX_FIRES",
    "MAX_PARAMETERS_BYTES",
    "MAX_SLOT_TASKS",
    "SCHEDULE_PATTERN",
    "Changed",
    "Coalesce",
    "Fire",
    "FireKind",
    "FireOutcome",
    "MissedSlots",
    "Overlap",
    "SchedulePage",
    "ScheduleRecord",
    "ScheduleSpec",
    "Schedules",
    "Settled",
    "SettledState",
    "SlotTask",
    "Source",
]

IDEMPOTENCY_MS: Final = 24 * 3_600_000
MAX_SCHEDULES: Final = 200
MAX_CHANGED: Final = 1000
MAX_DELETED: Final = 1000
# The mark of `changed` holds two numbers of the store, each below 2 ** 53.
_MARK: Final = 2**53


class Schedules:
    """The schedules of a store. Raises StoreUnavailableError like the repository, and
    InvalidRequestError for names and values that mean nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(
        self,
        schedule_id: str,
        spec: ScheduleSpec,
        *,
        source: Source = "api",
        paused: bool = False,
        reason: str | None = None,
    ) -> ScheduleRecord:
        """Store a new schedule, whose slots count from now on; raises ScheduleExistsError."""
        flag, why = "1" if paused else "", check_reason(reason) if paused else ""
        return await self._change("create", schedule_id, source, flag, why, *spec_fields(spec))

    async def get(self, schedule_id: str) -> ScheduleRecord | None:
        """The schedule, None if there is none. Raises ScheduleUnreadableError for one that only a
        newer version of DMS can read."""
        check_schedule_id(schedule_id)
        row = await self._store.read("schedule_get", schedule_id, fresh=True)
        return decode_schedule(row) if row else None

    async def page(self, *, after: str | None = None, limit: int = 50) -> SchedulePage:
        """At most `limit` schedules (1 to 200) whose ids come after `after`, by the bytes of their
        ids."""
        _check_limit(limit, MAX_SCHEDULES)
        if after:
            check_schedule_id(after)
        rows, following = await self._store.read("schedule_page", after or "", limit)
        records, unreadable = _readable(rows)
        return SchedulePage(records, unreadable, following.decode() or None)

    async def replace(
        self,
        schedule_id: str,
        spec: ScheduleSpec,
        *,
        revision: int,
        cursor: int,
        before: float | None,
    ) -> ScheduleRecord:
        """Give the schedule another spec, whose slots count from now on.

        Only if it is at that `revision` and `cursor`, and Redis' time (seconds since 1970) has not
        reached `before`, the next due time by the old spec: so an edit drops nothing that was due.
        Else it raises ScheduleConflictError: settle what is due by the old spec, and repeat.
        """
        due = "" if before is None else int(before * 1_000_000)
        fields = spec_fields(spec)
        return await self._change("replace", schedule_id, revision, cursor, due, *fields)

    async def pause(
        self, schedule_id: str, reason: str | None = None, *, revision: int | None = None
    ) -> ScheduleRecord:
        """Let no slot fire; what waits goes on waiting. With `revision`, only if that is the one
        that it has: else raises ScheduleConflictError. Raises ScheduleNotFoundError."""
        known = "" if revision is None else revision
        return await self._change("pause", schedule_id, "1", check_reason(reason), known)

    async def resume(self, schedule_id: str) -> ScheduleRecord:
        """End a pause, whose slots are not made up; harmless for one that is not paused."""
        return await self._change("pause", schedule_id, "", "", "")

    async def delete(self, schedule_id: str) -> bool:
        """Remove the schedule, its history and what waits; its tasks go on. False: none such."""
        check_schedule_id(schedule_id)
        return await self._store.write("schedule_delete", schedule_id, MAX_DELETED) == 1

    async def settle(
        self,
        schedule_id: str,
        *,
        revision: int,
        cursor: int,
        new_cursor: int,
        tasks: Sequence[SlotTask],
        missed: MissedSlots | Sequence[int] | int = (),
    ) -> Settled:
        """Decide all slots after `cursor` up to `new_cursor`, in one step: `tasks` fire as the
        overlap policy says, oldest first, and `missed` (a stretch of slots, each of them, or only
        how many) do not."""
        check_schedule_id(schedule_id)
        for slot in [new_cursor, *(task.slot for task in tasks)]:
            if not cursor <= slot <= new_cursor:
                raise InvalidRequestError(f"slot {slot} is not within {cursor} to {new_cursor}")
        slots = slot_arguments(schedule_id, tasks)
        reply = await self._store.write(
            "schedule_settle",
            schedule_id,
            revision,
            cursor,
            new_cursor,
            stamp(),
            *_missed(missed),
            *slots,
        )
        state, now_revision, now_cursor, fires = cast("tuple[bytes, int, int, list[bytes]]", reply)
        return Settled(
            state=cast("SettledState", state.decode()),
            revision=now_revision,
            cursor=now_cursor,
            fires=[decode_fire(fire) for fire in fires],
        )

    async def run(
        self, schedule_id: str, parameters: JsonObject, *, idempotency_key: str | None = None
    ) -> Fire:
        """Start a task by hand, also while paused or while others run. The same key (per schedule,
        for 24 hours) answers the first run again, as "existing". Raises ServiceDrainingError."""
        check_schedule_id(schedule_id)
        key = (idempotency_key or "").encode("utf-8", "backslashreplace")
        reply = await self._store.write(
            "schedule_run",
            schedule_id,
            hashlib.sha256(key).hexdigest() if key else "",
            IDEMPOTENCY_MS,
            format_log_entry(f"Submitted by schedule {schedule_id}, run by hand"),
            encode_parameters(parameters, 4 * MAX_PARAMETERS_BYTES),
        )
        refused(schedule_id, reply)
        return decode_fire(reply)

    async def backfill(
        self, schedule_id: str, tasks: Sequence[SlotTask], *, overlap: Overlap
    ) -> list[Fire]:
        """Make up slots of the past, also while paused, as the `overlap` policy says. One that has
        its task already, or waits for others, is "existing". Raises ServiceDrainingError."""
        check_schedule_id(schedule_id)
        slots = slot_arguments(schedule_id, tasks)
        if not slots:
            return []
        reply = await self._store.write("schedule_backfill", schedule_id, overlap, stamp(), *slots)
        refused(schedule_id, reply)
        return [decode_fire(fire) for fire in reply]

    async def release(self, limit: int = 100) -> list[Fire]:
        """Start slots whose wait is over, of at most `limit` schedules; any replica may call it."""
        return [
            decode_fire(fire) for fire in await self._store.write("schedule_release", "", limit)
        ]

    async def changed(self, since: int = 0, *, limit: int = 200) -> Changed:
        """What changed since that `version` of an answer, 0 for everything; cheap where nothing
        did. At most `limit` (1 to 1000) schedules come in one answer."""
        _check_limit(limit, MAX_CHANGED)
        forgotten, at = divmod(max(since, 0), _MARK)
        reply = await self._store.read("schedule_changed", at, forgotten, limit, fresh=True)
        at, forgotten, now_us, reset, more, rows = reply
        records, unreadable = _readable(row for row in rows if len(row) > 1)
        return Changed(
            version=int(forgotten) * _MARK + int(at),
            now=int(now_us) / 1_000_000,
            records=records,
            deleted=[row[0].decode() for row in rows if len(row) == 1],
            reset=reset == 1,
            more=more == 1,
            unreadable=unreadable,
        )

    async def now(self) -> float:
        """The time of Redis in seconds since 1970: what schedules go by, however wrong the clock of
        this machine is."""
        return await self._store.time_us() / 1_000_000

    async def fires(
        self, schedule_id: str, *, limit: int = 50, before: int | None = None
    ) -> list[Fire]:
        """The history, newest first: at most `limit` (1 to 1000) entries, of those whose number is
        below `before`. Raises ScheduleNotFoundError."""
        check_schedule_id(schedule_id)
        _check_limit(limit, MAX_FIRES)
        start = "" if before is None else before
        reply = await self._store.read("schedule_fires", schedule_id, start, limit, fresh=True)
        refused(schedule_id, reply)
        return [decode_fire(fire) for fire in reply]

    async def _change(self, script: str, schedule_id: str, *arguments: Argument) -> ScheduleRecord:
        check_schedule_id(schedule_id)
        reply = await self._store.write(f"schedule_{script}", schedule_id, *arguments)
        refused(schedule_id, reply)
        return decode_schedule(reply)


def _check_limit(limit: int, most: int) -> None:
    if not 1 <= limit <= most:
        raise InvalidRequestError(f"limit={limit}: give 1 to {most}")


def _missed(missed: MissedSlots | Sequence[int] | int) -> list[Argument]:
    """How many, the first and the last one."""
    if isinstance(missed, MissedSlots):
        return [missed.count, missed.first, missed.last]
    if isinstance(missed, int):
        return [max(missed, 0), "", ""]
    return [len(missed), min(missed), max(missed)] if missed else [0, "", ""]


def _readable(rows: Iterable[Any]) -> tuple[list[ScheduleRecord], list[str]]:
    """The schedules, and the names of those that this version cannot read: they must not hide the
    others."""
    found: list[ScheduleRecord] = []
    unreadable: list[str] = []
    for row in rows:
        try:
            found.append(decode_schedule(row))
        except ScheduleUnreadableError as error:
            unreadable.append(error.schedule_id)
    return found, unreadable
