"""One search: what the `search` script is asked, its cursor, and its answer; and the counts."""

import base64
import binascii
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, cast, get_args

from pydantic_core import to_json

from task_state._codec import check_name, decode_listed
from task_state._port import (
    MAX_OFFSET,
    MAX_PAGE,
    MAX_TEXT,
    Paging,
    Sort,
    TaskCounts,
    TaskPage,
    TaskSearch,
)
from task_state.errors import InvalidRequestError
from task_state.models import TaskStatus
from task_state.naming import TASK_ID_WORDS, is_task_id
from task_state.timezone import to_microseconds

# Records that one call may look at when no index serves a filter: bounds the script's time. A page
# that stays short of its limit says so by its cursor.
SCAN_BUDGET = 500
# When so few records may match, all of them are looked at: the page is full and the total exact.
GATHER_LIMIT = 1000

_OPTIONS = tuple(field.name for field in fields(Paging))
_STATES = tuple(TaskStatus)
# Order, score and task id of the last record, and how many records are still to be passed over.
_CURSOR = re.compile(r"([cui][ad]):(-?[0-9]{1,18}):([A-Za-z0-9._-]{1,128})(?::([0-9]{1,7}))?")
_SUM_BYTES = 4


def as_search(
    paging: Paging | None, service: str | None = None, user_id: str | None = None
) -> TaskSearch:
    """The search that a listing of a service, or of a user of it, stands for."""
    options = {} if paging is None else {name: getattr(paging, name) for name in _OPTIONS}
    return TaskSearch(**options, service=service, user_id=user_id)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page starts: after a record, or (score and id empty) at the beginning."""

    score: str = ""
    task_id: str = ""
    skip: int = 0


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search as the script wants it, and its answer as callers want it."""

    search: TaskSearch

    def arguments(self) -> tuple[bytes, str]:
        """What the script wants after the key prefix and the time to live; raises
        InvalidRequestError for an option that makes no sense."""
        search = self.search
        _check_scope(search)
        _check_page(search)
        position = self._position()
        asked = {
            "task": search.task_id,
            "service": search.service,
            "user": search.user_id,
            "sort": search.sort[0],
            "desc": search.order == "desc",
            "created": _range("created", search.created_after, search.created_before),
            "updated": _range("updated", search.updated_after, search.updated_before),
            "score": position.score,
            "after": position.task_id,
            "skip": position.skip,
            "limit": search.limit,
            "budget": SCAN_BUDGET,
            "most": GATHER_LIMIT,
            "states": _states(search.status),
        }
        given = {name: value for name, value in asked.items() if value not in ("", None, [])}
        # One argument, and only what is given: an argument costs the client as much as a record.
        return to_json(given), _text(search.q)

    def page(self, reply: list[Any]) -> TaskPage:
        """The page that the script answered."""
        if reply[0] == b"!":
            raise InvalidRequestError(
                "sort=id: the store has records of an older layout, which are not in the index of "
                "ids: run `dms-frontend doctor --repair`, or sort by a time"
            )
        found, score, last_id, skip, total = reply
        cursor = self.cursor(Position(score.decode(), last_id.decode(), skip))
        return TaskPage(decode_listed(found), cursor, None if total < 0 else total)

    def cursor(self, position: Position) -> str | None:
        """The cursor of that position, for the next request of the same order."""
        if not position.task_id:
            return None
        text = f"{self._tag()}:{position.score}:{position.task_id}"
        if position.skip:
            text += f":{position.skip}"
        return _sealed(text)

    def _tag(self) -> str:
        return f"{self.search.sort[0]}{self.search.order[0]}"

    def _position(self) -> Position:
        cursor, offset = self.search.cursor, self.search.offset
        if not 0 <= offset <= MAX_OFFSET:
            raise InvalidRequestError(
                f"offset={offset}: it is 0 to {MAX_OFFSET}; to go further, follow the cursors"
            )
        if not cursor:
            return Position(skip=offset)
        if offset:
            raise InvalidRequestError(
                f"offset={offset} and a cursor were given: each says where to start, so leave "
                "one of them out"
            )
        return self._parsed(cursor)

    def _parsed(self, cursor: str) -> Position:
        text = _opened(cursor)
        found = _CURSOR.fullmatch(text)
        if found is None or _sealed(text) != cursor:
            raise InvalidRequestError(
                f"cursor={cursor!r:.40} is none of ours, or not all of one: pass back the "
                "next_cursor of the page before, unchanged"
            )
        if found[1] != self._tag():
            raise InvalidRequestError(
                f"the cursor belongs to a listing of another order than sort={self.search.sort}, "
                f"order={self.search.order}: start again without it"
            )
        return Position(found[2], found[3], int(found[4] or 0))


def _check_scope(search: TaskSearch) -> None:
    if search.task_id is not None and not is_task_id(search.task_id):
        raise InvalidRequestError(f"task_id={search.task_id!r:.140} is no id: {TASK_ID_WORDS}")
    if search.service is not None:
        check_name(search.service, "service")
    if search.user_id is not None:
        check_name(search.user_id, "user_id")


def _check_page(search: TaskSearch) -> None:
    if not 1 <= search.limit <= MAX_PAGE:
        raise InvalidRequestError(f"limit={search.limit}: a page holds 1 to {MAX_PAGE} tasks")
    _check_word("sort", search.sort, get_args(Sort))
    _check_word("order", search.order, ("asc", "desc"))


def _check_word(option: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise InvalidRequestError(f"{option}={value!r:.80}: choose one of {', '.join(allowed)}")


def _states(status: Iterable[TaskStatus]) -> list[TaskStatus]:
    if isinstance(status, str):
        raise InvalidRequestError(f"status={status!r:.80}: give a list of states, such as [status]")
    try:
        return list(dict.fromkeys(map(TaskStatus, status)))
    except ValueError as error:
        raise InvalidRequestError(
            f"status: {error}; choose among {', '.join(TaskStatus)}"
        ) from error


def _range(name: str, after: datetime | None, before: datetime | None) -> list[str]:
    """Both ends as texts, since Lua's numbers lose digits on their way to Redis; nothing if there
    are none."""
    if after is None and before is None:
        return []
    ends = ["" if end is None else str(to_microseconds(end)) for end in (after, before)]
    if after is not None and before is not None and int(ends[0]) >= int(ends[1]):
        raise InvalidRequestError(
            f"{name}_after={after.isoformat()} and {name}_before={before.isoformat()} leave "
            "nothing between them: the second must be the later one"
        )
    return ends


def _text(q: str | None) -> str:
    if q is None:
        return ""
    if not q.strip() or "\0" in q or len(q) > MAX_TEXT:
        raise InvalidRequestError(
            f"q={q!r:.80} ({len(q)} characters): give 1 to {MAX_TEXT} characters of text, not "
            "blank and without NUL, or leave q out"
        )
    # Lua lowers ASCII alone; anything else is compared as it is.
    return "".join(letter.lower() if letter.isascii() else letter for letter in q)


def _sealed(text: str) -> str:
    """With a checksum, which tells a cursor from a part of one: no secret, nobody gains by it."""
    data = text.encode()
    total = zlib.crc32(data).to_bytes(_SUM_BYTES, "big")
    return base64.urlsafe_b64encode(total + data).decode().rstrip("=")


def _opened(cursor: str) -> str:
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return data[_SUM_BYTES:].decode("ascii")
    except (binascii.Error, ValueError):
        return ""


def decode_counts(reply: list[Any]) -> TaskCounts:
    """The counts that the script answered."""
    by_status, by_service, by_user = reply
    states = dict(zip(_STATES, by_status, strict=True))
    return TaskCounts(
        sum(states.values()),
        states,
        _named(by_service),
        None if by_user is None else _named(by_user),
    )


def _named(flat: list[bytes | int]) -> dict[str, int]:
    pairs = iter(flat)
    return {
        cast("bytes", name).decode(): int(number) for name, number in zip(pairs, pairs, strict=True)
    }
