"""Which tasks a request means: the query options of lists and counts, as they may be written."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast

from fastapi import Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api.parameters import parse_query
from app.core.errors import BadInputError
from app.core.findings import shown, unknown
from task_state import MAX_OFFSET, MAX_PAGE, MAX_TEXT, TaskSearch, TaskStatus
from task_state.naming import MAX_NAME, MAX_TASK_ID, NAME_PATTERN, TASK_ID_PATTERN

# What orders a list, as the documents (`createdAt`) and we call it, in any case.
_SORTS: Final[Mapping[str, str]] = {
    "createdat": "created_at",
    "updatedat": "updated_at",
    "id": "id",
}
_REPEATABLE: Final = frozenset({"status", "action"})


def _statuses(value: object) -> object:
    """Each text may hold several statuses, with commas between, in any case."""
    if not isinstance(value, list):
        return value
    given = cast("list[str]", value)
    texts = [part.strip() for text in given for part in text.split(",")]
    if "" in texts:
        raise ValueError(f"{shown(','.join(given))} has a comma too many: FAILED,CANCELLED has one")
    wrong = next((text for text in texts if text.upper() not in TaskStatus.__members__), None)
    if wrong is not None:
        raise ValueError(f"{shown(wrong)} is no status: use {', '.join(TaskStatus)}")
    return list(dict.fromkeys(TaskStatus[text.upper()] for text in texts))


def read_time(value: object) -> object:
    """A time in ISO 8601. Plain numbers are refused: a year would pass for seconds since 1970."""
    if value is None or isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(cast("str", value).upper())
    except (AttributeError, ValueError):
        raise ValueError(
            f"{shown(value)} is no time: write ISO 8601, such as 2026-11-21T09:00:00Z or "
            "2026-11-21T18:00:00%2B09:00 (in a URL a plus sign is %2B)"
        ) from None


def _sort(value: object) -> object:
    return _SORTS.get(value.replace("_", "").lower(), value) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Time = Annotated[datetime | None, BeforeValidator(read_time)]
_Name = Annotated[str | None, Field(pattern=NAME_PATTERN, max_length=MAX_NAME)]


class TaskQuery(BaseModel):
    """Which tasks of a listing are wanted. Times are ISO 8601; without an offset they are in the
    configured zone. `after` includes its instant, `before` does not."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(
        None, pattern=TASK_ID_PATTERN, max_length=MAX_TASK_ID, description="One task's id"
    )
    type: _Name = Field(None, description="The definition's id: another name of `service`")
    service: _Name = None
    user_id: _Name = None
    status: Annotated[list[TaskStatus], BeforeValidator(_statuses)] = Field(
        [], description="In any case; repeated, or several with commas between"
    )
    created_after: Time = None
    created_before: Time = None
    updated_after: Time = None
    updated_before: Time = None
    q: str | None = Field(
        None, max_length=MAX_TEXT, description="Text to find in the id, the user or the parameters"
    )
    sort: Annotated[Literal["created_at", "updated_at", "id"], BeforeValidator(_sort)] = (
        "created_at"
    )
    order: Annotated[Literal["asc", "desc"], BeforeValidator(_lower)] = "desc"
    limit: int = Field(50, ge=1, le=MAX_PAGE)
    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="Tasks to skip; not with `cursor`")
    cursor: str | None = Field(None, max_length=512, description="`next_cursor` of the page before")

    def search(self, service: str | None = None, user_id: str | None = None) -> TaskSearch:
        """The same for the repository, within what the path says (`service`, `user_id`)."""
        named = {"the path": service, "service": self.service, "type": self.type}
        return TaskSearch(
            task_id=self.id,
            service=_agreed("service", named),
            user_id=_agreed("user", {"the path": user_id, "user_id": self.user_id}),
            **self.model_dump(exclude={"id", "type", "service", "user_id"}),
        )


class CountQuery(BaseModel):
    """Which tasks are counted: all, a service's, a user's, or a user's of one service."""

    model_config = ConfigDict(extra="forbid")

    service: _Name = None
    user_id: _Name = None


class NoQuery(BaseModel):
    """A route without query options."""

    model_config = ConfigDict(extra="forbid")


TaskQueryParams = Annotated[TaskQuery, Query()]
CountQueryParams = Annotated[CountQuery, Query()]


def options_of(model: type[BaseModel]) -> Callable[[Request], Awaitable[None]]:
    """A dependency that refuses a query with options that `model` lacks, or has twice or empty.

    It runs before the values are looked at, which alone would take the last of two values.
    """
    return only(*model.model_fields)


def only(*known: str) -> Callable[[Request], Awaitable[None]]:
    """The same for a route that has no model of its options, which are `known`."""

    async def check(request: Request) -> None:
        for name, value in parse_query(request.scope["query_string"]).items():
            values = cast("list[str]", value if isinstance(value, list) else [value])
            if name not in known:
                raise BadInputError(
                    f"{shown(name)}={shown(values[0])} is no option of this route: "
                    f"{unknown(name, known)}"
                )
            if "" in values:
                raise BadInputError(f"{name} is empty: give it a value, or leave it out")
            if len(values) > 1 and name not in _REPEATABLE:
                raise BadInputError(
                    f"{name} is given {len(values)} times ({shown(values)}): give it once"
                )

    return check


def _agreed(what: str, named: Mapping[str, str | None]) -> str | None:
    """The one name that all places give that give one."""
    given: dict[str, Any] = {place: name for place, name in named.items() if name is not None}
    if len(set(given.values())) > 1:
        told = " and ".join(f"{place} says {name!r}" for place, name in given.items())
        raise BadInputError(f"{told}: name one {what}, and leave the other out")
    return next(iter(given.values()), None)
