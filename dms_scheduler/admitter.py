"""The admitter: has waiting tasks let through when a slot may be free, and queues their calls."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final

from app.tasks import definitions
from dms_scheduler.engine import Call, EngineClient, end_task
from dms_scheduler.witness import Witness
from task_state import StoreUnavailableError
from task_state.admission import Admission, Admitted, Attendance, Policy
from task_state.redis import RedisRepositoryProvider

logger = logging.getLogger(__name__)

_PERIOD_SECONDS: Final = 1.5
_BELIEVED_SECONDS: Final = 6.0
"""A worker that was not heard of for so long gets nothing: four of its periods."""
_AWAY_SECONDS: Final = 1.0
_LEAVE_SECONDS: Final = 2.0
_BURST_SECONDS: Final = 0.1
_GATHER_SECONDS: Final = 0.02


def policies() -> dict[str, Policy]:
    """How the registered definitions want their tasks to be let through."""
    return {
        name: Policy(
            priority=definition.options.priority,
            concurrency_limit=definition.options.concurrency_limit,
            per_user_limit=definition.options.per_user_limit,
        )
        for name, definition in definitions().items()
    }


class Admitter:
    """Runs in the scheduler service and in every worker; the store's script makes that safe.

    A worker's admitter tells its `slots` with each round, which is how the others know of them.
    While its attempts end within moments it tells up to half as many more, as many as ended in the
    last tenth of a second: their calls wait at the worker, so that it need not wait for a round
    after each attempt. Long attempts get none: what is let through ahead of time is past its turn.

    It tells the store how new it was when it was last seen, by this process or by the `witness`,
    so that a restored one pauses itself.
    """

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        engine: EngineClient,
        *,
        worker: str = "",
        slots: int = 0,
        witness: Witness | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._engine = engine
        self._worker = worker
        self._slots = slots
        self._witness = witness
        self._recalled = witness is None
        self._clock = clock
        self._ends: deque[float] = deque(maxlen=max(slots // 2, 1))
        self._woken = asyncio.Event()
        self._unsent: list[Call] = []
        self._in_vain = False
        self._ending = False

    def wake(self) -> None:
        """A slot or a task may have come: look soon. Many wakes before that are one look."""
        self._woken.set()

    def ended(self) -> None:
        """An attempt of this worker is over: look soon."""
        self._ends.append(self._clock())
        self.wake()

    async def run(self) -> None:
        """Rounds until `end`: when woken, when a delayed task is due, and now and then."""
        away = False
        while not self._ending:
            try:
                await self._sleep(await self.round())
                away = False
            except StoreUnavailableError as error:
                if not away:
                    logger.warning(
                        "The admitter waits for Redis",
                        extra={"action": "admit", "error": str(error)},
                    )
                away = True
                await asyncio.sleep(_AWAY_SECONDS)
            except Exception:
                # Without it nothing would start any more, so a defect must not end it.
                logger.exception("A round of the admitter failed", extra={"action": "admit"})
                await asyncio.sleep(_AWAY_SECONDS)

    async def round(self) -> float | None:
        """Let through what may start now, and queue it; the seconds until a delayed task is due.

        What could not be queued is queued in the next round, or, if this process dies before it,
        by the rescuer, which finds it among the admitted.
        """
        self._woken.clear()
        await self._send([])
        await self.recall()
        admission = await self._provider.get_admission()
        self._in_vain = True
        while True:
            found = await self._admit(admission)
            self._in_vain = self._in_vain and not found.calls
            await self._send([Call(task.task_id, task.epoch) for task in found.calls])
            if not found.more:
                await self._testify(admission, now=False)
                return found.due_seconds

    async def recall(self) -> None:
        """Read what the witness knows, once: before a worker may begin anything."""
        if self._recalled or self._witness is None:
            return
        admission = await self._provider.get_admission()
        admission.remember(await asyncio.to_thread(self._witness.read))
        self._recalled = True

    async def leave(self) -> None:
        """Take this worker's slots back, so that nothing is let through for them; what it gives
        back is still let through for others. If Redis is away, its slots are forgotten soon."""
        self._slots = 0
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self.round()
        except (StoreUnavailableError, TimeoutError) as error:
            logger.warning(
                "The worker's slots could not be taken back, they are forgotten soon",
                extra={"action": "admit.leave", "worker": self._worker, "error": str(error)},
            )

    async def end(self, running: asyncio.Task[None]) -> None:
        """End `running`, which is run(), after the round that it is in: one that was cut off would
        leave admitted tasks to the rescuer, who is slower."""
        self._ending = True
        self._woken.set()
        await asyncio.wait({running}, timeout=_LEAVE_SECONDS)
        await end_task(running)
        if self._recalled:
            await self._testify(await self._provider.get_admission(), now=True)

    async def _testify(self, admission: Admission, *, now: bool) -> None:
        if self._witness is not None:
            await asyncio.to_thread(self._witness.keep, admission.seen, now=now)

    async def _admit(self, admission: Admission) -> Admitted:
        if not self._worker:
            return await admission.admit(self._policies)
        slots = self._slots + self._ahead()
        attendance = Attendance(self._worker, slots, _BELIEVED_SECONDS)
        return await admission.admit(self._policies, attendance=attendance)

    @cached_property
    def _policies(self) -> Mapping[str, Policy]:
        # Definitions do not change once they are loaded, which is before the first round.
        return policies()

    def _ahead(self) -> int:
        since = self._clock() - _BURST_SECONDS
        return min(sum(end > since for end in self._ends), self._slots // 2)

    async def _send(self, calls: list[Call]) -> None:
        calls, self._unsent = self._unsent + calls, []
        try:
            await self._engine.enqueue_many(calls)
        except BaseException:
            self._unsent += calls
            raise

    async def _sleep(self, due: float | None) -> None:
        # One round for all the wakes of that time, where it costs no free slot: the worker has
        # calls ahead, or there was nothing to give (and who frees a slot looks by himself).
        if self._ahead() or self._in_vain:
            await asyncio.sleep(_GATHER_SECONDS)
        if self._ending:
            return
        longest = _PERIOD_SECONDS * random.uniform(0.75, 1.0)  # noqa: S311  # nosec B311
        try:
            async with asyncio.timeout(longest if due is None else min(longest, due)):
                await self._woken.wait()
        except TimeoutError:
            return
