"""The task record, its states, and the one table of its transitions."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints

from task_state.naming import MAX_NAME, MAX_TASK_ID, NAME_PATTERN, TASK_ID_PATTERN
from task_state.timezone import now

TaskId = Annotated[str, StringConstraints(pattern=TASK_ID_PATTERN, max_length=MAX_TASK_ID)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=MAX_NAME)]
JsonObject = dict[str, Any]
MAX_CHECKPOINT_BYTES = 65_536  # of JSON


class TaskStatus(StrEnum):
    """Where a task stands; the value equals the name, and reading accepts any case."""

    PENDING = "PENDING"
    DISPATCHING = "DISPATCHING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    CANCELLED = "CANCELLED"

    @classmethod
    def _missing_(cls, value: object) -> "TaskStatus | None":
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow."""
        return not TRANSITIONS[self]


def _table() -> Mapping[TaskStatus, frozenset[TaskStatus]]:
    s = TaskStatus
    ends = {s.COMPLETED, s.FAILED, s.CANCELLED}
    return MappingProxyType(
        {
            s.PENDING: frozenset({s.DISPATCHING, s.RUNNING, s.CANCEL_REQUESTED} | ends),
            s.DISPATCHING: frozenset({s.RUNNING, s.CANCEL_REQUESTED} | ends),
            s.RUNNING: frozenset({s.CANCEL_REQUESTED} | ends),
            s.CANCEL_REQUESTED: frozenset(ends),
            s.COMPLETED: frozenset(),
            s.FAILED: frozenset(),
            s.CANCELLED: frozenset(),
        }
    )


TRANSITIONS: Mapping[TaskStatus, frozenset[TaskStatus]] = _table()
"""The state machine. The scripts in Redis enforce this same table, rendered from here; the one move
outside it, RUNNING back to PENDING, needs the attempt's epoch (retry, release, rescue)."""


class TaskResult(BaseModel):
    """What a task left behind; every field may be written on its own, by different processes."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    pod_status: str | None = None
    launcher_output: str | None = None
    data: Any = None
    error: str | None = None


AttemptOutcome = Literal["failed", "timeout", "cancelled", "released", "lost"]
"""How an attempt can end that does not succeed; a newer version may know more."""


class AttemptNote(BaseModel):
    """How an attempt ended that did not succeed.

    `attempt` is the number it had among those that count; an attempt that was "released" (its
    worker left) or "lost" (its worker died) does not count, so the next one has the same number.
    `reason` has at most 500 characters, with secrets masked.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    epoch: int
    attempt: int
    worker: str | None = None
    ended_at: datetime
    outcome: str
    reason: str


class TaskReport(BaseModel):
    """How many lines a task's report has, and how many were left out because it is full."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    lines: int
    omitted: int = 0


class TaskRecord(BaseModel):
    """One request to run a service, and all that is known of it.

    `logs` holds at most the last 200 lines of a loaded record, `logs_total` counts them all. Times
    are aware, in the configured zone. `managed` marks tasks that DMS dispatches; any other record
    belongs to the program that saved it, and DMS never runs, rescues or leases it.

    `history` has a note of each attempt that did not succeed, oldest first: the first one and the
    latest 49. `checkpoint` is what the handler saved for its next attempt, until the task ends.
    `worker` is the one that holds the running attempt's lease. `report` counts the lines of the
    report, if there is one; `adjust` is what somebody changed after the task was submitted.
    Other calls write these five: `save()` leaves them as they are.

    `omitted` names the fields that a listing left out because they are long, such as "result.data":
    they are absent here, and whole in the record that `get` returns. Of the history the latest note
    is there. `save()` keeps what was left out, unless it was set since.
    """

    # Checked when assigned too: one record that cannot be read back would spoil whole listings.
    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    task_id: TaskId
    service: Name
    user_id: Name
    status: TaskStatus = TaskStatus.PENDING
    parameters: JsonObject = Field(default_factory=dict)
    logs: list[str] = Field(default_factory=list)
    result: TaskResult = Field(default_factory=TaskResult)
    jobs: list[str] = Field(default_factory=list)
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now)
    started_at: datetime | None = None
    completed_at: datetime | None = None
    attempts: int = 0
    max_attempts: int = 3
    epoch: int = 0
    progress: JsonObject | None = None
    checkpoint: Any = None
    worker: str | None = None
    report: TaskReport | None = None
    adjust: JsonObject | None = None
    history: list[AttemptNote] = Field(default_factory=list[AttemptNote])
    description: str | None = None
    retry_of: str | None = None
    schedule_id: str | None = None
    managed: bool = False
    revision: int = 0
    logs_total: int = 0
    omitted: list[str] = Field(default_factory=list)

    # How the record looked when it was loaded; None for one that never was. save() compares.
    _loaded: "LoadedState | None" = PrivateAttr(default=None)

    @property
    def loaded(self) -> "LoadedState | None":
        """How the store last saw this record; None for one that it never did."""
        return self._loaded

    def stored(self, **values: Any) -> None:
        """Note that the store holds this record now, with the `values` that it set itself."""
        vars(self).update(values)
        self._loaded = LoadedState(self)


class LoadedState:
    """What save() needs to know of a record as it was loaded: which lines and output are old, and
    which fields it has never seen."""

    __slots__ = ("launcher_output", "log_lines", "omitted", "status")

    def __init__(self, record: TaskRecord) -> None:
        self.log_lines = list(record.logs)
        self.launcher_output = record.result.launcher_output
        self.status = record.status
        self.omitted = frozenset(record.omitted)
