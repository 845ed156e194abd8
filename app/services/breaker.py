"""A circuit breaker: while the scheduler does not answer, nearly nothing is sent to it."""

import asyncio
import random
import time
from typing import Final

THRESHOLD: Final = 5
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class Breaker:
    """Opens after THRESHOLD failures in a row, for half a second at first and 5 s at most.

    After each pause one event may pass as a probe; a success closes the breaker.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the scheduler is thought to be away; then only probes go out."""
        return self._failures >= THRESHOLD

    def succeeded(self) -> None:
        """The scheduler answered."""
        self._failures = 0

    def failed(self) -> None:
        """The scheduler did not answer."""
        self._failures += 1
        if self.is_open:
            pause = _FIRST_PAUSE * 2 ** min(self._failures - THRESHOLD, 10)
            # Replicas must not probe in step.
            jitter = random.uniform(0.8, 1.0)  # noqa: S311  # nosec B311
            self._open_until = time.monotonic() + min(pause, _LONGEST_PAUSE) * jitter

    async def wait(self) -> None:
        """Return when an event may be sent."""
        if self.is_open:
            await asyncio.sleep(max(self._open_until - time.monotonic(), 0.0))
