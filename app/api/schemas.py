"""What requests may ask for and what answers look like; the answers serve the documentation."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from task_state import Paging, TaskRecord, TaskStatus

NAME_PATTERN = r"^[A-Za-z0-9._@-]{1,64}$"
TASK_ID_PATTERN = r"^[A-Za-z0-9._-]{1,128}$"

ServiceName = Annotated[
    str, Path(pattern=NAME_PATTERN, description="The task definition's id, such as `sync`")
]
UserName = Annotated[str, Path(pattern=NAME_PATTERN, description="Whose task it is")]
TaskIdPath = Annotated[str, Path(pattern=TASK_ID_PATTERN, description="The task's id")]
UserQuery = Annotated[
    str, Query(alias="user_id", pattern=NAME_PATTERN, description="Whose task it is")
]


class TaskQuery(BaseModel):
    """Which tasks of a listing are wanted. Times are ISO 8601; without an offset they are in the
    configured zone. `after` includes its instant, `before` does not."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=512, description="`next_cursor` of the page before")
    status: list[TaskStatus] = Field([], max_length=20)
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    q: str | None = Field(None, min_length=1, max_length=256, description="Text to find")
    sort: Literal["created_at", "updated_at"] = "created_at"
    order: Literal["asc", "desc"] = "desc"

    def paging(self) -> Paging:
        """The same, as the repository takes it."""
        return Paging(**{name: getattr(self, name) for name in type(self).model_fields})


TaskQueryParams = Annotated[TaskQuery, Query()]


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
