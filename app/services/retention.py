"""Exports tasks and removes finished ones for an operator: not the policy's loop, which is
`dms_scheduler.retention`."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import Final, TypeVar

from app.services.deadline import store_deadline
from task_state import TaskPage, TaskRecord, TaskSearch
from task_state.export import ExportForm, TaskExport
from task_state.redis import RedisRepositoryProvider
from task_state.retention import Pruned, Retention, Seen

log = logging.getLogger(__name__)

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_SENT_BYTES: Final = 64 * 1024
_HELD_BYTES: Final = 1024 * 1024


class RetentionService:
    """Raises task_state's errors. Each call to the store has its own time-out, and the first page
    of a request one in all: a long export goes on as long as the store answers."""

    def __init__(self, provider: RedisRepositoryProvider, *, timeout_seconds: float) -> None:
        self._provider = provider
        self._timeout = timeout_seconds

    async def page(self, search: TaskSearch, completed_before: datetime | None) -> TaskPage:
        """The tasks of one page of an export; see `Retention.page`."""
        async with store_deadline(self._timeout):
            retention = await self._provider.get_retention()
            return await retention.page(search, completed_before)

    async def lines(self, tasks: Sequence[TaskRecord], form: ExportForm) -> AsyncGenerator[bytes]:
        """Those tasks as whole lines, in pieces of about 64 KiB; nothing of a task that is deleted
        meanwhile."""
        retention = await self._provider.get_retention()
        if form is ExportForm.BRIEF:
            yield await retention.brief(tasks)
            return
        waiting = bytearray()
        async with aclosing(_lines(retention, tasks, form)) as pieces:
            async for piece in pieces:
                waiting += piece
                if len(waiting) >= _SENT_BYTES:
                    yield bytes(waiting)
                    waiting.clear()
        if waiting:
            yield bytes(waiting)

    async def prune(self, tasks: Sequence[Seen], *, dry_run: bool) -> Pruned:
        """Remove the finished tasks among those that have not changed since they were seen."""
        async with store_deadline(self._timeout):
            retention = await self._provider.get_retention()
            pruned = await retention.prune(tasks, dry_run=dry_run)
        if pruned.removed and not dry_run:
            log.info(
                "Finished tasks were removed by an operator",
                extra={"action": "retention.prune", "removed": len(pruned.removed)},
            )
        return pruned


async def _lines(
    retention: Retention, tasks: Sequence[TaskRecord], form: ExportForm
) -> AsyncGenerator[bytes]:
    for task in tasks:
        async with aclosing(_line(retention.export(task.task_id, form))) as pieces:
            async for piece in pieces:
                yield piece


async def _line(export: TaskExport) -> AsyncGenerator[bytes]:
    """The line, once all of it was read: only then it is known whether the task is still there. A
    long one waits in a nameless file, not in memory."""
    with SpooledTemporaryFile[bytes](_HELD_BYTES) as held:
        size = 0
        async with aclosing(export.chunks()) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                await _do(held.write, chunk, quick=size <= _HELD_BYTES)
        if export.seen is None:
            return
        held.seek(0)
        while piece := await _do(held.read, _SENT_BYTES, quick=size <= _HELD_BYTES):
            yield piece


async def _do(work: Callable[[_In], _Out], argument: _In, *, quick: bool) -> _Out:
    """In a thread, unless it is quick: a disk may be slow."""
    return work(argument) if quick else await asyncio.to_thread(work, argument)
