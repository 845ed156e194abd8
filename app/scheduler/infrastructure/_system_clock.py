"""The clock of the machine."""

import asyncio
import time
from contextlib import suppress
from typing import Final


class SystemClock:
    """Reads the wall clock, and sleeps by the event loop's."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float, wake: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await wake.wait()


SYSTEM_CLOCK: Final = SystemClock()
