"""The threads that copy and check files, fed through a bounded queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from dms_scheduler.movers.guard import Guard

_WAIT_SECONDS = 0.05
Job = TypeVar("Job")


class Crew(Generic[Job]):
    """Runs `work` on every submitted job; once the guard stops, `discard` instead.

    Leaving the context waits for every job. An error in any thread stops all of them, and is
    raised from there.
    """

    def __init__(
        self,
        size: int,
        guard: Guard,
        work: Callable[[Job], None],
        discard: Callable[[Job], None],
    ) -> None:
        """`size` is the number of threads; twice as many jobs may wait."""
        self._guard = guard
        self._work = work
        self._discard = discard
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=size * 2)
        self._threads = [
            threading.Thread(target=self._run, name=f"mover-{number}", daemon=True)
            for number in range(size)
        ]

    def __enter__(self) -> Self:
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until every job is done, or after an error: discarded."""
        if error is not None:
            self._guard.stop(error)
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        if error is None:
            self._guard.check()

    def submit(self, job: Job) -> None:
        """Queue a job, waiting for a free place; raises when the run stops, the job discarded."""
        try:
            while True:
                self._guard.check()
                try:
                    return self._jobs.put(job, timeout=_WAIT_SECONDS)
                except queue.Full:
                    continue
        except BaseException:
            self._discard(job)
            raise

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._guard.cause is not None:
                self._discard(job)
                continue
            try:
                self._work(job)
            except BaseException as error:  # noqa: BLE001 - raised again where the crew is left
                self._guard.stop(error)
