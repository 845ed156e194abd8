"""Exports tasks and removes finished ones for an operator: not the policy's loop, which is
`dms_scheduler.retention`."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from app.services.deadline import store_deadline
from task_state import TaskPage, TaskRecord, TaskSearch
from task_state.export import ExportForm
from task_state.redis import RedisRepositoryProvider
from task_state.retention import Pruned, Seen

log = logging.getLogger(__name__)

_SENT_BYTES: Final = 64 * 1024


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
        """Those tasks as lines, in pieces of about 64 KiB."""
        retention = await self._provider.get_retention()
        waiting = bytearray()
        async with aclosing(retention.lines(tasks, form)) as pieces:
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
