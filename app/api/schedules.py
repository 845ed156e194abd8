"""How schedules look in the API: their bodies, as they come in and as they are shown."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from app.api.listing import Time, read_time
from app.api.parameters import MAX_REASON_CHARACTERS
from app.api.responses import JSON_MEDIA_TYPE
from app.services.schedules import MAX_PREVIEW
from app.services.schedules_views import Backfill, Preview, ScheduleView
from task_state.schedules import (
    SCHEDULE_PATTERN,
    Fire,
    FireKind,
    FireOutcome,
    Overlap,
    ScheduleSpec,
    Source,
)
from task_state.timezone import from_microseconds

RangeTime = Annotated[datetime, BeforeValidator(read_time)]


class ScheduleName(BaseModel):
    """What a creation says beside the schedule's fields."""

    model_config = ConfigDict(strict=True)

    schedule_id: str = Field(pattern=SCHEDULE_PATTERN, max_length=64)
    paused: bool = False
    reason: str | None = Field(None, max_length=MAX_REASON_CHARACTERS)


class ScheduleRevision(BaseModel):
    """What a change says beside the fields that it changes."""

    model_config = ConfigDict(strict=True)

    revision: int | None = Field(None, ge=1, le=2**53)


class PreviewCount(BaseModel):
    """What a preview says beside the schedule's fields."""

    model_config = ConfigDict(strict=True)

    schedule_id: str = Field("preview", pattern=SCHEDULE_PATTERN, max_length=64)
    count: int = Field(5, ge=1, le=MAX_PREVIEW)
    after: Time = None


class ScheduleShown(ScheduleSpec):
    """A schedule. Every slot up to `settled_until` is decided; `fired`, `missed` and `skipped`
    count slots, `failures` the tasks that FAILED since one COMPLETED. `active` are its oldest tasks
    that have not ended, of `active_count`; `buffered` the slots that wait for them. `words` says
    the expression in English; `problem`, why what is stored cannot fire, where that is so."""

    schedule_id: str
    source: Source
    revision: int
    created_at: datetime
    updated_at: datetime
    paused: bool
    paused_at: datetime | None
    reason: str | None
    settled_until: datetime
    fired: int
    missed: int
    skipped: int
    failures: int
    active: list[str]
    active_count: int
    buffered: list[datetime]
    next_fires: list[datetime]
    words: str
    problem: str | None

    @classmethod
    def of(cls, view: ScheduleView) -> "ScheduleShown":
        """What the service says of it."""
        record = view.record
        own = ("schedule_id", "source", "revision", "created_at", "updated_at", "paused",
               "paused_at", "reason", "fired", "missed", "skipped", "failures", "active",
               "active_count")  # fmt: skip
        return cls.model_construct(
            **dict(record.spec),
            **{name: getattr(record, name) for name in own},
            settled_until=_moment(record.cursor),
            buffered=[_moment(slot) for slot in record.buffered],
            next_fires=view.next_fires,
            words=view.words,
            problem=view.problem,
        )


class ScheduleAnswer(BaseModel):
    """One schedule."""

    schedule: ScheduleShown


class ScheduleList(BaseModel):
    """Schedules by name; `unreadable` are those that only a newer version of DMS can read.
    `next_cursor` is null on the last page."""

    schedules: list[ScheduleShown]
    unreadable: list[str]
    next_cursor: str | None


class ScheduleDeleted(BaseModel):
    """The schedule is gone; its tasks are not."""

    schedule_id: str
    deleted: bool = True


class FireShown(BaseModel):
    """What became of a slot, or of `count` slots in a row (`first` to `slot`). A run by hand has no
    slot. `outcome`: fired, buffered (waits for earlier tasks), skipped (an earlier task ran),
    missed (too late), existing (it had its task before)."""

    slot: datetime | None
    at: datetime
    kind: FireKind
    outcome: FireOutcome
    task_id: str | None
    reason: str | None
    count: int
    first: datetime | None
    number: int

    @classmethod
    def of(cls, fire: Fire) -> "FireShown":
        """The same, with times instead of numbers."""
        return cls(
            slot=None if fire.slot is None else _moment(fire.slot),
            at=fire.at,
            kind=fire.kind,
            outcome=fire.outcome,
            task_id=fire.task_id,
            reason=fire.reason,
            count=fire.count,
            first=None if fire.first is None else _moment(fire.first),
            number=fire.number,
        )


class FireList(BaseModel):
    """The history, newest first. `next_cursor` is null on the last page."""

    fires: list[FireShown]
    next_cursor: int | None


class FireAnswer(BaseModel):
    """What became of a run by hand: its task."""

    fire: FireShown


class PreviewedShown(BaseModel):
    """A fire to come: its slot, when it is due (jitter), and its task's parameters."""

    slot: datetime
    due: datetime
    parameters: dict[str, JsonValue]


class PreviewAnswer(BaseModel):
    """What a schedule means, and what it will do."""

    words: str
    timezone: str
    fires: list[PreviewedShown]

    @classmethod
    def of(cls, preview: Preview) -> "PreviewAnswer":
        """The same for people."""
        fires = [
            PreviewedShown.model_construct(slot=f.slot, due=f.due, parameters=f.parameters)
            for f in preview.fires
        ]
        return cls.model_construct(words=preview.words, timezone=preview.spec.timezone, fires=fires)


class BackfillRequest(BaseModel):
    """Which slots to make up: from `start` to before `end` (now). Times without an offset are in
    the schedule's zone. `dry_run` only tells."""

    model_config = ConfigDict(extra="forbid")

    start: RangeTime
    end: RangeTime | None = None
    overlap: Overlap = Overlap.BUFFER_ALL
    dry_run: bool = False


class BackfillAnswer(BaseModel):
    """What became of each slot, oldest first; with `dry_run`, what would."""

    dry_run: bool
    fires: list[FireShown]

    @classmethod
    def of(cls, backfill: Backfill) -> "BackfillAnswer":
        """The same for people."""
        return cls(dry_run=backfill.dry_run, fires=[FireShown.of(f) for f in backfill.fires])


def answer(
    body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The body as it writes itself: integers of any size in the parameters survive."""
    return Response(body.model_dump_json(), status, headers, JSON_MEDIA_TYPE)


def shown_schedule(
    view: ScheduleView, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """One schedule."""
    body = ScheduleAnswer.model_construct(schedule=ScheduleShown.of(view))
    return answer(body, status, headers)


def shown_fires(fires: Iterable[Fire], next_cursor: int | None) -> Response:
    """A page of the history."""
    return answer(FireList(fires=[FireShown.of(fire) for fire in fires], next_cursor=next_cursor))


def body_of(*models: type[BaseModel], required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body itself: the models' fields, side by side."""
    schema: dict[str, Any] = {"type": "object", "properties": {}, "$defs": {}}
    for model in models:
        of_model = model.model_json_schema()
        schema["properties"] |= of_model["properties"]
        schema["$defs"] |= of_model.get("$defs", {})
        if required:
            needed = set(schema.get("required", ())) | set(of_model.get("required", ()))
            schema["required"] = sorted(needed - {"timezone"})  # DMS's own is the default
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _moment(seconds: int) -> datetime:
    return from_microseconds(seconds * 1_000_000)
