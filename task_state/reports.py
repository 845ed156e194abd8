"""What tasks leave beside their records and nobody needs with them: reports, and series over time.

A report is lines of JSON, stored as gzip members one behind the other, which are gzip again.
"""

from collections.abc import AsyncGenerator, Awaitable
from typing import Any, cast

from pydantic_core import from_json

from task_state import keys
from task_state._codec import decode_record
from task_state._store import Store
from task_state.models import JsonObject, TaskReport

PIECE_BYTES = 65_536


class Reports:
    """Reads reports and series from the writer, where what was acknowledged can be seen."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pieces(self, task_id: str) -> AsyncGenerator[bytes]:
        """The report as it is stored, in pieces of 64 KiB; nothing where there is none. It may grow
        meanwhile; one that is deleted meanwhile ends within a member."""
        writer, key = self._store.writer, keys.report(task_id)
        at = 0
        while True:
            found = await self._store.call(
                lambda at=at: cast("Awaitable[Any]", writer.getrange(key, at, at + PIECE_BYTES - 1))
            )
            piece = cast("bytes", found)
            if not piece:
                return
            yield piece
            at += len(piece)

    async def facts(self, task_id: str) -> TaskReport | None:
        """How many lines the report has; None without one, or without a task."""
        for _, line, _ in await self._store.read("records", task_id, fresh=True):
            return decode_record(task_id, line).report
        return None

    async def series(self, task_id: str) -> JsonObject | None:
        """How the task's progress went over time, as its worker stored it; None if it did not."""
        writer, key = self._store.writer, keys.series(task_id)
        found = await self._store.call(lambda: cast("Awaitable[Any]", writer.get(key)))
        return from_json(cast("bytes", found)) if found else None
