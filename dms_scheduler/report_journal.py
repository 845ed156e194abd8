"""One attempt's report on its way to the store: blocks in their order, one after the other."""

import asyncio
from collections import deque

from dms_scheduler.persist import persist
from dms_scheduler.report import Block
from task_state import FencedError, TaskNotFoundError, TaskReport
from task_state.managed import ManagedTasks, ReportState

_MOST_WAITING_BYTES = 1024 * 1024


class ReportJournal:
    """Writes blocks as they come, each repeated until the store has it; whoever sends them waits
    (`room`) when 1 MiB does. `known` is what earlier attempts have reported.

    The worker's event loop alone calls these methods.
    """

    def __init__(
        self, managed: ManagedTasks, task_id: str, epoch: int, known: TaskReport | None
    ) -> None:
        self._managed = managed
        self._task_id = task_id
        self._epoch = epoch
        self._lines = known.lines if known else 0
        self._omitted = known.omitted if known else 0
        self._full = False
        self._blocks: deque[Block] = deque()
        self._size = 0
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._writing = asyncio.Lock()
        self._over = False

    def add(self, block: Block) -> None:
        """Add a block. One that would not fit is not sent, but its lines are counted."""
        if self._over:
            return
        if self._full and not block.failed:
            block = Block(b"", block.lines)
        self._append(block)
        self._something.set()
        if self._size >= _MOST_WAITING_BYTES:
            self._room.clear()

    async def room(self) -> None:
        """Return when another block fits."""
        await self._room.wait()

    async def run(self) -> None:
        """Write until cancelled, or until the task goes on without this attempt."""
        while not self._over:
            await self._something.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write all there is, repeating until the store has it or the attempt is over."""
        async with self._writing:
            while self._blocks and not self._over:
                await self._write(self._blocks[0])
            self._something.clear()

    def _append(self, block: Block) -> None:
        last = self._blocks[-1] if len(self._blocks) > 1 else None  # the first is being written
        if last is not None and not (last.data or block.data):
            self._blocks[-1] = Block(b"", last.lines + block.lines)
        else:
            self._blocks.append(block)
            self._size += len(block.data)

    async def _write(self, block: Block) -> None:
        """Write the first one. It stays first until it is written: a cancelled write is repeated,
        and the count of lines before it tells the store whether it has it already."""
        try:
            state = await persist(
                lambda: self._managed.append_report(
                    self._task_id,
                    self._epoch,
                    block.data,
                    block.lines,
                    failed=block.failed,
                    before=self._lines + self._omitted,
                ),
                what="task.report",
                task_id=self._task_id,
            )
        except (FencedError, TaskNotFoundError):
            self._stop()
        else:
            self._written(state)

    def _written(self, state: ReportState) -> None:
        self._lines, self._omitted, self._full = state.lines, state.omitted, state.full
        self._size -= len(self._blocks.popleft().data)
        if self._size < _MOST_WAITING_BYTES:
            self._room.set()

    def _stop(self) -> None:
        """The task goes on without this attempt: nothing it reports can be written any more."""
        self._over = True
        self._blocks.clear()
        self._room.set()
