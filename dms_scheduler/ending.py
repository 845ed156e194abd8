"""How an attempt's outcome and the reason it was stopped become the task's next state."""

import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from app.tasks import TaskDefinition, TaskOptions
from dms_scheduler.children import ChildPool
from dms_scheduler.handler import Outcome
from dms_scheduler.masking import mask
from dms_scheduler.persist import persist
from dms_scheduler.plain import plain_text
from task_state import AttemptOutcome, TaskRepository, TaskStatus
from task_state.managed import Attempt as Begun
from task_state.managed import Failing, ManagedTasks
from task_state.reports import Reports

logger = logging.getLogger(__name__)

_MOST_ERROR_CHARACTERS = 4096
_LEAST_WAIT_SECONDS = 1.0
MOST_OUTPUT_BYTES = 16 * 1024 * 1024 - 4096  # the store's limit, less our marker


class Stop(IntEnum):
    """Why a handler is stopped before its end; a higher reason replaces a lower one."""

    TIMEOUT = 1
    RELEASE = 2
    CANCEL = 3
    EXPIRED = 4
    FENCED = 5


STOP_REASONS = {
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
    """What all attempts of a worker share."""

    managed: ManagedTasks
    repository: TaskRepository
    pool: ChildPool
    settings: AttemptSettings
    reports: Reports


class Ending:
    """Writes the end of one attempt. All its methods raise FencedError, TransitionError or
    TaskNotFoundError when the task went on without the attempt."""

    def __init__(
        self,
        tools: Tools,
        begun: Begun,
        definition: TaskDefinition[Any, Any],
        begun_at: float,
    ) -> None:
        self._tools = tools
        self._record = begun.task
        self._task_id = begun.task.task_id
        self._epoch = begun.epoch
        self._options = definition.options
        self._begun_at = begun_at
        self._progress: dict[str, Any] | None = None

    def lines(self, outcome: Outcome, stop: Stop | None) -> Iterable[str]:
        """What the log should say before the end is written."""
        if outcome.message:
            yield self._masked(outcome.message)
        if outcome.traceback and stop is None:
            yield from self._masked(outcome.traceback).splitlines()

    async def write(
        self, outcome: Outcome, stop: Stop | None, progress: dict[str, Any] | None
    ) -> None:
        """Write the end that outcome and reason mean together, repeated until it lands."""
        self._progress = progress
        if stop is Stop.FENCED:
            self._log(logging.WARNING, "A stale attempt stopped, its writes are refused")
        elif outcome.kind == "success":
            seconds = time.monotonic() - self._begun_at
            await self._finish(
                TaskStatus.COMPLETED, f"Completed in {seconds:.1f} s", data=outcome.data
            )
        elif stop is Stop.CANCEL:
            failing = Failing("cancelled", STOP_REASONS[stop])
            await self._finish(TaskStatus.CANCELLED, "Cancelled", failing=failing)
        elif stop in {Stop.RELEASE, Stop.EXPIRED} or outcome.kind == "lease_lost":
            await self._release(stop or Stop.EXPIRED)
        elif outcome.kind == "failure" and not outcome.counted and stop is None:
            await self._wait(self._failure(outcome, stop))
        else:
            how: AttemptOutcome = "timeout" if stop is Stop.TIMEOUT else "failed"
            await self._fail(self._failure(outcome, stop), how)

    def _failure(self, outcome: Outcome, stop: Stop | None) -> Outcome:
        error = outcome.error
        if stop is Stop.TIMEOUT:
            limit = self._options.timeout_seconds
            error = f"the attempt was stopped after its limit of {limit:g} s"
        elif outcome.kind == "cancelled":
            error = f"the handler stopped as if cancelled, but nobody asked it to: {error or ''}"
        error = self._masked(error or "the handler failed without a reason")
        if len(error) > _MOST_ERROR_CHARACTERS:
            error = f"{error[:_MOST_ERROR_CHARACTERS]}... [cut here]"
        return replace(outcome, error=error)

    async def _fail(self, outcome: Outcome, how: AttemptOutcome) -> None:
        attempts, most = self._record.attempts, self._record.max_attempts
        failing = Failing(how, outcome.error or "")
        if not outcome.retryable or attempts >= most:
            note = f"Failed in attempt {attempts} of {most}: {outcome.error}"
            await self._finish(
                TaskStatus.FAILED, note, data=outcome.data, error=outcome.error, failing=failing
            )
            return
        delay = outcome.delay_seconds
        if delay is None:
            delay = retry_delay(self._options, attempts)
        note = f"Attempt {attempts} of {most} failed: {outcome.error}; the next in {delay:.1f} s"
        status = await self._persist(
            lambda: self._tools.managed.retry(
                self._task_id,
                self._epoch,
                delay_seconds=delay,
                error=outcome.error,
                log_entry=note,
                failing=failing,
            )
        )
        self._log(logging.INFO, "Attempt ended", status=status.value)

    async def _wait(self, outcome: Outcome) -> None:
        """Let the task wait for what the handler told, uncounted and longer each time."""
        delay = outcome.delay_seconds
        if delay is None:
            # Attempts that did not count are the epochs beyond those that did; drains are rare.
            delay = retry_delay(self._options, self._epoch - self._record.attempts + 1)
        delay = max(delay, _LEAST_WAIT_SECONDS)
        reason = outcome.error or ""
        await self._give_back(f"Waits, looks again in {delay:.1f} s: {reason}", reason, delay)

    async def _release(self, why: Stop) -> None:
        worker = self._tools.settings.worker
        reason = STOP_REASONS[why]
        await self._give_back(f"Given back by worker {worker}: {reason}", reason, 0.0)

    async def _give_back(self, note: str, reason: str, delay: float) -> None:
        failing = Failing("released", reason)
        status = await self._persist(
            lambda: self._tools.managed.release(
                self._task_id,
                self._epoch,
                delay_seconds=delay,
                log_entry=note,
                failing=failing,
            )
        )
        self._log(logging.INFO, "Attempt ended", status=status.value)

    async def _finish(
        self,
        status: TaskStatus,
        note: str,
        *,
        data: Any = None,
        error: str | None = None,
        failing: Failing | None = None,
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
                failing=failing,
            )
        )
        self._log(logging.INFO, "Attempt ended", status=status.value)

    async def _persist(self, write: Callable[[], Awaitable[TaskStatus]]) -> TaskStatus:
        return await persist(write, what="task.end", task_id=self._task_id)

    def _masked(self, text: str) -> str:
        return mask(plain_text(text), self._record.parameters)

    def _log(self, level: int, message: str, **fields: str) -> None:
        extra = {"action": "attempt", "task_id": self._task_id, "epoch": self._epoch, **fields}
        logger.log(level, message, extra=extra)


def retry_delay(options: TaskOptions, attempts: int) -> float:
    """Seconds before the next attempt, after `attempts` failed ones."""
    doublings = min(max(attempts, 1) - 1, 32) if options.retry == "exponential" else 0
    grown = options.retry_delay_seconds * 2.0**doublings
    most = min(grown, options.retry_max_delay_seconds)
    return most * random.uniform(1.0 - options.jitter, 1.0)  # noqa: S311  # nosec B311
