"""Loops that run beside the requests: owned, stopped with their owner, ended by no fault."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from task_state import StoreUnavailableError

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 1.0
"""How long a loop waits after a fault: well within the five seconds that a recovery may take."""


class Background:
    """The background tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Call `step` again and again until stop(); see `repeat`."""
        self._tasks.append(asyncio.create_task(repeat(name, step), name=name))

    async def stop(self) -> None:
        """Cancel every loop and wait until all have ended."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def repeat(
    name: str, step: Callable[[], Awaitable[None]], *, pause_seconds: float = PAUSE_SECONDS
) -> None:
    """Call `step` for ever. A fault is logged when it is the first of its streak, then the loop
    waits a moment and goes on: the store being away, or a defect of ours, must not end it."""
    failing = False
    while True:
        try:
            await step()
        except StoreUnavailableError as error:
            if not failing:
                log.warning(
                    "The task store is away; waiting for it",
                    extra={"action": "background.wait", "loop": name, "reason": str(error)},
                )
        except Exception:  # the edge of a loop: whatever it was, the next turn must come
            log.exception("A loop failed", extra={"action": "background.failed", "loop": name})
        else:
            if failing:
                log.info("Going on", extra={"action": "background.resume", "loop": name})
            failing = False
            continue
        failing = True
        await asyncio.sleep(pause_seconds)
