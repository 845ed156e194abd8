"""The port of a scheduler of triggers. It runs no task: that is `dms_scheduler`."""

from abc import ABC, abstractmethod

from app.event_system import EventBase
from app.event_system.domain.events import E
from app.scheduler.domain.trigger_port import TriggerPort


class SchedulerPort(ABC):
    """Owns triggers from their registration on, and publishes their events."""

    @abstractmethod
    async def register_trigger(self, trigger_id: str, trigger: TriggerPort[E], topic: str) -> None:
        """Have the trigger's events published on `topic`. Where the scheduler runs, the trigger is
        started. Raises DuplicateTriggerError, TopicError, and what the trigger's start raises."""

    @abstractmethod
    async def unregister_trigger(self, trigger_id: str) -> None:
        """Stop the trigger, wait for what it emitted, and forget it. Raises
        UnknownTriggerError."""

    @abstractmethod
    async def start(self) -> None:
        """Start all triggers; starting twice is harmless. When one does not start, those that did
        are stopped again, and its error is raised."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop all triggers and wait, for a bounded time, until what they emitted is published.
        They stay registered. Stopping twice is harmless."""

    @abstractmethod
    def get_registered_triggers(self) -> dict[str, tuple[TriggerPort[EventBase], str]]:
        """Trigger and topic by id, as a copy."""
