"""The time that one request may spend on the task store, however many calls it makes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from task_state import StoreUnavailableError


@contextlib.asynccontextmanager
async def store_deadline(seconds: float) -> AsyncGenerator[None]:
    """Several calls to the store share the time of one, so that a request ends in time; raises
    StoreUnavailableError when it is over."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise StoreUnavailableError(
            f"the task store did not answer within {seconds:g} s: is Redis up and reachable?"
        ) from error
