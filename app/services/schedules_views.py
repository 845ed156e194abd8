"""Schedules as they are shown: with the next fires, the expression in words, and previews."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.core.errors import FieldProblem, InvalidScheduleError
from app.core.findings import told, unknown
from app.services.schedules_plan import SchedulePlan, check_size
from task_state.schedules import Fire, ScheduleRecord, ScheduleSpec

NEXT_FIRES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleView:
    """A schedule, when it fires next (jitter included, none while paused), and its expression in
    English words. `problem`: why what is stored cannot be understood, where that is so."""

    record: ScheduleRecord
    next_fires: list[datetime]
    words: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleList:
    """A page of schedules by name, as `SchedulePage` of the store."""

    views: list[ScheduleView]
    unreadable: list[str]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class PreviewedFire:
    """A slot to come, when it would fire, and the parameters of its task."""

    slot: datetime
    due: datetime
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a spec means, without anything being stored."""

    spec: ScheduleSpec
    words: str
    fires: list[PreviewedFire]


@dataclass(frozen=True, slots=True)
class Backfill:
    """What became of the slots of a range, oldest first; with `dry_run`, what would."""

    dry_run: bool
    fires: list[Fire]


def read_spec(values: Mapping[str, Any], default_timezone: str) -> ScheduleSpec:
    """A spec out of what a person wrote (JSON, a settings file). Raises InvalidScheduleError, which
    names each field that is missing, unknown or wrong."""
    timezone = values.get("timezone")
    try:
        return ScheduleSpec.model_validate(
            {**values, "timezone": default_timezone if timezone is None else timezone}
        )
    except ValidationError as error:
        raise InvalidScheduleError(_problems(error)) from None


def view_of(record: ScheduleRecord, now: float) -> ScheduleView:
    """How a schedule is shown at `now` (seconds since 1970)."""
    try:
        plan = SchedulePlan.of(record.schedule_id, record.spec)
    except InvalidScheduleError as error:
        return ScheduleView(record=record, next_fires=[], words="", problem=str(error))
    slots: list[int] = []
    if not record.paused:
        slots = plan.following(max(record.cursor, now), NEXT_FIRES)
    fires = [datetime.fromtimestamp(plan.due(slot), plan.zone) for slot in slots]
    return ScheduleView(record=record, next_fires=fires, words=plan.expression.describe())


def preview_of(plan: SchedulePlan, spec: ScheduleSpec, after: float, count: int) -> Preview:
    """The next `count` fires after a time. Raises InvalidScheduleError for parameters that become
    too long."""
    fires = [_previewed(plan, slot) for slot in plan.following(after, count)]
    return Preview(spec, plan.expression.describe(), fires)


def _previewed(plan: SchedulePlan, slot: int) -> PreviewedFire:
    parameters = plan.parameters(slot)
    check_size(parameters)
    return PreviewedFire(
        datetime.fromtimestamp(slot, plan.zone),
        datetime.fromtimestamp(plan.due(slot), plan.zone),
        parameters,
    )


def _problems(error: ValidationError) -> list[FieldProblem]:
    return [_problem(found) for found in error.errors(include_url=False)]


def _problem(found: ErrorDetails) -> FieldProblem:
    # What stands for the whole is what the model itself checks: that it starts before it ends.
    field = ".".join(map(str, found["loc"])) or "end_at"
    if found["type"] == "extra_forbidden":
        return FieldProblem(field, f"no such field: {unknown(field, ScheduleSpec.model_fields)}")
    return FieldProblem(field, told(found).removeprefix(f"{field} "))
