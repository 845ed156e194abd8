"""The triggers and their scheduler, on any broker of `app.event_system`."""

from app.scheduler.infrastructure._timetable import Timetable
from app.scheduler.infrastructure.api_trigger import APITrigger
from app.scheduler.infrastructure.cron_trigger import CronTrigger
from app.scheduler.infrastructure.event_trigger import EventTrigger
from app.scheduler.infrastructure.scheduler import Scheduler
from app.scheduler.infrastructure.trigger_factory import (
    TriggerFactory,
    TriggerType,
    create_api_trigger,
    create_cron_trigger,
    create_event_trigger,
)

__all__ = [
    "APITrigger",
    "CronTrigger",
    "EventTrigger",
    "Scheduler",
    "Timetable",
    "TriggerFactory",
    "TriggerType",
    "create_api_trigger",
    "create_cron_trigger",
    "create_event_trigger",
]
