"""Stops the threads of a mover: one flag, one cause, and a pause that can be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from dms_scheduler.movers.contract import Control
from dms_scheduler.movers.errors import LeaseLost, RunnerLost

_SLICE_SECONDS = 0.05
_LEASE_OVER = "the lease of this attempt ran out; another attempt may have begun"


class Brake(Protocol):
    """What a copy asks whether it may go on: a guard, or in an executor the shared memory."""

    def check(self) -> None:
        """Raise to stop; asked right before each change too."""
        ...

    def pause(self, seconds: float) -> None:
        """Wait, and raise to stop."""
        ...


class Stopped(Exception):
    """Another thread of this run met the reason to stop, which the guard knows."""


class Guard:
    """Asks the control whether to go on, and spreads the first reason to stop to all threads."""

    def __init__(
        self,
        control: Control,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock` and `sleep` (seconds) are for tests."""
        self._control = control
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._cause: BaseException | None = None

    @property
    def cause(self) -> BaseException | None:
        """Why the run stops, None while it goes on."""
        return self._cause

    def check(self) -> None:
        """Raise `Stopped`, or whatever the control raises, when the calling thread must stop.

        Raises:
            LeaseLost: the deadline up to which this attempt may change something has passed.

        """
        if self._cause is not None:
            raise Stopped
        try:
            self._control.check()
        except OSError as error:
            raise RunnerLost(error) from error
        if self._clock() >= self._control.deadline:
            raise LeaseLost(_LEASE_OVER)

    def stop(self, cause: BaseException) -> None:
        """Make every further check raise; the first cause is kept."""
        with self._lock:
            if self._cause is None and not isinstance(cause, Stopped):
                self._cause = cause

    def pause(self, seconds: float) -> None:
        """Wait, checking twenty times a second."""
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            self.check()
            self._sleep(min(left, _SLICE_SECONDS))
        self.check()
