"""One page of a listing: what the `page` script is asked, its cursor, and its answer."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from task_state._codec import decode_record, encode_json
from task_state._port import MAX_PAGE, Paging, TaskPage
from task_state._store import Argument
from task_state.errors import InvalidRequestError
from task_state.models import TaskStatus
from task_state.timezone import to_microseconds

# Records that one call may look at when no index serves a filter: bounds the script's time. A page
# that stays short of its limit says so by its cursor.
SCAN_BUDGET = 2000
# Order, score and task id of the last record.
_CURSOR = re.compile(r"([cu][ad]):(-?[0-9]{1,18}):([A-Za-z0-9._-]{1,128})")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page of everything, of a service, or of a user of a service."""

    paging: Paging
    service: str | None = None
    user_id: str | None = None

    @property
    def by_update(self) -> bool:
        """Whether the page is ordered by the time of the last update."""
        return self.paging.sort == "updated_at"

    @property
    def countable(self) -> bool:
        """Whether the indexes alone know how many tasks match."""
        return not self._filters()

    def arguments(self) -> list[Argument]:
        """What the script wants after the key prefix and the time to live."""
        paging = self.paging
        if not 1 <= paging.limit <= MAX_PAGE:
            raise InvalidRequestError(f"limit={paging.limit}: a page holds 1 to {MAX_PAGE} tasks")
        score, task_id = _parse_cursor(paging.cursor, self._tag())
        return [
            self._scope(),
            "u" if self.by_update else "c",
            paging.order,
            *self._range(),
            score,
            task_id,
            paging.limit,
            SCAN_BUDGET,
            "1" if self.countable else "",
            encode_json(self._filters(), "filters"),
            *dict.fromkeys(paging.status or TaskStatus),
        ]

    def cursor(self, score: str, task_id: str) -> str | None:
        """The cursor after that record, for the next request of the same order."""
        if not task_id:
            return None
        text = f"{self._tag()}:{score}:{task_id}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def _tag(self) -> str:
        return f"{self.paging.sort[0]}{self.paging.order[0]}"

    def _scope(self) -> str:
        user = "" if self.by_update else self.user_id
        return "".join(f":{part}" for part in (self.service, user) if part)

    def _range(self) -> tuple[str, str]:
        paging = self.paging
        if self.by_update:
            return _bounds(paging.updated_after, paging.updated_before)
        return _bounds(paging.created_after, paging.created_before)

    def _filters(self) -> dict[str, Any]:
        """The filters that the index does not serve, which the script checks record by record."""
        paging = self.paging
        after, before = (
            (paging.created_after, paging.created_before)
            if self.by_update
            else (paging.updated_after, paging.updated_before)
        )
        filters: dict[str, Any] = {
            "user": self.user_id if self.by_update else None,
            "field": "created_at" if self.by_update else "updated_at",
            "min": None if after is None else to_microseconds(after),
            "max": None if before is None else to_microseconds(before),
            "q": _lower(paging.q) if paging.q else None,
        }
        wanted = {name: value for name, value in filters.items() if value is not None}
        return wanted if wanted.keys() != {"field"} else {}


def _lower(text: str) -> str:
    # Lua lowers ASCII alone; anything else is compared as it is.
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def _bounds(after: datetime | None, before: datetime | None) -> tuple[str, str]:
    low = "-inf" if after is None else str(to_microseconds(after))
    high = "+inf" if before is None else f"({to_microseconds(before)}"
    return low, high


def _parse_cursor(cursor: str | None, tag: str) -> tuple[str, str]:
    if not cursor:
        return "", ""
    found = _CURSOR.fullmatch(_decoded(cursor))
    if found is None:
        raise InvalidRequestError(
            "the cursor is none of ours: pass back the next_cursor of the page before, unchanged"
        )
    if found[1] != tag:
        raise InvalidRequestError(
            "the cursor belongs to a listing of another order: start again without it"
        )
    return found[2], found[3]


def _decoded(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return ""


def decode_page(request: PageRequest, reply: list[Any]) -> TaskPage:
    """The page that the script answered."""
    found, score, last_id, total = reply
    tasks = [
        decode_record(task_id.decode(), flat, logs_total=lines) for task_id, flat, lines in found
    ]
    cursor = request.cursor(score.decode(), last_id.decode())
    return TaskPage(tasks, cursor, total if request.countable else None)
