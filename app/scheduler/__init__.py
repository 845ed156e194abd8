"""Triggers: they say when, and publish an event. They run no task: that is `dms_scheduler`."""

from app.scheduler.domain.clock import Clock
from app.scheduler.domain.cron_expression import CronExpression, DstPolicy
from app.scheduler.domain.errors import (
    CronError,
    DuplicateTriggerError,
    EventFactoryError,
    SchedulerError,
    TriggerConfigError,
    TriggerError,
    TriggerNotRunningError,
    UnknownTriggerError,
)
from app.scheduler.domain.scheduler_port import SchedulerPort
from app.scheduler.domain.slots import Coalesce, FirePolicy
from app.scheduler.domain.trigger_port import Publish, TriggerPort
from app.scheduler.infrastructure import (
    APITrigger,
    CronTrigger,
    EventTrigger,
    Scheduler,
    TriggerFactory,
    TriggerType,
    create_api_trigger,
    create_cron_trigger,
    create_event_trigger,
)

__all__ = [
    "APITrigger",
    "Clock",
    "Coalesce",
    "CronError",
    "CronExpression",
    "CronTrigger",
    "DstPolicy",
    "DuplicateTriggerError",
    "EventFactoryError",
    "EventTrigger",
    "FirePolicy",
    "Publish",
    "Scheduler",
    "SchedulerError",
    "SchedulerPort",
    "TriggerConfigError",
    "TriggerError",
    "TriggerFactory",
    "TriggerNotRunningError",
    "TriggerPort",
    "TriggerType",
    "UnknownTriggerError",
    "create_api_trigger",
    "create_cron_trigger",
    "create_event_trigger",
]
