"""What the client answers with, beside the models of `task_state`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that was accepted: whatever happens now, it is not lost.

    Submitting again with `idempotency_key` gives the same task, for 24 hours.
    """

    task_id: str
    service: str
    user_id: str
    status: str
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Definition:
    """A task definition: its id is the `service` of a submission.

    `parameters` is the JSON schema that they must fit, None where anything goes; `details` is all
    that the service tells of it.
    """

    id: str
    description: str | None
    parameters: Mapping[str, Any] | None
    details: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """How a service stands: `mode` is ACTIVE, PAUSED or DRAINING, `since` when that began; how many
    tasks wait, wait for the time of their next attempt, and run.

    The service `*` stands for all of them. `defined` says whether a definition has this id, None
    where the scheduler could not be asked.
    """

    service: str
    mode: str
    since: datetime | None
    reason: str | None
    waiting: int
    delayed: int
    running: int
    defined: bool | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A task changed: `kind` is created, status, log, progress, result or deleted."""

    change_id: str
    kind: str
    task_id: str
    service: str
    user_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Point:
    """What all attempts at a task had done by `at`."""

    at: datetime
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """How a task's progress went over time: points about `interval_seconds` apart, oldest first;
    the last one is the newest."""

    points: Sequence[Point]
    interval_seconds: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Some changes were missed: what is shown of tasks has to be loaded again."""


@dataclass(frozen=True, slots=True)
class EventQueue:
    """What a group of the event broker holds, or a subscription of no group: events that `waiting`
    are with no consumer, `unsettled` with one; `dropped` and `dead` count since it began."""

    pattern: str
    group: str | None
    members: int
    waiting: int
    unsettled: int
    dropped: int
    dead: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a queue could not use, and why; `payload` is its JSON."""

    letter_id: str
    pattern: str
    group: str | None
    topic: str
    type_name: str
    payload: str
    reason: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Dead letters, oldest first, and the id behind which there are more (None: no more)."""

    letters: Sequence[DeadLetter]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service can answer requests, and what it says of its parts."""

    ready: bool
    parts: Mapping[str, Any]
