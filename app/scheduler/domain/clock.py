"""What a trigger knows of time: a clock to read and to sleep by, so that tests bring their own."""

import asyncio
from typing import Final, Protocol

LONGEST_SLEEP: Final = 60.0
"""Seconds after which the clock is read again, for it may have been set."""


class Clock(Protocol):
    """Wall-clock time: it may be set, forward and back."""

    def now(self) -> float:
        """Seconds since 1970-01-01T00:00 UTC."""
        ...

    async def sleep(self, seconds: float, wake: asyncio.Event) -> None:
        """Return after so many seconds, or as soon as `wake` is set. Too early is allowed."""
        ...
