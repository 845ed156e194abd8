"""Running a handler inside the worker's own process: quick to start, and impossible to kill."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from app.tasks import UNSET, LeaseLost, TaskCancelled, TaskDefinition
from dms_scheduler.checkpoint import SavedCheckpoint
from dms_scheduler.children.process import JobEvents
from dms_scheduler.handler import Outcome, TaskView, call_inline
from dms_scheduler.shown import ShownProgress


class InlineControl:
    """The TaskControl of an inline handler. Made in the event loop; threads may use it."""

    def __init__(self, events: JobEvents, deadline: float, checkpoint: Any) -> None:
        self._events = events
        self._checkpoint = SavedCheckpoint(checkpoint)
        self._saving = threading.Lock()
        self._shown = ShownProgress(self.log)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._reason: str | None = None
        self.deadline_monotonic = deadline

    @property
    def cancelled(self) -> bool:
        """Whether the worker asked for the end."""
        return self._reason is not None

    def check(self) -> None:
        """Raise TaskCancelled or LeaseLost when the handler must stop."""
        if self._reason is not None:
            raise TaskCancelled(self._reason)
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

    def cancel(self, reason: str) -> None:
        """Ask for the end."""
        self._reason = reason

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
        self._control = InlineControl(events, deadline, view.checkpoint)
        self._definition = definition
        self._task = asyncio.create_task(call_inline(definition, view, self._control))

    @property
    def task(self) -> asyncio.Task[Outcome]:
        """The call itself."""
        return self._task

    def deadline(self, at: float) -> None:
        """Move the lease's deadline."""
        self._control.deadline_monotonic = at

    def stop(self, reason: str) -> None:
        """Cancel a coroutine; a function in a thread sees it at its next check()."""
        self._control.cancel(reason)
        if self._definition.is_async:
            self._task.cancel()

    async def kill(self) -> None:
        """Nobody can: ask once more, then wait for as long as the handler takes."""
        self.stop("the task was told to stop")
        await asyncio.wait({self._task})

    def abandon(self) -> None:
        """Let go of it: the process ends."""
        self._task.cancel()
