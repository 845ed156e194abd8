"""What a stored schedule means: read once, then asked which slots it owes. No clock, no store.

Not a trigger, which is `app.scheduler`'s: a plan publishes nothing, it says what `settle` of
`task_state.schedules` is to be called with.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from math import ceil, floor
from typing import Any, Final, TypeVar, cast, get_args

from app.core.errors import FieldProblem, InvalidScheduleError
from app.scheduler import CronError, CronExpression, DstPolicy, FirePolicy, TriggerConfigError
from app.scheduler.domain.errors import TemplateError
from app.scheduler.domain.slots import due_at, first_slot, look
from app.scheduler.domain.templates import Occasion, Template
from app.scheduler.infrastructure.cron_trigger import find_zone
from task_state.schedules import MAX_PARAMETERS_BYTES, MissedSlots, ScheduleSpec, SlotTask

_T = TypeVar("_T")
_OF_THIS_MACHINE: Final = frozenset({"Factory", "localtime", "posixrules"})
_AROUND: Final = frozenset({"previous", "next"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What a schedule owes: all slots after its cursor up to `new_cursor` are decided by firing
    `slots`, oldest first, and by missing all others."""

    new_cursor: int
    slots: list[int]
    missed: MissedSlots | None

    @property
    def missed_count(self) -> int:
        """How many do not fire."""
        return 0 if self.missed is None else self.missed.count


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """A schedule's spec, understood. Times are seconds since 1970 UTC, slots and cursors whole."""

    schedule_id: str
    expression: CronExpression
    zone: tzinfo
    policy: FirePolicy
    template: Template

    @classmethod
    def of(cls, schedule_id: str, spec: ScheduleSpec) -> "SchedulePlan":
        """Raises InvalidScheduleError, which names each field that means nothing."""
        problems: list[FieldProblem] = []
        dst_policy = _dst_policy(spec, problems)
        expression = _tried(
            problems, "cron", lambda: CronExpression.parse(spec.cron, dst_policy=dst_policy)
        )
        zone = _tried(problems, "timezone", lambda: _zone(spec.timezone))
        policy = _tried(problems, "policy", lambda: _policy(spec))
        template = _tried(problems, "parameters", lambda: Template(spec.parameters))
        if expression is None or zone is None or policy is None or template is None or problems:
            raise InvalidScheduleError(problems)
        return cls(schedule_id, expression, zone, policy, template)

    def without_jitter(self) -> "SchedulePlan":
        """The same, each slot being due at its own time."""
        return replace(self, policy=replace(self.policy, jitter=0.0))

    def aware(self, moment: datetime) -> datetime:
        """The time; one without a zone is meant in the schedule's."""
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=self.zone)

    def due(self, slot: int) -> float:
        """When the slot is to fire: its own time, and the jitter."""
        try:
            return due_at(self.expression, self.zone, self.policy, self.schedule_id, slot)
        except CronError:  # there is no next slot in the years that are computed
            return slot

    def next_due(self, cursor: int) -> float | None:
        """When the first slot after the cursor is due; None: there is none any more."""
        slot = first_slot(self.expression, self.zone, self.policy, cursor)
        return None if slot is None else self.due(slot)

    def following(self, after: float, count: int) -> list[int]:
        """The next `count` slots after a time, fewer where it ends."""
        slots: list[int] = []
        at: float | None = after
        while len(slots) < count:
            at = first_slot(self.expression, self.zone, self.policy, at)
            if at is None:
                break
            slots.append(at)
        return slots

    def count(self, after: int, upto: int) -> int:
        """How many slots there are after `after` up to `upto`."""
        policy = self.policy
        if policy.start is not None:
            after = max(after, ceil(policy.start.timestamp()) - 1)
        if policy.end is not None:
            upto = min(upto, ceil(policy.end.timestamp()) - 1)
        return self.expression.count(after, upto, self.zone) if after < upto else 0

    def owed(self, cursor: int, now: float) -> Owed | None:
        """What is due at `now` and not settled; None: nothing."""
        slot = first_slot(self.expression, self.zone, self.policy, cursor)
        if slot is None or now < self.due(slot):
            return None
        found = look(self.expression, self.zone, self.policy, self.schedule_id, slot, now)
        # Where there is jitter, the next slot may have come without being due.
        ends = floor(now) if found.following is None else min(floor(now), found.following - 1)
        missed = self._missed(cursor, ends, found.fires) if found.skipped else None
        return Owed(new_cursor=ends, slots=found.fires, missed=missed)

    def _missed(self, cursor: int, ends: int, fires: Sequence[int]) -> MissedSlots | None:
        """The slots after the cursor up to `ends` that do not fire: those before the ones that do,
        or after the one where the earliest alone does."""
        first, after = self.following(cursor, 1), cursor
        if fires and fires[0] == first[0]:
            after, first = fires[-1], self.following(fires[-1], 1)
        elif fires:
            ends = fires[0] - 1
        count = self.count(after, ends)
        if not count:
            return None
        before = ends + 1
        if self.policy.end is not None:
            before = min(before, ceil(self.policy.end.timestamp()))
        return MissedSlots(count, first[0], self.expression.previous_epoch(before, self.zone))

    def parameters(self, slot: int) -> dict[str, Any]:
        """The parameters of the slot's task. Raises InvalidScheduleError where its times leave the
        years that are computed."""
        previous = following = slot
        try:
            if self.template.names & _AROUND:  # else nobody asks
                previous = self.expression.previous_epoch(slot, self.zone)
                following = self.expression.next_epoch(slot, self.zone)
            occasion = Occasion(self.schedule_id, self.zone, slot, previous, following)
            return self.template.fill(occasion)
        except (CronError, TemplateError) as error:
            problem = error.problem if isinstance(error, TemplateError) else str(error)
            raise InvalidScheduleError([FieldProblem("parameters", problem)]) from error

    def tasks(self, slots: Sequence[int]) -> list[SlotTask]:
        """The slots with the parameters of their tasks; raises as `parameters`."""
        return [SlotTask(slot, self.parameters(slot)) for slot in slots]


def check_size(parameters: dict[str, Any]) -> None:
    """Raises InvalidScheduleError for more than a task of a schedule may be given."""
    text = json.dumps(parameters, ensure_ascii=False, separators=(",", ":"))
    size, most = len(text.encode("utf-8", "surrogatepass")), 4 * MAX_PARAMETERS_BYTES
    if size > most:
        problem = f"filled in they are {size} bytes of JSON, more than {most}: make them shorter"
        raise InvalidScheduleError([FieldProblem("parameters", problem)])


def _tried(problems: list[FieldProblem], field: str, make: Callable[[], _T]) -> _T | None:
    try:
        return make()
    except TemplateError as error:
        problems.append(FieldProblem(error.place, error.problem))
    except (CronError, TriggerConfigError) as error:
        problems.append(FieldProblem(field, str(error)))
    return None


def _zone(name: str) -> tzinfo:
    if name in _OF_THIS_MACHINE:
        raise TriggerConfigError(
            f"timezone {name!r} is another one on each machine: give a name such as 'Asia/Seoul'"
        )
    return find_zone(name)


def _dst_policy(spec: ScheduleSpec, problems: list[FieldProblem]) -> DstPolicy:
    known = get_args(DstPolicy)
    if spec.dst_policy is None or spec.dst_policy in known:
        return cast("DstPolicy", spec.dst_policy or "once")
    problems.append(
        FieldProblem("dst_policy", f"{spec.dst_policy!r} is none of {', '.join(known)}")
    )
    return "once"


def _policy(spec: ScheduleSpec) -> FirePolicy:
    return FirePolicy(
        grace=spec.grace_seconds,
        coalesce=spec.coalesce,
        max_catchup=spec.max_catchup,
        jitter=spec.jitter_seconds,
        start=spec.start_at,
        end=spec.end_at,
    )
