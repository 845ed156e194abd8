"""A timetable: many keys, each with an instant, one heap and one sleeper for them all.

It knows nothing of triggers: at its instant a key is handed to `serve`, which answers when the key
wants to be served next.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, cast

from app.scheduler.domain.clock import LONGEST_SLEEP, Clock

log = logging.getLogger(__name__)

LANES: Final = 64
_BATCH: Final = 50
"""A lane lets others have the event loop after so many keys."""
_RETRY_SECONDS: Final = 60.0

Serve = Callable[[str, float], Awaitable[float | None]]


class Timetable:
    """Serves each key at its time, at most LANES of them at once and no key twice at once.

    A key that is being served is not in the heap: its time goes on only when it is done, so nothing
    piles up behind a slow one.
    """

    def __init__(self, serve: Serve, clock: Clock) -> None:
        self._serve = serve
        self._clock = clock
        self._heap: list[tuple[float, str]] = []
        self._times: dict[str, float] = {}  # an item of the heap that says otherwise is void
        self._ready: deque[str] = deque()
        self._serving: dict[str, asyncio.Task[None]] = {}
        # Being served, and not to be put back.
        self._released: dict[str, asyncio.Future[None]] = {}
        self._lanes: set[asyncio.Task[None]] = set()
        self._sleeper: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._until = 0.0

    def __len__(self) -> int:
        return len(self._times)

    def put(self, key: str, at: float) -> None:
        """Serve the key at that time (seconds since 1970), in the place of any other."""
        self._times[key] = at
        heapq.heappush(self._heap, (at, key))
        if at < self._until:
            self._wake.set()
        if len(self._heap) > 2 * len(self._times) + 1000:
            self._heap = [(time, key) for key, time in self._times.items()]
            heapq.heapify(self._heap)

    async def drop(self, key: str, seconds: float) -> None:
        """Forget the key. One that is being served may go on for `seconds`; then its lane is
        cancelled."""
        self._times.pop(key, None)
        if key in self._ready:
            self._ready.remove(key)
        lane = self._serving.get(key)
        if lane is None:
            return
        released = self._released.setdefault(key, asyncio.get_running_loop().create_future())
        if lane is asyncio.current_task():
            return
        await asyncio.wait([released], timeout=seconds)
        if not released.done():
            await _cancel([lane])

    def start(self) -> None:
        """Begin to serve."""
        if self._sleeper is None:
            self._sleeper = asyncio.create_task(self._sleep(), name="timetable")

    async def stop(self, seconds: float) -> None:
        """Begin nothing more; what is being served may go on for `seconds`. Forgets all keys."""
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            await _cancel([sleeper])
        self._heap.clear()
        self._times.clear()
        self._ready.clear()
        if self._lanes:
            await asyncio.wait(self._lanes, timeout=seconds)
            await _cancel(self._lanes)

    async def _sleep(self) -> None:
        while True:
            now = self._clock.now()
            self._collect(now)
            self._wake.clear()
            wait = min(self._heap[0][0] - now, LONGEST_SLEEP) if self._heap else LONGEST_SLEEP
            self._until = now + wait
            await self._clock.sleep(wait, self._wake)

    def _collect(self, now: float) -> None:
        """Make ready what is due."""
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._times.get(key) == at:
                del self._times[key]
                self._ready.append(key)
        self._staff()

    def _staff(self) -> None:
        for _ in range(min(len(self._ready), LANES - len(self._lanes))):
            lane = asyncio.create_task(self._work(), name="timetable lane")
            self._lanes.add(lane)
            lane.add_done_callback(self._left)

    def _left(self, lane: asyncio.Task[None]) -> None:
        self._lanes.discard(lane)
        if self._sleeper is not None and len(self._lanes) < LANES and self._ready:
            self._staff()

    async def _work(self) -> None:
        lane = cast("asyncio.Task[None]", asyncio.current_task())
        served = 0
        while self._ready:
            key = self._ready.popleft()
            self._serving[key] = lane
            try:
                at = await self._served(key)
                if at is not None and self._sleeper is not None and key not in self._released:
                    self.put(key, at)
            finally:
                del self._serving[key]
                if (released := self._released.pop(key, None)) is not None:
                    released.set_result(None)
            served += 1
            if served % _BATCH == 0:
                await asyncio.sleep(0)

    async def _served(self, key: str) -> float | None:
        now = self._clock.now()
        try:
            return await self._serve(key, now)
        except Exception:
            log.exception(
                "Serving failed, and is tried again",
                extra={"action": "timetable.failed", "key": key, "seconds": _RETRY_SECONDS},
            )
            return now + _RETRY_SECONDS


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
