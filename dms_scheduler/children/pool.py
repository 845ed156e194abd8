"""Warm child processes: ready before they are needed, used again while they are clean."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

from dms_scheduler.children.process import Child, ChildError, ChildSettings

logger = logging.getLogger(__name__)

_STARTS_AT_ONCE = 2
_SPARE_SECONDS = 60.0


class ChildPool:
    """Keeps `size` children warm. More are started when all are busy, and kept for a minute."""

    def __init__(self, settings: ChildSettings, size: int) -> None:
        self._settings = settings
        self._size = size
        self._idle: deque[tuple[Child, float]] = deque()
        self._children: set[Child] = set()
        self._starts = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._refilling = False
        self._closing = False

    async def start(self) -> None:
        """Warm one child up; raises ChildError when the task modules do not load. The others
        follow in the background."""
        self._idle.append((await self._new(), time.monotonic()))
        self._refill_soon()

    async def acquire(self) -> Child:
        """An idle child, or a new one; raises ChildError."""
        while self._idle:
            child, _ = self._idle.pop()
            if child.usable:
                return child
            self._retire(child)
        return await self._new()

    def give_back(self, child: Child, *, worn: bool) -> None:
        """Take a child back after its job; a worn one is killed and replaced."""
        if worn or self._closing or not child.usable:
            self._retire(child)
        else:
            self._idle.append((child, time.monotonic()))
        if not self._closing:
            self._refill_soon()
            self._drop_spares()

    async def close(self) -> None:
        """End all children and wait until they are gone."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(child) for child in list(self._children)))
        self._idle.clear()

    async def _new(self) -> Child:
        async with self._starts:
            child = await Child.start(self._settings)
        self._children.add(child)
        return child

    def _refill_soon(self) -> None:
        """One refill at a time: each would start what the others are starting already."""
        if not self._refilling and not self._closing:
            self._refilling = True
            self._spawn_task(self._refill())

    async def _refill(self) -> None:
        try:
            await self._start_missing()
        finally:
            self._refilling = False

    async def _start_missing(self) -> None:
        """Start what is missing to `size`, one after the other."""
        while len(self._idle) < self._size and not self._closing:
            if len(self._children) > len(self._idle) + self._size:
                return  # enough are busy: they come back warm
            try:
                child = await self._new()
            except ChildError as error:
                logger.warning(
                    "A spare child did not start",
                    extra={"action": "child.start", "error": str(error)},
                )
                return
            self._idle.append((child, time.monotonic()))

    def _drop_spares(self) -> None:
        """The oldest idle children beyond `size` go after a minute without work."""
        limit = time.monotonic() - _SPARE_SECONDS
        while len(self._idle) > self._size and self._idle[0][1] < limit:
            self._retire(self._idle.popleft()[0])

    def _retire(self, child: Child) -> None:
        self._spawn_task(self._end(child))

    async def _end(self, child: Child) -> None:
        await child.kill()
        self._children.discard(child)
        self._refill_soon()  # a dying child still counted as busy

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            error = task.exception()
            if error is not None:
                logger.error(
                    "The child pool failed", extra={"action": "child.pool"}, exc_info=error
                )
