"""What a stored schedule is and what became of its slots; not when it fires: that is above."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from task_state.models import JsonObject, Name

SCHEDULE_PATTERN: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
MAX_SLOT_TASKS: Final = 100
"""How many slots one call settles or makes up at most."""
MAX_BUFFERED: Final = 100
"""How many slots of a schedule wait for its tasks to end at most; later ones are skipped."""
MAX_PARAMETERS_BYTES: Final = 65_536
"""Of a schedule's parameters as JSON; what is rendered from them may be four times as long."""
MAX_FIRES: Final = 1000
"""How many entries the history of a schedule has at most."""

Source = Literal["api", "file"]
Coalesce = Literal["latest", "earliest", "all", "none"]
FireKind = Literal["slot", "run", "backfill"]
FireOutcome = Literal["fired", "buffered", "skipped", "missed", "existing"]
SettledState = Literal["done", "moved", "paused", "gone", "early", "draining"]
_NUMBER = re.compile(r"\s*[+-]?[0-9.]+\s*")


def _no_number(value: object) -> object:
    """Refuse what would pass for seconds since 1970: most often it is a year."""
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return value
    raise ValueError(f"{value!r:.80} is no time: write ISO 8601, such as 2026-11-21T09:00:00Z")


_Time = Annotated[AwareDatetime | None, BeforeValidator(_no_number)]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Overlap(StrEnum):
    """What becomes of a slot while tasks of its schedule have not ended."""

    SKIP = "skip"
    """It is skipped."""
    BUFFER_ONE = "buffer_one"
    """One slot waits for them; further ones are skipped while it does."""
    BUFFER_ALL = "buffer_all"
    """Every slot waits, to start one after the other; at most 100 wait."""
    ALLOW = "allow"
    """It starts beside them."""
    CANCEL_OTHER = "cancel_other"
    """They are cancelled, and it starts when they have ended, in place of all that waited."""


class ScheduleSpec(BaseModel):
    """What a person sets of a schedule. Names, bounds and JSON are checked here; what the cron
    expression, the zone and the templates mean, the caller checks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: _Text
    service: Name
    user_id: Name
    parameters: JsonObject = Field(default_factory=dict)
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    dst_policy: Annotated[str, StringConstraints(min_length=1, max_length=20)] | None = None
    description: Annotated[str, StringConstraints(max_length=1000)] | None = None
    overlap: Overlap = Overlap.SKIP
    grace_seconds: float = Field(default=60.0, ge=0, le=31_536_000, allow_inf_nan=False)
    coalesce: Coalesce = "latest"
    max_catchup: int = Field(default=100, ge=1, le=MAX_SLOT_TASKS)
    jitter_seconds: float = Field(default=0.0, ge=0, le=86_400, allow_inf_nan=False)
    start_at: _Time = None
    end_at: _Time = None
    pause_after_failures: int | None = Field(default=None, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> "ScheduleSpec":
        if self.start_at and self.end_at and self.start_at >= self.end_at:
            raise ValueError("end_at must be later than start_at")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecord:
    """A schedule as it is stored.

    `cursor` is a time in whole seconds since 1970: every slot up to it is settled. `revision` goes
    on with each change by a person and each pause; settling changes the cursor alone. `failures`
    counts the tasks that FAILED since one COMPLETED; `fired`, `missed` and `skipped` are totals of
    slots (`fired` counts runs by hand too). `active` are its oldest tasks that have not ended, of
    `active_count`; `buffered` are the slots that wait for them.
    """

    schedule_id: str
    spec: ScheduleSpec
    source: Source
    revision: int
    created_at: datetime
    updated_at: datetime
    paused: bool
    paused_at: datetime | None
    reason: str | None
    cursor: int
    fired: int
    missed: int
    skipped: int
    failures: int
    active: list[str]
    active_count: int
    buffered: list[int]


@dataclass(frozen=True, slots=True)
class SchedulePage:
    """Schedules by name. `unreadable` are those that this version of DMS cannot read; the next page
    begins behind `next_after`, None on the last one."""

    records: list[ScheduleRecord]
    unreadable: list[str]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class SlotTask:
    """A slot (whole seconds since 1970) that fires, and the parameters of its task."""

    slot: int
    parameters: JsonObject


@dataclass(frozen=True, slots=True)
class MissedSlots:
    """So many slots in a row that do not fire, from `first` to `last`."""

    count: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """What became of a slot, or of a run by hand, which has none.

    Slots of one outcome in a row, missed or skipped for the same reason, are one entry: of `count`
    slots, from `first` to `slot`. `number` is the entry's place in the history, 1 for the oldest.
    """

    slot: int | None
    at: datetime
    kind: FireKind
    outcome: FireOutcome
    task_id: str | None = None
    reason: str | None = None
    count: int = 1
    first: int | None = None
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The answer to `settle`; `revision` and `cursor` are what is stored now.

    Nothing was done unless `state` is "done": "moved" (somebody else settled or edited it),
    "paused", "gone", "early" (a slot is later than Redis' time), "draining" (its service is).
    """

    state: SettledState
    revision: int
    cursor: int
    fires: list[Fire] = field(default_factory=list[Fire])


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What changed since a version.

    `version` is to be given to the next call; it is no more than a mark. `now` is the time of Redis
    in seconds since 1970. `reset`: what was known before is to be forgotten, for all that there is
    comes again. `more`: call again at once. `unreadable` are schedules that this version of DMS
    cannot read.
    """

    version: int
    now: float
    records: list[ScheduleRecord]
    deleted: list[str]
    reset: bool
    more: bool
    unreadable: Sequence[str] = ()
