"""The port of a trigger: it says when, and makes an event of it. Publishing is the scheduler's."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import ClassVar, Generic

from app.event_system import EventBase, EventSystemError
from app.event_system.domain.events import E_co

Publish = Callable[[EventBase], Awaitable[None]]
"""Publishes an event on the topic that the trigger is registered for; raises EventSystemError."""


class TriggerPort(ABC, Generic[E_co]):
    """Subclass it for a trigger of your own: the four abstract methods are enough."""

    __slots__ = ()

    repeats: ClassVar[bool] = True
    """Whether a scheduler publishes an event again while the broker is away; False where a caller
    waits for the outcome, and repeats by itself."""

    @abstractmethod
    async def start(self) -> None:
        """Begin; starting twice is harmless."""

    @abstractmethod
    async def stop(self) -> None:
        """End, so that `emit()` ends; stopping twice is harmless."""

    @abstractmethod
    def emit(self) -> AsyncGenerator[E_co, None]:
        """The events, until the trigger is stopped. One iterator at a time."""

    @abstractmethod
    def is_running(self) -> bool:
        """Whether it was started and not stopped since, nor ended by itself."""

    async def run(self, publish: Publish) -> None:
        """Publish what is emitted until `emit()` ends: what a scheduler calls. A trigger that wants
        to know whether its events were published has its own `run`."""
        async with aclosing(self.emit()) as events:
            async for event in events:
                with suppress(EventSystemError):  # `publish` logged and counted it
                    await publish(event)
