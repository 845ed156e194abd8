"""The names in paths, and what answers look like; the answers serve the documentation."""

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Path, Query
from pydantic import BaseModel

from task_state import TaskRecord, TaskStatus
from task_state.naming import MAX_NAME, MAX_TASK_ID, NAME_PATTERN, TASK_ID_PATTERN

ALL_SERVICES: Final = "*"

ServiceName = Annotated[
    str,
    Path(
        pattern=NAME_PATTERN,
        max_length=MAX_NAME,
        description="The task definition's id, such as `sync`",
    ),
]
ServiceOrAll = Annotated[
    str,
    Path(
        pattern=rf"{NAME_PATTERN}|^\*$",
        max_length=MAX_NAME,
        description="The task definition's id, or `*` for all services",
    ),
]
UserName = Annotated[
    str, Path(pattern=NAME_PATTERN, max_length=MAX_NAME, description="Whose task it is")
]
TaskIdPath = Annotated[
    str, Path(pattern=TASK_ID_PATTERN, max_length=MAX_TASK_ID, description="The task's id")
]
UserQuery = Annotated[
    str,
    Query(
        alias="user_id",
        pattern=NAME_PATTERN,
        max_length=MAX_NAME,
        description="Whose task it is",
    ),
]


class TaskAccepted(BaseModel):
    """A task was stored and will be dispatched."""

    task_id: str
    status: TaskStatus


class TaskRetried(TaskAccepted):
    """A new task was stored, with the parameters of the old one."""

    retry_of: str


class TaskShown(TaskRecord):
    """A task, and its place among the waiting tasks of its service (1 is next)."""

    queue_position: int | None = None


class TaskAnswer(BaseModel):
    """One task."""

    task: TaskShown


class TaskList(BaseModel):
    """A page of tasks, without log lines. `total` is null where counting would be too dear."""

    tasks: list[TaskRecord]
    next_cursor: str | None
    total: int | None


class Counts(BaseModel):
    """How many tasks there are. `by_status` names every status, `by_service` and `by_user` those
    that have tasks; `by_user` is null unless one service is meant, or where it has too many."""

    total: int
    by_status: dict[TaskStatus, int]
    by_service: dict[str, int]
    by_user: dict[str, int] | None


class ServiceAnswer(BaseModel):
    """A service: ACTIVE, PAUSED (nothing new starts) or DRAINING (nothing new is accepted), `since`
    when and why; tasks that wait, wait for a later time, and run. `defined` says whether the
    scheduler has a definition of that name, and is null while it is not known."""

    service: str
    mode: str
    since: datetime | None
    reason: str | None
    waiting: int
    delayed: int
    running: int
    defined: bool | None


class ServiceList(BaseModel):
    """Every service that has a definition, tasks, or a mode other than ACTIVE."""

    services: list[ServiceAnswer]


class UserList(BaseModel):
    """Users who have tasks in a service."""

    users: list[str]


class TaskDeleted(BaseModel):
    """`deleted` is false while the worker still ends the task; it goes right after."""

    task_id: str
    deleted: bool
    status: TaskStatus | None = None


class LogLines(BaseModel):
    """Log lines `offset` to `offset + len(lines) - 1` of `total`; the first line is 0."""

    lines: list[str]
    offset: int
    total: int


class Throughput(BaseModel):
    """How the progress went over time: points [ms since 1970, bytes, files] of all attempts, at
    most 241, about `interval_seconds` apart; the last one is the newest."""

    points: list[tuple[int, int, int]]
    interval_seconds: int


class TaskAdjusted(BaseModel):
    """All that was changed about the task after it was submitted."""

    task_id: str
    adjust: dict[str, Any]


class DefinitionList(BaseModel):
    """The task definitions that the scheduler knows; `parameters` is a JSON schema or null."""

    definitions: list[dict[str, Any]]


class Problem(BaseModel):
    """An error (RFC 9457). `type` ends with a slug for programs, `detail` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None


REASON_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"reason": {"type": ["string", "null"], "maxLength": 500}},
                }
            }
        }
    }
}
"""`openapi_extra` of a route whose body may say why: it is read by `read_reason`."""
