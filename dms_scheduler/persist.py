"""Repeating a write until Redis has it: for writes that epochs make safe to repeat."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from task_state import StoreUnavailableError

logger = logging.getLogger(__name__)

_DELAYS = (0.1, 0.2, 0.5, 1.0)

T = TypeVar("T")


async def persist(write: Callable[[], Awaitable[T]], *, what: str, task_id: str) -> T:
    """Call `write` until it does not raise StoreUnavailableError, about once a second.

    For as long as it takes: whoever has a limit cancels. Every other error is the caller's.
    """
    failures = 0
    while True:
        try:
            return await write()
        except StoreUnavailableError as error:
            if failures == 0:
                logger.warning(
                    "The task store is away, repeating a write",
                    extra={"action": what, "task_id": task_id, "error": str(error)},
                )
            delay = _DELAYS[min(failures, len(_DELAYS) - 1)]
            failures += 1
            # Jitter: the store's return must not be met by every attempt at once.
            await asyncio.sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311  # nosec B311
