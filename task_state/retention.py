"""Finding, exporting and removing finished tasks, in bounded steps.

Nothing is removed that changed after it was read: whoever removes says which revision, how many log
lines and how much output it has seen. Tasks of other programs (unmanaged) are finished tasks too.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, cast

from task_state import keys
from task_state._port import MAX_PAGE, TaskPage, TaskSearch
from task_state._redis_repository import RedisTaskRepository
from task_state._store import Store
from task_state.errors import InvalidRequestError
from task_state.export import ExportForm, Seen, TaskExport, brief_lines
from task_state.models import TaskRecord
from task_state.retention_policy import TERMINAL
from task_state.timezone import from_microseconds, to_microseconds

TURN = "retention"
_NAMES_A_STEP = 500


@dataclass(frozen=True, slots=True)
class Skipped:
    """A task that stays: it is gone already, has not ended, or was changed since it was read."""

    task_id: str
    reason: Literal["missing", "active", "changed"]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed (or would be), and what was not."""

    removed: Sequence[str]
    skipped: Sequence[Skipped]


class Retention:
    """What keeps the store from growing: the policy's loop, the API and the CLI work with it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._repository = RedisTaskRepository(store)

    async def page(self, search: TaskSearch, completed_before: datetime | None = None) -> TaskPage:
        """A page of what the search finds; with `completed_before`, of the finished tasks among
        them that ended before that instant. Such a page may be short, even empty, and go on.

        Raises InvalidRequestError for an option that makes no sense.
        """
        if completed_before is None:
            return await self._repository.search(search)
        page = await self._repository.search(_finished(search, completed_before))
        limit = to_microseconds(completed_before)
        ended = [task for task in page.tasks if _end(task) < limit]
        return TaskPage(ended, page.next_cursor)

    def export(self, task_id: str, form: ExportForm) -> TaskExport:
        """The task as a line of that form, and how much of its log and output is in it."""
        return TaskExport(self._store, task_id, form)

    async def brief(self, tasks: Sequence[TaskRecord]) -> bytes:
        """The tasks as lines of the form `brief`."""
        return await brief_lines(self._store, tasks)

    async def prune(self, tasks: Sequence[Seen], *, dry_run: bool = False) -> Pruned:
        """Remove finished tasks with all that belongs to them, unless they have changed since they
        were seen; `dry_run` only says what would go. At most 200 in one step."""
        if len(tasks) > MAX_PAGE:
            raise InvalidRequestError(
                f"{len(tasks)} tasks to prune at once: at most {MAX_PAGE} go into one call"
            )
        if not tasks:
            return Pruned((), ())
        wanted = [
            part
            for seen in tasks
            for part in (
                seen.task_id,
                seen.revision,
                seen.logs_total,
                "" if seen.output_bytes is None else seen.output_bytes,
                "" if seen.updated_at is None else to_microseconds(seen.updated_at),
            )
        ]
        words = [
            cast("bytes", word).decode()
            for word in await self._store.write("prune", "1" if dry_run else "", *wanted)
        ]
        answers = list(zip(tasks, words, strict=True))
        return Pruned(
            [seen.task_id for seen, word in answers if word == "REMOVED"],
            [
                Skipped(seen.task_id, cast("Any", word.lower()))
                for seen, word in answers
                if word != "REMOVED"
            ],
        )

    async def services(self) -> AsyncGenerator[str]:
        """The services that have tasks, a few hundred a step; one may come twice."""
        reader, cursor = self._store.reader, 0
        while True:
            at = cursor
            cursor, found = await self._store.call(
                lambda at=at: cast("Any", reader.hscan(keys.SERVICES, at, count=_NAMES_A_STEP))
            )
            for name in found:
                yield cast("bytes", name).decode()
            if cursor == 0:
                return

    async def now(self) -> datetime:
        """The time of the store, which is what tasks end by: another clock may be years ahead."""
        return from_microseconds(await self._store.time_us())

    async def take_turn(self, owner: str, seconds: float) -> bool:
        """Whether `owner` is now the one process that applies the policy, for so many seconds; its
        next call keeps the turn."""
        return await self._store.write("turn", TURN, owner, int(seconds * 1000)) == 1

    async def give_turn(self, owner: str) -> None:
        """Let another process have the turn at once."""
        await self._store.write("turn", TURN, owner, 0)


def _finished(search: TaskSearch, completed_before: datetime) -> TaskSearch:
    """A search that finds all tasks that ended before then, and few others: what ended then was
    created then, so the index by creation bounds it."""
    active = [status for status in search.status if not status.is_terminal]
    if active:
        raise InvalidRequestError(
            f"status={','.join(active)}: only finished tasks have an age since their end; name "
            f"{', '.join(TERMINAL)}"
        )
    limits = [limit for limit in (search.created_before, completed_before) if limit is not None]
    earliest = min(limits, key=to_microseconds)
    return replace(search, status=search.status or TERMINAL, created_before=earliest)


def _end(task: TaskRecord) -> int:
    return to_microseconds(task.completed_at or task.updated_at)
