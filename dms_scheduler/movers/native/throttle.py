"""The bandwidth limit: a token bucket that all threads and executors of a move share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

_BURST_SECONDS = 0.1
_LARGEST_CHUNK = 1 << 20
_RATE, _NEXT = range(2)

STATE_FIELDS = 2
"""How many numbers the state of a bucket takes."""


class State(Protocol):
    """Numbers that may lie in shared memory."""

    def __getitem__(self, place: int, /) -> float:
        """Return one."""
        ...

    def __setitem__(self, place: int, value: float, /) -> None:
        """Set one."""
        ...


class TokenBucket:
    """Lets `rate` bytes a second pass, and at most a tenth of a second's worth at once.

    A rate of 0 is no limit.
    """

    def __init__(
        self,
        rate: int = 0,
        clock: Callable[[], float] = time.monotonic,
        *,
        state: State | None = None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        """`rate` is in bytes a second; `clock` gives seconds. The state of a bucket that several
        processes share, and its lock, are the caller's."""
        self._clock = clock
        self._state: State = [0.0] * STATE_FIELDS if state is None else state
        self._lock = threading.Lock() if lock is None else lock
        self.limit_to(rate)

    @property
    def rate(self) -> int:
        """Bytes a second, 0 for no limit."""
        return int(self._state[_RATE])

    def limit_to(self, rate: int) -> None:
        """Change the rate; what is owed under the old one is forgotten."""
        with self._lock:
            self._state[_RATE] = rate
            self._state[_NEXT] = self._clock()

    def reserve(self, amount: int) -> float:
        """Take `amount` bytes and return how many seconds to wait before moving them.

        The bucket goes into debt, so who shares it queues up in the order in which they ask.
        """
        if not self._state[_RATE]:
            return 0.0
        with self._lock:
            rate = self._state[_RATE]
            if not rate:
                return 0.0
            now = self._clock()
            self._state[_NEXT] = max(self._state[_NEXT], now - _BURST_SECONDS) + amount / rate
            return max(0.0, self._state[_NEXT] - now)


class LiveBucket(TokenBucket):
    """A bucket of one process that asks for its rate again and again."""

    def __init__(self, rate: int, wanted: Callable[[], int | None]) -> None:
        """`wanted` gives the rate that is to hold by now, None for `rate`."""
        super().__init__(rate)
        self._usual = rate
        self._wanted = wanted

    @property
    def rate(self) -> int:
        """Bytes a second by now, 0 for no limit."""
        wanted = self._wanted()
        rate = self._usual if wanted is None else wanted
        if rate != super().rate:
            self.limit_to(rate)
        return rate


def chunk_size(bandwidth: int | None) -> int:
    """Return how many bytes to move between two checks: small enough that a check comes often."""
    if not bandwidth:
        return _LARGEST_CHUNK
    return max(1, min(_LARGEST_CHUNK, bandwidth // 10))
