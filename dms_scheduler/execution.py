"""Running attempts: what a worker does with each call that the engine hands to it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from app.tasks import TaskDefinition, get_definition
from dms_scheduler.attempt import Attempt
from dms_scheduler.definitions import UnknownServiceError
from dms_scheduler.ending import Stop, Tools
from dms_scheduler.persist import persist
from task_state import FencedError, TaskNotFoundError, TaskStatus, TransitionError
from task_state.managed import Attempt as Begun
from task_state.managed import Failing

logger = logging.getLogger(__name__)

_WRITE_SECONDS = 5.0


class Executor:
    """Runs the calls of one worker, and brings them to an end when the worker leaves.

    `put_back(task_id, epoch)` gives a call back to the engine that came after the drain began;
    `ended()` is told when a call is over, so that its slot can be given to another task.
    """

    def __init__(
        self,
        tools: Tools,
        put_back: Callable[[str, int], Awaitable[None]],
        ended: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._put_back = put_back
        self._ended_call = ended
        self._calls: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._hints: set[tuple[str, int]] = set()
        self._draining = False
        self._leaving = False

    async def run(self, task_id: str, epoch: int) -> None:
        """Run one call to its end. A call that runs here already is a no-op.

        The engine's cancel comes as CancelledError, and only means: look at the record. It is not
        passed on, since the attempt has to end in order; when the worker leaves at once, it is.
        """
        key = (task_id, epoch)
        if key in self._calls:
            return
        call = asyncio.create_task(self._call(task_id, epoch), name=f"attempt {task_id}:{epoch}")
        self._calls[key] = call
        call.add_done_callback(lambda _: self._forget(key))
        while not call.done():
            try:
                await asyncio.shield(call)
            except asyncio.CancelledError:
                if self._leaving or call.cancelled():
                    raise
                current = asyncio.current_task()
                if current is not None:
                    current.uncancel()
                self._hint(key)

    async def drain(self, seconds: float, hurry: asyncio.Event) -> bool:
        """Let running attempts end for `seconds`, or until `hurry` is set; then stop them and give
        their tasks back. False when some did not even then end, and were left."""
        self._draining = True
        await self._ended(seconds, hurry)
        settings = self._tools.settings
        grace = 0.0 if hurry.is_set() else settings.term_seconds
        for attempt in self._attempts.values():
            attempt.ask(Stop.RELEASE, grace=grace)
        most = max(settings.term_seconds, settings.cancel_grace_seconds) + _WRITE_SECONDS
        await self._ended(most, asyncio.Event())
        return await self._leave()

    async def _ended(self, seconds: float, hurry: asyncio.Event) -> None:
        waiter = asyncio.create_task(hurry.wait())
        limit = time.monotonic() + seconds
        try:
            while self._calls and not waiter.done() and (left := limit - time.monotonic()) > 0:
                waiting = {waiter, *self._calls.values()}
                await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()

    def _hint(self, key: tuple[str, int]) -> None:
        """The engine says that the task was cancelled; it may say so before the attempt begins."""
        self._hints.add(key)
        if key in self._attempts:
            self._attempts[key].look_for_cancel()

    def _forget(self, key: tuple[str, int]) -> None:
        del self._calls[key]
        self._hints.discard(key)
        self._ended_call()

    async def _leave(self) -> bool:
        self._leaving = True
        calls = list(self._calls.values())
        for call in calls:
            logger.error(
                "An attempt could not be given back in time: its lease will run out",
                extra={"action": "worker.leave", "call": call.get_name()},
            )
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return not calls

    async def _call(self, task_id: str, epoch: int) -> None:
        if self._draining:
            await self._put_back(task_id, epoch)
            return
        try:
            await self._attempt(task_id, epoch)
        except (FencedError, TaskNotFoundError, TransitionError) as error:
            logger.info(
                "The task went on without this attempt",
                extra={"action": "attempt", "task_id": task_id, "reason": str(error)},
            )
        except Exception:
            # A bug of ours. The record keeps its lease, so the rescuer counts it as a lost worker:
            # repeated with another worker first, and ended FAILED when that does not help.
            logger.exception(
                "The worker failed at an attempt",
                extra={"action": "attempt", "task_id": task_id, "epoch": epoch},
            )

    async def _attempt(self, task_id: str, epoch: int) -> None:
        record = await persist(
            lambda: self._tools.repository.get(task_id), what="task.read", task_id=task_id
        )
        if record is None or record.status.is_terminal:
            return
        definition = get_definition(record.service)
        begun_at = time.monotonic()
        begun = await self._begin(task_id, epoch, definition)
        if begun is None:
            return
        if definition is None:
            await self._unknown(begun)
            return
        attempt = Attempt(self._tools, begun, definition, begun_at)
        self._attempts[task_id, epoch] = attempt
        if self._draining:
            attempt.ask(Stop.RELEASE, grace=0.0)
        if (task_id, epoch) in self._hints:
            attempt.look_for_cancel()
        try:
            await attempt.run()
        finally:
            del self._attempts[task_id, epoch]

    async def _begin(
        self, task_id: str, epoch: int, definition: TaskDefinition[Any, Any] | None
    ) -> Begun | None:
        """Begin, repeated until the store answers: it knows a worker that asks again."""
        settings = self._tools.settings
        return await persist(
            lambda: self._tools.managed.begin(
                task_id,
                epoch,
                worker=settings.worker,
                lease_seconds=settings.lease_seconds,
                max_attempts=definition.max_attempts if definition else None,
                description=definition.description if definition else None,
                admitted=True,
                log_entry=f"Started by worker {settings.worker}, epoch {epoch}",
            ),
            what="task.begin",
            task_id=task_id,
        )

    async def _unknown(self, begun: Begun) -> None:
        reason = str(UnknownServiceError(begun.task.service))
        await persist(
            lambda: self._tools.managed.finish(
                begun.task.task_id,
                begun.epoch,
                TaskStatus.FAILED,
                log_entry=reason,
                error=reason,
                failing=Failing("failed", reason),
            ),
            what="task.end",
            task_id=begun.task.task_id,
        )
