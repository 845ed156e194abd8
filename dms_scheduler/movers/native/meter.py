"""Counts what a move does, from all its threads, and reports it from one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from types import TracebackType
from typing import Protocol

from dms_scheduler.movers.contract import Control
from dms_scheduler.movers.errors import RunnerLost
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.results import (
    MAX_FAILED_PATHS,
    ActiveFile,
    FailedPath,
    Phase,
    Progress,
    Totals,
)

_REPORT_SECONDS = 0.5
_SPEED_SAMPLES = 12
_MOST_ACTIVE = 8


class Tally(StrEnum):
    """What is counted; the values are the fields of `Totals`."""

    FILES = "files"
    BYTES = "bytes"
    SKIPPED = "skipped"
    UPDATED = "updated"
    LINKS = "links"
    HARDLINKS = "hardlinks"
    DIRS = "dirs"
    SPECIAL = "special"
    CHECKS = "checks"
    DELETED = "deleted"


class Ledger(Protocol):
    """What a copy tells of itself: to a meter, or in an executor to the shared memory."""

    def add(self, tally: Tally, amount: int = 1) -> None:
        """Count something."""
        ...

    def moved(self, size: int) -> None:
        """Count bytes that were just written."""
        ...

    def expect_more(self, size: int, files: int = 0) -> None:
        """Expect that much more than was planned."""
        ...

    def begin(self, path: str, size: int) -> None:
        """Name the file that is worked on from now on."""
        ...

    def end(self) -> None:
        """Say that it is done with."""
        ...

    def hold(self, temporary: int) -> None:
        """Say which temporary file is there now, by its number; 0 for none."""
        ...


class Meter:
    """Thread-safe counts, the bounded list of failures, and speed over the last six seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds and never goes back."""
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(Tally, 0)
        self._phase = Phase.PLAN
        self._current = ""
        self._moved = 0
        self._expected = (0, 0)
        self._known = False
        self._failed: list[FailedPath] = []
        self._failed_count = 0
        self._retryable = False
        self._begun = clock()
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SPEED_SAMPLES)
        self._active: dict[int, ActiveFile] = {}
        self._elsewhere: Callable[[], Iterable[ActiveFile]] = tuple

    @property
    def seconds(self) -> float:
        """How long this run has taken so far."""
        return self._clock() - self._begun

    @property
    def totals(self) -> Totals:
        """The counts so far."""
        with self._lock:
            return Totals(**{tally.value: count for tally, count in self._counts.items()})

    @property
    def failed(self) -> tuple[FailedPath, ...]:
        """The first failures."""
        with self._lock:
            return tuple(self._failed)

    @property
    def failed_count(self) -> int:
        """How many paths failed, named or not."""
        return self._failed_count

    @property
    def retryable(self) -> bool:
        """Whether another attempt may help any of the failed paths."""
        return self._retryable

    def add(self, tally: Tally, amount: int = 1) -> None:
        """Count something."""
        with self._lock:
            self._counts[tally] += amount

    def count(self, tally: Tally) -> int:
        """Return one count."""
        return self._counts[tally]

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self._phase = phase

    def expect(self, files: int, size: int, *, known: bool) -> None:
        """Set what is to be moved; `known` is False if more may come, and then there is no eta."""
        with self._lock:
            self._expected = (files, size)
            self._known = known

    def working_on(self, path: str) -> None:
        """Name the path that is worked on."""
        self._current = path

    def moved(self, size: int) -> None:
        """Count bytes that were just written, of the calling thread's file if it began one."""
        thread = threading.get_ident()
        with self._lock:
            self._moved += size
            file = self._active.get(thread)
            if file is not None:
                done = min(file.bytes + size, file.size)
                self._active[thread] = ActiveFile(path=file.path, bytes=done, size=file.size)

    def begin(self, path: str, size: int) -> None:
        """Name the file that the calling thread works on from now on."""
        with self._lock:
            self._current = path
            self._active[threading.get_ident()] = ActiveFile(path=path, bytes=0, size=size)

    def end(self) -> None:
        """Say that the calling thread is done with its file."""
        with self._lock:
            self._active.pop(threading.get_ident(), None)

    def watch(self, elsewhere: Callable[[], Iterable[ActiveFile]] = tuple) -> None:
        """Ask that for the files of other processes; what was asked before may go then."""
        with self._lock:  # a snapshot may be asking it
            self._elsewhere = elsewhere

    def hold(self, temporary: int) -> None:
        """A temporary file of this process: it removes its own."""

    def expect_more(self, size: int, files: int = 0) -> None:
        """Expect that much more: a repeated file's bytes, or one that turned out to differ."""
        with self._lock:
            known_files, known_size = self._expected
            self._expected = (known_files + files, known_size + size)

    def fail(self, path: str, reason: str, error_class: str, *, retryable: bool) -> bool:
        """Record a failure; return whether it is among those that are named."""
        with self._lock:
            self._failed_count += 1
            self._retryable = self._retryable or retryable
            named = len(self._failed) < MAX_FAILED_PATHS
            if named:
                failure = FailedPath(path=path, reason=reason, error_class=error_class)
                self._failed.append(failure)
            return named

    def snapshot(self) -> Progress:
        """Return the progress; each call is a sample for the speed, so one caller alone asks."""
        with self._lock:
            now = self._clock()
            self._samples.append((now, self._moved))
            speed = self._speed()
            files, size = self._expected
            left = max(0, size - self._moved)
            active = (*self._active.values(), *self._elsewhere())[:_MOST_ACTIVE]
            return Progress(
                phase=self._phase,
                bytes=self._moved,
                total_bytes=max(size, self._moved),
                files=self._counts[Tally.FILES],
                total_files=max(files, self._counts[Tally.FILES]),
                checks=self._counts[Tally.CHECKS],
                deletes=self._counts[Tally.DELETED],
                errors=self._failed_count,
                speed=round(speed, 1),
                eta=round(left / speed, 1) if self._known and speed > 0 else None,
                current=active[0].path if active else self._current,
                active=active,
            )

    def _speed(self) -> float:
        (then, before), (now, moved) = self._samples[0], self._samples[-1]
        return (moved - before) / (now - then) if now > then else 0.0


class Reporter:
    """Hands the progress to the control twice a second, from its own thread, while it is entered.

    A thread of its own, because the others may sit in one long system call.
    """

    def __init__(self, meter: Meter, control: Control, guard: Guard) -> None:
        """The guard is told if the control cannot take progress."""
        self._meter = meter
        self._control = control
        self._guard = guard
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mover-progress", daemon=True)

    def __enter__(self) -> None:
        """Report once at once, then go on in the background."""
        self._report()
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and report the end if the run succeeded (else nobody may listen any more)."""
        self._done.set()
        self._thread.join()
        if error is None:
            self._report()

    def _run(self) -> None:
        try:
            while not self._done.wait(_REPORT_SECONDS):
                self._report()
        except BaseException as error:  # noqa: BLE001 - handed to the run's own thread, not lost
            self._guard.stop(error)

    def _report(self) -> None:
        try:
            self._control.progress(self._meter.snapshot())
        except OSError as error:
            raise RunnerLost(error) from error
