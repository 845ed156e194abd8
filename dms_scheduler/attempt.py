"""One attempt at a task: its handler supervised, its words and its lease kept, its end written."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from app.tasks import TaskDefinition, TaskOptions
from dms_scheduler.children import ChildError, ChildPool
from dms_scheduler.handler import Outcome, TaskView
from dms_scheduler.jobs import Job, start_job
from dms_scheduler.journal import Journal
from dms_scheduler.lease import Lease, LeaseEvents
from dms_scheduler.masking import mask
from dms_scheduler.persist import persist
from dms_scheduler.plain import plain, plain_text
from task_state import (
    StoreUnavailableError,
    TaskRecord,
    TaskRepository,
    TaskStatus,
)
from task_state.managed import Attempt as Begun
from task_state.managed import ManagedTasks

logger = logging.getLogger(__name__)

MOST_OUTPUT_BYTES = 16 * 1024 * 1024 - 4096  # the store's limit, less our marker


class Stop(IntEnum):
    """Why a handler is stopped before its end; a higher reason replaces a lower one."""

    TIMEOUT = 1
    RELEASE = 2
    CANCEL = 3
    EXPIRED = 4
    FENCED = 5


_REASONS = {
    Stop.TIMEOUT: "the attempt's time is over",
    Stop.RELEASE: "this worker shuts down, and another will run the task",
    Stop.CANCEL: "the task was cancelled",
    Stop.EXPIRED: "the task's lease could not be renewed",
    Stop.FENCED: "the task went on without this attempt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettings:
    """How attempts are run; all times in seconds."""

    worker: str
    lease_seconds: float = 60.0
    heartbeat_seconds: float = 15.0
    cancel_grace_seconds: float = 10.0
    term_seconds: float = 5.0
    output_bytes: int = MOST_OUTPUT_BYTES


@dataclass(frozen=True, slots=True)
class Tools:
    """What all attempts of a worker share. `enqueue(task_id, epoch, delay)` queues a next one."""

    managed: ManagedTasks
    repository: TaskRepository
    pool: ChildPool
    enqueue: Callable[[str, int, float], Awaitable[None]]
    settings: AttemptSettings


class Attempt:
    """One attempt, begun already at `begun_at` (time.monotonic seconds, before the call)."""

    def __init__(
        self,
        tools: Tools,
        begun: Begun,
        definition: TaskDefinition[Any, Any],
        begun_at: float,
    ) -> None:
        settings = tools.settings
        self._tools = tools
        self._settings = settings
        self._record = begun.task
        self._task_id = begun.task.task_id
        self._epoch = begun.epoch
        self._definition = definition
        self._begun_at = begun_at
        self._stop: Stop | None = None
        self._grace = settings.cancel_grace_seconds
        self._stopped = asyncio.Event()
        self._lost = asyncio.Event()
        self._job: Job | None = None
        self._progress: dict[str, Any] | None = None
        self._journal = Journal(
            tools.managed, self._task_id, self._epoch, output_limit=settings.output_bytes
        )
        self._lease = Lease(
            tools.managed,
            self._task_id,
            self._epoch,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            begun=begun_at,
        )

    async def run(self) -> None:
        """Run the handler, write how it ended, and queue what follows.

        Raises FencedError, TransitionError or TaskNotFoundError when the task went on without it.
        """
        async with self._kept():
            outcome = await self._work()
            if self._stop is not Stop.FENCED:
                self._explain(outcome)
                await self._journal.flush()
        await self._conclude(outcome)

    def ask(self, reason: Stop, *, grace: float | None = None) -> None:
        """Stop the handler for this reason, unless a better one is known already."""
        if self._stop is not None and self._stop >= reason:
            return
        self._stop = reason
        if grace is not None:
            self._grace = grace
        self._stopped.set()
        if reason >= Stop.EXPIRED:
            self._lost.set()

    def look_for_cancel(self) -> None:
        """Somebody says that the task was cancelled: the record knows."""
        self._lease.beat_now()

    # What a running job says (children.process.JobEvents).

    def log(self, message: str) -> None:
        """A line for the task's log."""
        self._journal.line(message)

    def output(self, data: bytes) -> None:
        """A piece of the child's stdout and stderr."""
        self._journal.output(data)

    def progress(self, values: dict[str, Any], *, advanced: bool) -> None:
        """New progress; what cannot be written as JSON becomes a log line."""
        try:
            self._progress = plain(values)
        except (ValueError, TypeError, RecursionError) as error:
            self._journal.line(f"Progress that cannot be written as JSON was left out: {error}")
            return
        self._lease.progress(self._progress or {}, advanced=advanced)

    async def room(self) -> None:
        """Return when more lines can be taken."""
        await self._journal.room()

    # The work.

    @asynccontextmanager
    async def _kept(self) -> AsyncGenerator[None]:
        """Lease and journal run beside the work, and end with it."""
        events = LeaseEvents(
            deadline=self._move_deadline,
            cancel_requested=lambda: self.ask(Stop.CANCEL),
            fenced=lambda: self.ask(Stop.FENCED),
            expired=lambda: self.ask(Stop.EXPIRED),
        )
        work: list[Coroutine[Any, Any, None]] = [self._lease.run(events), self._journal.run()]
        beside = [asyncio.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def _move_deadline(self, at: float) -> None:
        if self._job is not None:
            self._job.deadline(at)

    async def _work(self) -> Outcome:
        view = _view(self._record, self._epoch)
        try:
            async with start_job(
                self._tools.pool, self._definition, view, self._lease.deadline, self
            ) as job:
                self._job = job
                job.deadline(self._lease.deadline)  # a child may have taken a while to start
                return await self._supervise(job)
        except ChildError as error:
            return Outcome(kind="failure", error=f"no child process could be started: {error}")
        finally:
            self._job = None

    async def _supervise(self, job: Job) -> Outcome:
        """Wait for the handler; when it must stop, ask, wait for the grace, then kill."""
        await _either(job.task, self._stopped, self._definition.options.timeout_seconds)
        if not job.task.done():
            self.ask(Stop.TIMEOUT)
            job.stop(_REASONS[self._stop or Stop.TIMEOUT])
            await _either(job.task, self._lost, self._grace)
        if not job.task.done():
            if self._stop is not Stop.FENCED:
                self._journal.line(
                    f"The handler did not stop within {self._grace:g} s of being asked"
                )
            await job.kill()
        return job.task.result()

    # The end.

    def _explain(self, outcome: Outcome) -> None:
        if outcome.message:
            self._journal.line(self._masked(outcome.message))
        if outcome.traceback and self._stop is None:
            for line in self._masked(outcome.traceback).splitlines():
                self._journal.line(line)

    async def _conclude(self, outcome: Outcome) -> None:
        """Write the end that outcome and stop reason mean together; repeated until it lands."""
        if self._stop is Stop.FENCED:
            self._log(logging.WARNING, "A stale attempt stopped, its writes are refused")
        elif outcome.kind == "success":
            seconds = time.monotonic() - self._begun_at
            await self._finish(
                TaskStatus.COMPLETED, f"Completed in {seconds:.1f} s", data=outcome.data
            )
        elif self._stop is Stop.CANCEL:
            await self._finish(TaskStatus.CANCELLED, "Cancelled")
        elif self._stop in {Stop.RELEASE, Stop.EXPIRED} or outcome.kind == "lease_lost":
            await self._release()
        else:
            await self._fail(self._failure(outcome))

    def _failure(self, outcome: Outcome) -> Outcome:
        error = outcome.error
        if self._stop is Stop.TIMEOUT:
            limit = self._definition.options.timeout_seconds
            error = f"the attempt was stopped after its limit of {limit:g} s"
        elif outcome.kind == "cancelled":
            error = f"the handler stopped as if cancelled, but nobody asked it to: {error or ''}"
        return replace(outcome, error=self._masked(error or "the handler failed without a reason"))

    async def _fail(self, outcome: Outcome) -> None:
        attempts, most = self._record.attempts, self._record.max_attempts
        if not outcome.retryable or attempts >= most:
            note = f"Failed in attempt {attempts} of {most}: {outcome.error}"
            await self._finish(
                TaskStatus.FAILED, note, data=outcome.data, error=outcome.error or ""
            )
            return
        delay = outcome.delay_seconds
        if delay is None:
            delay = retry_delay(self._definition.options, attempts)
        note = f"Attempt {attempts} of {most} failed: {outcome.error}; the next in {delay:.1f} s"
        status = await self._persist(
            lambda: self._tools.managed.retry(
                self._task_id, self._epoch, delay_seconds=delay, error=outcome.error, log_entry=note
            )
        )
        await self._queue_next(status, delay)

    async def _release(self) -> None:
        note = (
            f"Given back by worker {self._settings.worker}: {_REASONS[self._stop or Stop.EXPIRED]}"
        )
        status = await self._persist(
            lambda: self._tools.managed.release(self._task_id, self._epoch, log_entry=note)
        )
        await self._queue_next(status, 0.0)

    async def _finish(
        self, status: TaskStatus, note: str, *, data: Any = None, error: str | None = None
    ) -> None:
        await self._persist(
            lambda: self._tools.managed.finish(
                self._task_id,
                self._epoch,
                status,
                log_entry=note,
                data=data,
                error=error,
                progress=self._progress,
            )
        )
        self._log(logging.INFO, "Attempt ended", status=status.value)

    async def _queue_next(self, status: TaskStatus, delay: float) -> None:
        self._log(logging.INFO, "Attempt ended", status=status.value)
        if status is not TaskStatus.PENDING:
            return
        try:
            await self._tools.enqueue(self._task_id, self._epoch + 1, delay)
        except StoreUnavailableError as error:
            self._log(logging.WARNING, "The rescuer will queue the next attempt", error=str(error))

    async def _persist(self, write: Callable[[], Awaitable[TaskStatus]]) -> TaskStatus:
        return await persist(write, what="task.end", task_id=self._task_id)

    def _masked(self, text: str) -> str:
        return mask(plain_text(text), self._record.parameters)

    def _log(self, level: int, message: str, **fields: str) -> None:
        extra = {"action": "attempt", "task_id": self._task_id, "epoch": self._epoch, **fields}
        logger.log(level, message, extra=extra)


def retry_delay(options: TaskOptions, attempts: int) -> float:
    """Seconds before the next attempt, after `attempts` failed ones."""
    if options.retry == "fixed":
        return min(options.retry_delay_seconds, options.retry_max_delay_seconds)
    grown = options.retry_delay_seconds * 2.0 ** min(max(attempts, 1) - 1, 32)
    most = min(grown, options.retry_max_delay_seconds)
    return most * random.uniform(0.75, 1.0)  # noqa: S311  # nosec B311 - spreads, hides nothing


def _view(record: TaskRecord, epoch: int) -> TaskView:
    return TaskView(
        id=record.task_id,
        service=record.service,
        user_id=record.user_id,
        parameters=record.parameters,
        created_at=record.created_at,
        updated_at=record.updated_at,
        started_at=record.started_at,
        attempts=record.attempts,
        max_attempts=record.max_attempts,
        epoch=epoch,
        description=record.description,
    )


async def _either(task: asyncio.Task[Any], event: asyncio.Event, seconds: float | None) -> None:
    """Return when the task ends, the event is set, or the time is over."""
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiter}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
