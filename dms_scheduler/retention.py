"""The loop that applies the retention policy: archives finished tasks that are due, removes them.

Runs in the scheduler service. The store lets one process at a time do it; each step takes at most
100 tasks and is followed by a pause, so that nobody waits for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from dms_scheduler.archive import Archive, ArchiveError
from task_state import StoreUnavailableError, TaskRecord, TaskSearch, TaskStatus
from task_state.redis import RedisRepositoryProvider
from task_state.retention import Retention, Seen
from task_state.retention_policy import TERMINAL, RetentionPolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the policy is applied, how long the loop rests between two steps, and for how long
    a turn is taken, in seconds; how many tasks one step may take."""

    period_seconds: float = 60.0
    pause_seconds: float = 0.1
    turn_seconds: float = 60.0
    step: int = 100


class RetentionLoop:
    """Applies one policy; without rules there is nothing to run."""

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        policy: RetentionPolicy,
        archive: Archive | None,
        pace: Pace | None = None,
    ) -> None:
        self._provider = provider
        self._policy = policy
        self._archive = archive
        self._pace = pace or Pace()
        self._owner = uuid4().hex
        self._complaint = ""

    async def run(self) -> None:
        """A round a period until cancelled. What hinders it is said once, and waited out."""
        while True:
            try:
                removed = await self.round()
                self._went_well(removed)
            except (StoreUnavailableError, ArchiveError) as error:
                self._complain(str(error))
            except Exception:
                # The store would grow without bound if a defect ended this loop unseen.
                logger.exception("A round of retention failed", extra={"action": "retention"})
            await asyncio.sleep(self._pace.period_seconds)

    async def round(self) -> int:
        """Remove all that is due, if it is this process's turn; how many tasks went."""
        retention = await self._provider.get_retention()
        if not await self._turn(retention):
            return 0
        try:
            removed = 0
            async with aclosing(retention.services()) as services:
                async for service in services:
                    for status in TERMINAL:
                        removed += await self._apply(retention, service, status)
            return removed
        finally:
            with suppress(StoreUnavailableError):  # then the turn ends by itself
                await retention.give_turn(self._owner)

    async def _apply(self, retention: Retention, service: str, status: TaskStatus) -> int:
        age = self._policy.age(service, status)
        if age is None:
            return 0
        removed = 0
        search = TaskSearch(service=service, status=(status,), limit=self._pace.step, order="asc")
        before = await retention.now() - age
        async with aclosing(_due(retention, search, before)) as steps:
            async for tasks in steps:
                if not await self._turn(retention):
                    return removed
                if tasks:
                    seen = await self._secure(retention, tasks)
                    removed += len((await retention.prune(seen)).removed)
                await asyncio.sleep(self._pace.pause_seconds)
        return removed

    async def _secure(self, retention: Retention, tasks: list[TaskRecord]) -> list[Seen]:
        """What may be removed: with an archive, what is on its disk."""
        if self._archive is not None:
            return await self._archive.add(retention, tasks)
        return [
            Seen(task.task_id, task.revision, task.logs_total, updated_at=task.updated_at)
            for task in tasks
        ]

    async def _turn(self, retention: Retention) -> bool:
        return await retention.take_turn(self._owner, self._pace.turn_seconds)

    def _went_well(self, removed: int) -> None:
        self._complaint = ""
        if removed:
            logger.info(
                "Finished tasks were removed by the retention policy",
                extra={"action": "retention", "removed": removed},
            )

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            logger.warning("Retention waits", extra={"action": "retention.wait", "reason": text})
        self._complaint = text


async def _due(
    retention: Retention, search: TaskSearch, before: datetime
) -> AsyncGenerator[list[TaskRecord]]:
    """The tasks that are due, oldest first, step by step; a step may find none."""
    while True:
        page = await retention.page(search, before)
        yield list(page.tasks)
        if page.next_cursor is None:
            return
        search = replace(search, cursor=page.next_cursor)
