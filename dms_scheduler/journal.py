"""One attempt's words on their way to the store: log lines and launcher output, in batches."""

import asyncio
import codecs
from collections import deque

from dms_scheduler.handler import MOST_LINE_CHARACTERS
from dms_scheduler.persist import persist
from task_state import FencedError, TaskNotFoundError
from task_state.managed import ManagedTasks
from task_state.repository import format_log_entry

BATCH_LINES = 100
BATCH_SECONDS = 0.2
_MOST_LINES_A_WRITE = 1000
_CROWDED_LINES = 5000
_MOST_WAITING_LINES = 20_000
_MOST_OUTPUT_A_WRITE = 64  # pieces, each at most what one read of a pipe gives


class Journal:
    """Collects what an attempt says, and writes it every 100 lines or 200 ms.

    While Redis is away batches are repeated, and a child that says more than fits waits (`room`).
    Dropped, with a marker, is only output beyond `output_limit` bytes, and lines of an inline
    handler, which cannot be made to wait, when 20,000 wait already. The worker's event loop alone
    calls these methods.
    """

    def __init__(
        self, managed: ManagedTasks, task_id: str, epoch: int, *, output_limit: int
    ) -> None:
        self._managed = managed
        self._task_id = task_id
        self._epoch = epoch
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._batches = 0
        self._batch: tuple[str, list[str], str] | None = None
        self._output: deque[str] = deque()
        self._output_limit = output_limit
        self._output_left = output_limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._something = asyncio.Event()
        self._full_batch = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._writing = asyncio.Lock()
        self._over = False

    def line(self, message: str) -> None:
        """Add one log line, stamped now; one longer than 16,384 characters is cut."""
        if self._over:
            return
        if len(self._lines) >= _MOST_WAITING_LINES:
            self._dropped += 1
            return
        if len(message) > MOST_LINE_CHARACTERS:
            message = message[:MOST_LINE_CHARACTERS] + "... [line cut here]"
        self._lines.append(format_log_entry(message))
        self._something.set()
        if len(self._lines) >= BATCH_LINES:
            self._full_batch.set()
        if len(self._lines) >= _CROWDED_LINES:
            self._room.clear()

    def output(self, data: bytes) -> None:
        """Add a piece of launcher output; bytes that are no UTF-8 become escapes."""
        if self._output_left <= 0 or self._over:
            return
        kept = data[: self._output_left]
        self._output_left -= len(kept)
        self._output.append(self._decoder.decode(kept))
        if self._output_left <= 0:
            limit = self._output_limit
            self._output.append(f"\n[output truncated here: it reached {limit} bytes]\n")
        self._something.set()

    async def room(self) -> None:
        """Return when more lines fit."""
        await self._room.wait()

    async def run(self) -> None:
        """Write until cancelled, or until the task goes on without this attempt."""
        while not self._over:
            await self._something.wait()
            await self._batch_complete()
            await self.flush()

    async def flush(self) -> None:
        """Write all there is, repeating until the store has it or the attempt is over."""
        async with self._writing:
            while (self._lines or self._output or self._batch) and not self._over:
                await self._write_batch()
            self._something.clear()
            self._full_batch.clear()

    async def _batch_complete(self) -> None:
        try:
            async with asyncio.timeout(BATCH_SECONDS):
                await self._full_batch.wait()
        except TimeoutError:
            return

    async def _write_batch(self) -> None:
        """Write the next batch, or again the one that a cancelled write has left."""
        name, lines, output = self._batch = self._batch or self._next_batch()
        try:
            await persist(
                lambda: self._managed.append_logs(
                    self._task_id, self._epoch, lines, output, batch=name
                ),
                what="task.log",
                task_id=self._task_id,
            )
        except (FencedError, TaskNotFoundError):
            self._stop()
        else:
            self._batch = None
            self._make_room()

    def _next_batch(self) -> tuple[str, list[str], str]:
        self._batches += 1
        lines = [self._lines.popleft() for _ in range(min(len(self._lines), _MOST_LINES_A_WRITE))]
        pieces = [
            self._output.popleft() for _ in range(min(len(self._output), _MOST_OUTPUT_A_WRITE))
        ]
        return f"{self._epoch}.{self._batches}", lines, "".join(pieces)

    def _make_room(self) -> None:
        if len(self._lines) >= _CROWDED_LINES:
            return
        self._room.set()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.line(f"[{dropped} log lines dropped here: the task store could not take them]")

    def _stop(self) -> None:
        """The task goes on without this attempt: nothing it says can be written any more."""
        self._over = True
        self._batch = None
        self._lines.clear()
        self._output.clear()
        self._room.set()
