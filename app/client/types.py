"""What the client is asked for: how a task is named, and the options of a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias, TypedDict


class TaskKey(Protocol):
    """Whatever names a task and its owner: a TaskRef, a Submitted, a TaskRecord."""

    @property
    def task_id(self) -> str:
        """The task's id."""
        ...

    @property
    def service(self) -> str:
        """The definition that it runs."""
        ...

    @property
    def user_id(self) -> str:
        """Whose task it is."""
        ...


TaskArg: TypeAlias = TaskKey | str
"""A task of a user's, or an id alone: that is an operator's way, and needs the token."""

Instant: TypeAlias = datetime | str
"""A time; a text is ISO 8601. Without an offset it is in the zone of the service."""


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task by its id and owner."""

    task_id: str
    service: str
    user_id: str


class SearchOptions(TypedDict, total=False):
    """Which tasks are wanted. With `service` and `user` they are that user's; else the operator's
    token is needed. `after` includes its instant, `before` does not. `limit` (1 to 200) is the size
    of a page; a page begins after a `cursor` or an `offset`, not both."""

    task_id: str | None
    service: str | None
    user: str | None
    status: str | Sequence[str] | None
    text: str | None
    created_after: Instant | None
    created_before: Instant | None
    updated_after: Instant | None
    updated_before: Instant | None
    sort: Literal["created_at", "updated_at", "id"] | None
    order: Literal["asc", "desc"] | None
    limit: int | None
    offset: int | None
    cursor: str | None
