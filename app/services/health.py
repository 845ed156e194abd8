"""Whether this process can do its work: what it depends on, asked now."""

import asyncio
import contextlib
from typing import Final, Literal

from app.core.events import DISPATCH_GROUP
from app.core.metrics import Metrics
from app.services.event_processor import TaskEventProcessor
from task_state import TaskStateError
from task_state.redis import RedisRepositoryProvider

State = Literal["ok", "failing"]
_PROBE: Final = "readyz"


class Health:
    """Asks the store and the dispatcher."""

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        processor: TaskEventProcessor,
        *,
        timeout_seconds: float,
    ) -> None:
        self._provider = provider
        self._processor = processor
        self._timeout = timeout_seconds

    async def report(self) -> dict[str, State]:
        """Each part's state. Reads decide whether the process is ready: with a full disk the store
        still reads, and taking every replica away would not help it to write."""
        reads, writes = await asyncio.gather(self._reads(), self._writes())
        scheduler: State = "ok" if self._processor.scheduler_reachable else "failing"
        return {"reads": reads, "writes": writes, "scheduler": scheduler}

    async def measure(self, metrics: Metrics) -> None:
        """Bring the values up to date that only the store knows; it may be away."""
        with contextlib.suppress(TaskStateError, TimeoutError):
            async with asyncio.timeout(self._timeout):
                depth = await (await self._provider.get_outbox()).depth(DISPATCH_GROUP)
                metrics.outbox_depth.labels("unread").set(depth.unread)
                metrics.outbox_depth.labels("pending").set(depth.pending)
                metrics.outbox_depth.labels("due").set(depth.due)
                managed = await self._provider.get_managed()
                metrics.fenced_writes.set(await managed.fenced_count())

    async def _reads(self) -> State:
        """One read from the writer, one from the reader."""
        try:
            async with asyncio.timeout(self._timeout):
                repository = await self._provider.get_repository()
                await repository.get(_PROBE)
                await repository.list_users_by_service(_PROBE)
        except (TaskStateError, TimeoutError):
            return "failing"
        return "ok"

    async def _writes(self) -> State:
        """Taking an id is the one write that leaves nothing behind."""
        try:
            async with asyncio.timeout(self._timeout):
                await (await self._provider.get_repository()).next_task_id()
        except (TaskStateError, TimeoutError):
            return "failing"
        return "ok"
