"""The clock that schedules go by: the store's, which all replicas share, be their own wrong."""

import asyncio
import time
from contextlib import suppress
from typing import Final

LONGEST_SLEEP: Final = 0.5
"""Seconds after which a sleeper looks again: the store's clock may have been set meanwhile."""


class StoreClock:
    """Seconds since 1970 by the store's time, read now and then, and the monotonic clock since.

    It never runs ahead by more than the time that a reading took, so nothing fires early; before
    the first reading it stands at 0, when nothing is due.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None  # of the monotonic clock

    def now(self) -> float:
        """The time; 0 before the first reading."""
        return 0.0 if self._ahead is None else time.monotonic() + self._ahead

    def read(self, store_time: float, asked: float, answered: float) -> None:
        """Take a reading: the store's time at some moment between two of the monotonic clock."""
        least, most = store_time - answered, store_time - asked
        # Of several readings the quickest is the best, unless the clocks have moved apart since.
        if self._ahead is None or not least <= self._ahead <= most:
            self._ahead = least

    async def sleep(self, seconds: float, wake: asyncio.Event) -> None:
        """Return after so many seconds, often sooner, or as soon as `wake` is set."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, LONGEST_SLEEP)):
                await wake.wait()
