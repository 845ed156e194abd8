"""One call of a handler that can be watched and stopped, in a child process or inline."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from app.tasks import TaskDefinition
from dms_scheduler.children import Child, ChildDied, ChildPool
from dms_scheduler.children.process import JobEvents
from dms_scheduler.handler import Outcome, TaskView
from dms_scheduler.inline import InlineJob


class Job(Protocol):
    """A running handler, wherever it runs."""

    @property
    def task(self) -> asyncio.Task[Outcome]:
        """Ends with the outcome; it raises nothing but bugs."""
        ...

    def deadline(self, at: float) -> None:
        """Until when the lease holds, in time.monotonic seconds."""
        ...

    def adjust(self, values: dict[str, Any]) -> None:
        """Tell the handler what somebody changed about its task."""
        ...

    def stop(self, reason: str, *, ends_task: bool = True) -> None:
        """Ask the handler to end; `ends_task` says that no other attempt will follow."""
        ...

    async def kill(self) -> None:
        """End it by force where that is possible, and return when it is gone."""
        ...


class ChildJob:
    """A handler in a child process: stopped by message and SIGTERM, killed with all it started."""

    def __init__(self, child: Child, view: TaskView, deadline: float, events: JobEvents) -> None:
        self._child = child
        self._task = asyncio.create_task(_outcome(child.run(view, deadline, events)))

    @property
    def task(self) -> asyncio.Task[Outcome]:
        """Ends with the outcome; a child that died is a failed attempt."""
        return self._task

    @property
    def clean(self) -> bool:
        """Whether the child may be used again."""
        done = self._task.done() and not self._task.cancelled() and self._task.exception() is None
        return done and not self._task.result().worn and self._child.usable

    def deadline(self, at: float) -> None:
        """Tell the child until when the lease holds."""
        self._child.deadline(at)

    def adjust(self, values: dict[str, Any]) -> None:
        """Tell the child what somebody changed about its task."""
        self._child.adjust(values)

    def stop(self, reason: str, *, ends_task: bool = True) -> None:
        """Ask the handler to end, and everything that it started."""
        self._child.stop(reason, ends_task=ends_task)

    async def kill(self) -> None:
        """Kill every process of it, and return when they are gone and the outcome is known."""
        await self._child.kill()
        await asyncio.wait({self._task})

    async def end(self) -> None:
        """End what the handler has left running: in order, unless the handler runs yet itself."""
        if self._task.done():
            await self._child.end()
        else:
            await self.kill()


class NotStartedError(Exception):
    """The attempt was stopped before its handler was called."""


@asynccontextmanager
async def start_job(
    pool: ChildPool,
    definition: TaskDefinition[Any, Any],
    view: TaskView,
    deadline: float,
    events: JobEvents,
    stopped: asyncio.Event,
) -> AsyncGenerator[Job]:
    """Start the handler where its definition wants it; raises ChildError when no child starts, and
    NotStartedError when `stopped` is set by the time there is one.

    On leaving, a child that is not clean has ended with all that it started.
    """
    if definition.isolation == "inline":
        inline = InlineJob(definition, view, deadline, events)
        try:
            yield inline
        finally:
            await inline.end()
        return
    child = await pool.acquire()
    if stopped.is_set():
        pool.give_back(child, worn=False)
        raise NotStartedError
    job = ChildJob(child, view, deadline, events)
    try:
        yield job
    finally:
        clean = job.clean
        if not clean:
            await job.end()
        pool.give_back(child, worn=not clean)


async def _outcome(run: Coroutine[Any, Any, Outcome]) -> Outcome:
    try:
        return await run
    except ChildDied as error:
        return Outcome(kind="failure", error=str(error), worn=True)
