"""The bandwidth limit: a token bucket that all threads of a move share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST_SECONDS = 0.1
_LARGEST_CHUNK = 1 << 20


class TokenBucket:
    """Lets `rate` bytes a second pass, and at most a tenth of a second's worth at once."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate` is in bytes a second and at least 1; `clock` gives seconds."""
        self._rate = rate
        self._clock = clock
        self._capacity = rate * _BURST_SECONDS
        self._tokens = 0.0
        self._last = clock()
        self._lock = threading.Lock()

    def reserve(self, amount: int) -> float:
        """Take `amount` bytes and return how many seconds to wait before moving them.

        The bucket goes into debt, so threads queue up in the order in which they ask.
        """
        with self._lock:
            now = self._clock()
            earned = (now - self._last) * self._rate
            self._tokens = min(self._capacity, self._tokens + earned) - amount
            self._last = now
            return max(0.0, -self._tokens / self._rate)


def chunk_size(bandwidth: int | None) -> int:
    """Return how many bytes to move between two checks: small enough that a check comes often."""
    if bandwidth is None:
        return _LARGEST_CHUNK
    return max(1, min(_LARGEST_CHUNK, bandwidth // 10))
