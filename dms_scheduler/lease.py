"""One attempt's lease: kept by heartbeats, which take progress and checkpoints out and bring
cancellations and adjustments in."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dms_scheduler.persist import persist
from dms_scheduler.series import Series
from task_state import (
    FencedError,
    InvalidRequestError,
    StoreUnavailableError,
    TaskNotFoundError,
    TaskStatus,
)
from task_state.managed import Checkpoint, ManagedTasks

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 1.0
_CHECKPOINT_SECONDS = 0.05  # a handler that saves in a tight loop must not keep the store busy
_AGAIN_SECONDS = 1.0
_MARGIN_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEvents:
    """Whom a lease tells what: all called in the event loop, and quick."""

    deadline: Callable[[float], None]
    cancel_requested: Callable[[], None]
    fenced: Callable[[], None]
    expired: Callable[[], None]
    adjusted: Callable[[dict[str, Any]], None]


class Lease:
    """Keeps one attempt's lease from `begun` (time.monotonic seconds, taken before begin) on.

    The handler must have stopped at `deadline`, 15 seconds (a quarter, for short leases) before
    the lease ends; each heartbeat moves both on, counted from before it was sent.
    """

    def __init__(
        self,
        managed: ManagedTasks,
        task_id: str,
        epoch: int,
        *,
        lease_seconds: float,
        heartbeat_seconds: float,
        begun: float,
        adjusted: dict[str, Any],
        series: Series,
    ) -> None:
        self._managed = managed
        self._task_id = task_id
        self._epoch = epoch
        self._lease = lease_seconds
        self._heartbeat = heartbeat_seconds
        self._sent = begun
        self._ends = begun + lease_seconds
        self._wake = asyncio.Event()
        self._progress: dict[str, Any] | None = None
        self._advanced = False
        self._checkpoint: Checkpoint | None = None
        self._urgent = False
        self._series = series
        self.adjusted = adjusted
        """What somebody has changed about the task, as the store last said."""

    @property
    def deadline(self) -> float:
        """When the handler must change nothing more: time.monotonic seconds."""
        return self._ends - min(_MARGIN_SECONDS, self._lease / 4)

    def progress(self, values: dict[str, Any] | None, *, advanced: bool) -> None:
        """Send this with the next heartbeat, in a second at most; the newest one counts. None
        leaves what there is."""
        self._progress = self._progress if values is None else values
        self._advanced = self._advanced or advanced
        self._wake.set()

    def checkpoint(self, value: Any) -> None:
        """Send this as soon as what is being sent has arrived; the newest one counts."""
        self._checkpoint = Checkpoint(value)
        self._wake.set()

    async def settle(self, *, succeeded: bool) -> None:
        """Write what has not arrived yet, repeated until it does: the attempt ends, and `run` with
        it. The checkpoint of one that succeeded goes to nobody. Raises FencedError or
        TaskNotFoundError."""
        checkpoint = None if succeeded else self._checkpoint
        series = self._series.due(now=True)
        if checkpoint is None and not series:
            return
        await persist(
            lambda: self._managed.heartbeat(
                self._task_id,
                self._epoch,
                lease_seconds=self._lease,
                checkpoint=checkpoint,
                series=series,
            ),
            what="task.checkpoint",
            task_id=self._task_id,
        )

    def beat_now(self) -> None:
        """Ask the store at once: somebody said that the task was cancelled."""
        self._urgent = True
        self._wake.set()

    async def run(self, events: LeaseEvents) -> None:
        """Keep the lease until cancelled, or until the task goes on without this attempt."""
        wait = self._heartbeat
        while True:
            await self._until_due(wait)
            answer = await self._beat(events)
            if answer is None:
                return
            wait = answer

    async def _until_due(self, wait: float) -> None:
        """Wait for the next heartbeat: sooner when there is something to tell."""
        await self._woken(wait)
        while not self._urgent and (early := self._earliest() - time.monotonic()) > 0:
            self._wake.clear()
            await self._woken(early)
        self._wake.clear()
        self._urgent = False

    def _earliest(self) -> float:
        """When the next heartbeat may be sent: neither progress nor checkpoints come in floods."""
        waiting = self._checkpoint is not None
        return self._sent + (_CHECKPOINT_SECONDS if waiting else _PROGRESS_SECONDS)

    async def _woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _beat(self, events: LeaseEvents) -> float | None:
        """One heartbeat; the seconds until the next, or None when it was the last."""
        values, advanced, checkpoint = self._progress, self._advanced, self._checkpoint
        self._progress, self._advanced = None, False
        series = self._series.due()
        self._sent = time.monotonic()
        try:
            kept = await self._managed.heartbeat(
                self._task_id,
                self._epoch,
                lease_seconds=self._lease,
                progress=values,
                advanced=advanced,
                checkpoint=checkpoint,
                series=series,
            )
        except (FencedError, TaskNotFoundError):
            events.fenced()
            return None
        except InvalidRequestError as error:
            self._refused(error)
            if values is None:
                self._arrived(checkpoint)  # it is the one to blame: without it we may go on
            return _AGAIN_SECONDS
        except StoreUnavailableError:
            self._keep(values, advanced=advanced)
            if time.monotonic() >= self._ends:
                events.expired()
            return min(_AGAIN_SECONDS, self._heartbeat)
        self._arrived(checkpoint)
        if series:
            self._series.stored()
        self._ends = self._sent + self._lease
        events.deadline(self.deadline)
        if kept.adjusted != self.adjusted:
            self.adjusted = kept.adjusted
            events.adjusted(kept.adjusted)
        if kept.status is TaskStatus.CANCEL_REQUESTED:
            events.cancel_requested()
        return self._heartbeat

    def _arrived(self, checkpoint: Checkpoint | None) -> None:
        """Forget it, unless a newer one came meanwhile. Until now it was kept, for a heartbeat can
        be cut off at any moment."""
        if self._checkpoint is checkpoint:
            self._checkpoint = None

    def _keep(self, values: dict[str, Any] | None, *, advanced: bool) -> None:
        if self._progress is None:
            self._progress = values
        self._advanced = self._advanced or advanced

    def _refused(self, error: InvalidRequestError) -> None:
        logger.warning(
            "Progress or checkpoint was refused",
            extra={"action": "task.progress", "task_id": self._task_id, "error": str(error)},
        )
