"""One attempt at a task: its handler supervised, its words and its lease kept, its end written."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from app.tasks import TaskDefinition
from dms_scheduler.children import ChildError
from dms_scheduler.ending import STOP_REASONS, Ending, Stop, Tools
from dms_scheduler.handler import Outcome, TaskView
from dms_scheduler.jobs import Job, NotStartedError, start_job
from dms_scheduler.journal import Journal
from dms_scheduler.lease import Lease, LeaseEvents
from dms_scheduler.persist import persist
from dms_scheduler.report import Block
from dms_scheduler.report_journal import ReportJournal
from dms_scheduler.series import Series
from task_state import TaskRecord
from task_state.managed import Attempt as Begun


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
        self._ending = Ending(tools, begun, definition, begun_at)
        self._stop: Stop | None = None
        self._grace = settings.cancel_grace_seconds
        self._stopped = asyncio.Event()
        self._lost = asyncio.Event()
        self._job: Job | None = None
        self._progress: dict[str, Any] | None = None
        self._journal = Journal(
            tools.managed, self._task_id, self._epoch, output_limit=settings.output_bytes
        )
        self._report = ReportJournal(tools.managed, self._task_id, self._epoch, self._record.report)
        self._series = Series(time.time_ns() // 1_000_000)
        self._lease = Lease(
            tools.managed,
            self._task_id,
            self._epoch,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            begun=begun_at,
            adjusted=self._record.adjust or {},
            series=self._series,
        )

    async def run(self) -> None:
        """Run the handler, and write how it ended.

        Raises FencedError, TransitionError or TaskNotFoundError when the task went on without it.
        """
        async with self._kept():
            if self._epoch > 1:
                await self._recall()
            outcome = await self._work()
            if self._stop is not Stop.FENCED:
                for line in self._ending.lines(outcome, self._stop):
                    self._journal.line(line)
                await self._report.flush()
                await self._journal.flush()
        if self._stop is not Stop.FENCED:
            await self._lease.settle(succeeded=outcome.kind == "success")
        await self._ending.write(outcome, self._stop, self._progress)

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

    def progress(self, values: dict[str, Any] | None, *, advanced: bool) -> None:
        """New progress, which the handler's side has made fit to be stored (`shown`)."""
        if values is not None:
            self._progress = values
            self._series.add(values)
        self._lease.progress(values, advanced=advanced)

    def checkpoint(self, value: Any) -> None:
        """What the handler saved for its next attempt."""
        self._lease.checkpoint(value)

    def report(self, block: Block) -> None:
        """Lines for the task's report."""
        self._report.add(block)

    async def room(self) -> None:
        """Return when more lines and blocks can be taken."""
        await self._journal.room()
        await self._report.room()

    # The work.

    @asynccontextmanager
    async def _kept(self) -> AsyncGenerator[None]:
        """Lease and journal run beside the work, and end with it."""
        events = LeaseEvents(
            deadline=self._move_deadline,
            cancel_requested=lambda: self.ask(Stop.CANCEL),
            fenced=lambda: self.ask(Stop.FENCED),
            expired=lambda: self.ask(Stop.EXPIRED),
            adjusted=self._adjust,
        )
        work: list[Coroutine[Any, Any, None]] = [
            self._lease.run(events), self._journal.run(), self._report.run()
        ]  # fmt: skip
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

    async def _recall(self) -> None:
        """What earlier attempts have left in the series."""
        reports = self._tools.reports
        stored = await persist(
            lambda: reports.series(self._task_id), what="task.series", task_id=self._task_id
        )
        self._series.continue_from(stored)

    def _adjust(self, values: dict[str, Any]) -> None:
        if self._job is not None:
            self._job.adjust(values)

    async def _work(self) -> Outcome:
        view = _view(self._record, self._epoch)
        try:
            async with start_job(
                self._tools.pool,
                self._definition,
                view,
                self._lease.deadline,
                self,
                self._stopped,
            ) as job:
                self._job = job
                job.deadline(self._lease.deadline)  # a child may have taken a while to start
                if self._lease.adjusted != view.adjusted:
                    job.adjust(self._lease.adjusted)
                return await self._supervise(job)
        except NotStartedError:
            return Outcome(kind="cancelled")
        except ChildError as error:
            return Outcome(kind="failure", error=f"no child process could be started: {error}")
        finally:
            self._job = None

    async def _supervise(self, job: Job) -> Outcome:
        """Wait for the handler; when it must stop, ask, wait for the grace, then kill."""
        await _either(job.task, self._stopped, self._definition.options.timeout_seconds)
        if not job.task.done():
            self.ask(Stop.TIMEOUT)
            why = self._stop or Stop.TIMEOUT
            job.stop(STOP_REASONS[why], ends_task=why is Stop.CANCEL)
            await _either(job.task, self._lost, self._grace)
        if not job.task.done():
            if self._stop is not Stop.FENCED:
                self._journal.line(
                    f"The handler did not stop within {self._grace:g} s of being asked"
                )
            await job.kill()
        outcome = job.task.result()
        if self._lost.is_set() or outcome.kind == "lease_lost":
            await job.kill()  # what it left running has no time to end in order: a newer attempt
        return outcome  # may be at work by now


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
        checkpoint=record.checkpoint,
        adjusted=record.adjust or {},
    )


async def _either(task: asyncio.Task[Any], event: asyncio.Event, seconds: float | None) -> None:
    """Return when the task ends, the event is set, or the time is over."""
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiter}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
