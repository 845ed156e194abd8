"""Making events by users' factories: sync or async, never trusted to succeed; and their headers."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from app.event_system import EventBase
from app.event_system.domain.events import E
from app.scheduler.domain.errors import EventFactoryError, TriggerConfigError

SLOT_HEADER: Final = "dms-slot"
"""The slot of a cron trigger: ISO 8601 in UTC."""
HOPS_HEADER: Final = "dms-hops"
"""How many event triggers stand between the first event and this one: a decimal number."""

MAX_HOPS: Final = 16
FACTORY_SECONDS: Final = 60.0
"""How long an async factory or filter may take."""


def check_callable(name: str, given: object) -> None:
    """Raises TriggerConfigError for what cannot be called."""
    if not callable(given):
        raise TriggerConfigError(f"{name} is {given!r:.100}: give a function")


async def make_event(factory: Callable[..., E | Awaitable[E]], *arguments: Any) -> E:
    """The factory's event; raises EventFactoryError."""
    try:
        made: Any = factory(*arguments)
        if not isinstance(made, EventBase):
            made = await awaited(made)
    except Exception as error:
        raise EventFactoryError(f"the event factory failed: {reason(error)}") from error
    if not isinstance(made, EventBase):
        raise EventFactoryError(
            f"the event factory made a {type(made).__name__}: it must return an EventBase"
        )
    return made  # pyright: ignore[reportReturnType]  # an E by the factory's signature


async def awaited(value: Any) -> Any:
    """The value itself, or what it turns into within FACTORY_SECONDS; raises TimeoutError."""
    if not inspect.isawaitable(value):
        return value
    deadline = asyncio.timeout(FACTORY_SECONDS)
    try:
        async with deadline:
            return await value
    except TimeoutError:
        if deadline.expired():
            raise TimeoutError(f"it took longer than {FACTORY_SECONDS:g} s") from None
        raise


def stamped(event: E, headers: dict[str, str]) -> E:
    """The event with these headers beside its own."""
    known = event.headers
    return event.model_copy(update={"headers": type(known)({**known, **headers})})


@lru_cache(maxsize=256)  # thousands of triggers have the same slot
def slot_text(slot: int) -> str:
    """A slot as its header has it."""
    return datetime.fromtimestamp(slot, UTC).isoformat()


def reason(error: BaseException) -> str:
    """The type and the message of an error, for people; bounded."""
    return f"{type(error).__name__}: {error}"[:500]
