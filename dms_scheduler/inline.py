"""Running a handler inside the worker's own process: quick to start, and impossible to kill."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any

from app.tasks import UNSET, LeaseLost, TaskCancelled, TaskDefinition
from dms_scheduler.checkpoint import SavedCheckpoint
from dms_scheduler.children.process import JobEvents
from dms_scheduler.handler import Outcome, TaskView, call_inline
from dms_scheduler.report import Block, Reporter
from dms_scheduler.shown import ShownProgress
from dms_scheduler.threads import in_own_thread


class InlineControl:
    """The TaskControl of an inline handler. Made in the event loop; threads may use it."""

    def __init__(self, events: JobEvents, deadline: float, view: TaskView) -> None:
        self._events = events
        self._checkpoint = SavedCheckpoint(view.checkpoint)
        self._reporter = Reporter(
            self._hand_over,
            attempt=view.attempts,
            epoch=view.epoch,
            may_wait=lambda: threading.get_ident() != self._thread,
        )
        self._saving = threading.Lock()
        self._shown = ShownProgress(self.log)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._reason: str | None = None
        self._ends_task = True
        self.deadline_monotonic = deadline
        self.adjusted: Mapping[str, Any] = view.adjusted

    @property
    def cancelled(self) -> bool:
        """Whether the worker asked for the end."""
        return self._reason is not None

    def check(self) -> None:
        """Raise TaskCancelled or LeaseLost when the handler must stop."""
        if self._reason is not None:
            raise TaskCancelled(self._reason, ends_task=self._ends_task)
        if time.monotonic() >= self.deadline_monotonic:
            raise LeaseLost("this worker could not renew the task's lease in time")

    def progress(self, values: dict[str, Any], /, *, advanced: bool = False) -> None:
        """Note the newest values; raises TasksError for what is no JSON object."""
        shown = self._shown.take(values)
        self._tell(lambda: self._events.progress(shown, advanced=advanced))

    def log(self, message: str) -> None:
        """Note one line."""
        self._tell(lambda: self._events.log(str(message)))

    def checkpoint(self, value: Any = UNSET, /) -> Any:
        """Have the newest value stored, or read it."""
        if value is not UNSET:
            with self._saving:  # threads: what is told last is what is read here
                saved = self._checkpoint.save(value)
                self._tell(lambda: self._events.checkpoint(saved))
        return self._checkpoint.read()

    def report(self, line: Mapping[str, Any], /) -> None:
        """Keep one line. A thread waits when the store cannot keep up; a coroutine's lines are left
        out then, and counted. Raises TasksError for what is no JSON object."""
        self._reporter.add(line)

    async def flush(self) -> None:
        """Return when the whole report has been handed over; later lines are nobody's."""
        await in_own_thread(Reporter.close, self._reporter)

    def cancel(self, reason: str, *, ends_task: bool) -> None:
        """Ask for the end."""
        self._reason, self._ends_task = reason, ends_task

    def _hand_over(self, block: Block) -> None:
        """In the reporter's thread: wait until the worker has room for the next one."""
        taking = self._take(block)
        try:
            asyncio.run_coroutine_threadsafe(taking, self._loop).result()
        except (
            RuntimeError,
            CancelledError,
        ) as error:  # the loop has ended, and the worker with it
            taking.close()
            raise ConnectionAbortedError("the worker has ended") from error

    async def _take(self, block: Block) -> None:
        self._events.report(block)
        await self._events.room()

    def _tell(self, call: Callable[[], None]) -> None:
        if threading.get_ident() == self._thread:
            call()
        else:
            self._loop.call_soon_threadsafe(call)


class InlineJob:
    """One call of a handler in this process."""

    def __init__(
        self,
        definition: TaskDefinition[Any, Any],
        view: TaskView,
        deadline: float,
        events: JobEvents,
    ) -> None:
        self._control = InlineControl(events, deadline, view)
        self._definition = definition
        self._task = asyncio.create_task(call_inline(definition, view, self._control))

    @property
    def task(self) -> asyncio.Task[Outcome]:
        """The call itself."""
        return self._task

    def deadline(self, at: float) -> None:
        """Move the lease's deadline."""
        self._control.deadline_monotonic = at

    def adjust(self, values: dict[str, Any]) -> None:
        """Tell the handler what somebody changed about its task."""
        self._control.adjusted = values

    def stop(self, reason: str, *, ends_task: bool = True) -> None:
        """Cancel a coroutine; a function in a thread sees it at its next check()."""
        self._control.cancel(reason, ends_task=ends_task)
        if self._definition.is_async:
            self._task.cancel()

    async def kill(self) -> None:
        """Nobody can: ask once more, then wait for as long as the handler takes."""
        self.stop("the task was told to stop")
        await asyncio.wait({self._task})

    async def end(self) -> None:
        """Hand over what it reported. One that runs yet is let go of: the process ends."""
        self._task.cancel()
        await self._control.flush()
