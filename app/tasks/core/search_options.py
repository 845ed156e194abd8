"""Options of a search for tasks, and what is no way to search: checked before anything is asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Literal, cast

from app.tasks.core.errors import TasksError
from app.tasks.core.options import unknown_option
from task_state import MAX_OFFSET, MAX_PAGE, MAX_TEXT, TaskSearch, TaskStatus
from task_state.naming import NAME_WORDS, TASK_ID_WORDS, is_name, is_task_id
from task_state.timezone import to_microseconds


class SearchOptionError(TasksError):
    """An option of a search makes no sense; the message names it, its value and the remedy."""


@dataclass(frozen=True, slots=True)
class DateRange:
    """Times from `start` on and before `end`; None leaves that side open. A time without a zone is
    in the configured one (`DMS_TIMEZONE`)."""

    start: datetime | None = None
    end: datetime | None = None


Range = DateRange | Mapping[str, datetime | None] | tuple[datetime | None, datetime | None]
Statuses = TaskStatus | str | Sequence[TaskStatus | str]
SortBy = Literal["created_at", "updated_at", "id", "createdAt", "updatedAt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSearchOptions:
    """Which tasks are wanted, and in what order. Raises SearchOptionError for what makes no sense.

    `id`: one task. `type`, `service`: the definition's id, by either name.
    `status`: one status or several, as TaskStatus or its name in any case.
    `user`: whose tasks. `text`: found in the id, the user or the parameters.
    `created_at_range`, `updated_at_range`: a DateRange, a (start, end) pair, or a mapping of both.
    `limit`: tasks on a page, 1 to 200; `offset`: tasks to skip, or `cursor`: where the page before
    ended (its `next_cursor`), which costs the same at any depth.
    `sort_by`: created_at, updated_at or id; `sort_order`: asc or desc; in any case.
    """

    id: str | None = None
    type: str | None = None
    service: str | None = None
    status: Statuses | None = None
    user: str | None = None
    created_at_range: Range | None = None
    updated_at_range: Range | None = None
    text: str | None = None
    limit: int = 50
    offset: int = 0
    cursor: str | None = None
    sort_by: SortBy = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"

    def __post_init__(self) -> None:
        for name, (holds, wanted) in _RULES.items():
            value = getattr(self, name)
            if not holds(value):
                raise SearchOptionError(f"the option {name}={value!r:.100} is not {wanted}")
        if self.cursor is not None and self.offset:
            raise SearchOptionError(
                f"offset={self.offset} and a cursor contradict each other: a cursor goes on where "
                "the page before ended, so leave the offset out"
            )
        self.search()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "TaskSearchOptions":
        """Options from a mapping of exactly the names above; raises SearchOptionError."""
        known = [each.name for each in fields(cls)]
        for name in options:
            if name not in known:
                raise SearchOptionError(unknown_option("search option", str(name), known))
        return cls(**options)

    def search(self) -> TaskSearch:
        """The same, as the repository takes it."""
        created = _range("created_at_range", self.created_at_range)
        updated = _range("updated_at_range", self.updated_at_range)
        return TaskSearch(
            task_id=self.id,
            service=self._service(),
            user_id=self.user,
            status=_statuses(self.status),
            created_after=created.start,
            created_before=created.end,
            updated_after=updated.start,
            updated_before=updated.end,
            q=self.text,
            limit=self.limit,
            offset=self.offset,
            cursor=self.cursor,
            sort=_SORTS[_folded(self.sort_by)],
            order="asc" if self.sort_order.lower() == "asc" else "desc",
        )

    def _service(self) -> str | None:
        if self.type is not None and self.service is not None and self.type != self.service:
            raise SearchOptionError(
                f"type={self.type!r} and service={self.service!r} contradict each other: they are "
                "two names of one thing, so leave one out"
            )
        return self.type if self.service is None else self.service


def _statuses(value: Statuses | None) -> tuple[TaskStatus, ...]:
    if value is None:
        return ()
    texts: Sequence[object] = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple | set | frozenset) or not texts:  # pyright: ignore[reportUnnecessaryIsInstance]  (users' code)
        raise SearchOptionError(f"the option status={value!r:.100} names no status: {_STATUS_HELP}")
    return tuple(dict.fromkeys(_status(text) for text in texts))


def _status(value: object) -> TaskStatus:
    found = TaskStatus.__members__.get(value.upper()) if isinstance(value, str) else None
    if found is None:
        raise SearchOptionError(f"the option status={value!r:.100} is no status: {_STATUS_HELP}")
    return found


def _range(name: str, value: Range | None) -> DateRange:
    if value is None:
        return DateRange()
    given = _as_range(name, value)
    for end in (given.start, given.end):
        if not isinstance(end, datetime | None):  # pyright: ignore[reportUnnecessaryIsInstance]  (users' code)
            raise SearchOptionError(
                f"the option {name} has {end!r:.100}, which is no datetime: {_RANGE_HELP}"
            )
    if given.start and given.end and to_microseconds(given.end) <= to_microseconds(given.start):
        raise SearchOptionError(
            f"the option {name} ends at {given.end.isoformat()}, which is not after its start "
            f"{given.start.isoformat()}: exchange them, or leave one out"
        )
    return given


def _as_range(name: str, value: object) -> DateRange:
    if isinstance(value, DateRange):
        return value
    if isinstance(value, tuple) and len(cast("tuple[Any, ...]", value)) == 2:
        return DateRange(*cast("tuple[Any, Any]", value))
    if isinstance(value, Mapping) and value.keys() <= {"start", "end"}:
        return DateRange(**dict(cast("Mapping[str, Any]", value)))
    raise SearchOptionError(f"the option {name}={value!r:.100} is no range: {_RANGE_HELP}")


_STATUS_HELP: Final = f"use one or several of {', '.join(TaskStatus)}, or leave it out"
_RANGE_HELP: Final = "give DateRange(start, end), where None leaves a side open"


def _if_given(holds: Callable[[str], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or (isinstance(value, str) and holds(value))


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _folded(name: str) -> str:
    """`created_at`, `createdAt` and `CREATED_AT` are one name."""
    return name.replace("_", "").lower()


def _is_text(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or value.isspace():
        return False
    # Parameters are JSON, which has no such characters as they are: nothing could be found.
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value)


_NAMED: Final = (_if_given(is_name), f"a name: {NAME_WORDS} (None: any)")
_SORTS: Final[Mapping[str, Literal["created_at", "updated_at", "id"]]] = {
    "createdat": "created_at",
    "updatedat": "updated_at",
    "id": "id",
}
_RULES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "id": (
        _if_given(is_task_id),
        f"a task's id: {TASK_ID_WORDS} (None: any)",
    ),
    "type": _NAMED,
    "service": _NAMED,
    "user": _NAMED,
    "text": (_is_text, f"a text of 1 to {MAX_TEXT} characters, not blank, without NUL (None: any)"),
    "limit": (_whole(1, MAX_PAGE), f"a whole number, 1 to {MAX_PAGE}: ask page by page"),
    "offset": (_whole(0, MAX_OFFSET), f"a whole number, 0 to {MAX_OFFSET}: go deeper by cursor"),
    "cursor": (
        _if_given(lambda text: 0 < len(text) <= 512),
        "the next_cursor of a page (None: the first page)",
    ),
    "sort_by": (
        lambda value: isinstance(value, str) and _folded(value) in _SORTS,
        '"created_at", "updated_at" or "id"',
    ),
    "sort_order": (
        lambda value: isinstance(value, str) and value.lower() in {"asc", "desc"},
        '"asc" or "desc"',
    ),
}
