"""Makes triggers: by a function a type, or by the type's name."""

import inspect
from collections.abc import Awaitable, Callable
from datetime import datetime, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Literal, overload

from app.event_system import ConsumerPort, EventBase
from app.event_system.domain.events import E
from app.scheduler.domain.cron_expression import CronExpression, DstPolicy
from app.scheduler.domain.errors import TriggerConfigError
from app.scheduler.domain.slots import Coalesce, FirePolicy
from app.scheduler.infrastructure._making import MAX_HOPS
from app.scheduler.infrastructure.api_trigger import APITrigger
from app.scheduler.infrastructure.cron_trigger import CronTrigger, find_zone
from app.scheduler.infrastructure.event_trigger import EventTrigger

_policy = lru_cache(maxsize=1024)(FirePolicy)  # many triggers have the same


class TriggerType(StrEnum):
    """What makes a trigger fire."""

    CRON = "cron"
    API = "api"
    EVENT = "event"


def create_cron_trigger(  # noqa: PLR0913  (each its own option of a schedule)
    cron_expression: str,
    event_factory: Callable[[], E | Awaitable[E]],
    timezone: str | tzinfo | None = None,
    *,
    dst_policy: DstPolicy = "once",
    grace: float = 60.0,
    coalesce: Coalesce = "latest",
    max_catchup: int = 100,
    jitter: float = 0.0,
    start: datetime | None = None,
    end: datetime | None = None,
) -> CronTrigger[E]:
    """A trigger that fires when the expression says so, in `timezone` (DMS's own, `DMS_TIMEZONE`).

    For the other options see FirePolicy and DstPolicy. Raises CronError, TriggerConfigError.
    """
    policy = _policy(
        grace=grace,
        coalesce=coalesce,
        max_catchup=max_catchup,
        jitter=jitter,
        start=start,
        end=end,
    )
    expression = CronExpression.parse(cron_expression, dst_policy=dst_policy)
    return CronTrigger(expression, event_factory, find_zone(timezone), policy)


def create_api_trigger(event_factory: Callable[[Any], E | Awaitable[E]]) -> APITrigger[E]:
    """A trigger that fires when its `trigger(payload)` is called. Raises TriggerConfigError."""
    return APITrigger(event_factory)


def create_event_trigger(
    consumer: ConsumerPort,
    source_topic: str,
    event_factory: Callable[[Any], E | Awaitable[E]],
    filter_func: Callable[[Any], bool | Awaitable[bool]] | None = None,
    *,
    event_type: type[EventBase] | None = None,
    group: str | None = None,
    max_hops: int = MAX_HOPS,
) -> EventTrigger[E]:
    """A trigger that fires on events of the topics of `source_topic`, a pattern, for which
    `filter_func` is true. They come as `event_type`. Raises TopicError, TriggerConfigError."""
    return EventTrigger(
        consumer,
        source_topic,
        event_factory,
        filter_func,
        event_type=event_type,
        group=group,
        max_hops=max_hops,
    )


_MAKERS: Final[dict[TriggerType, Callable[..., Any]]] = {
    TriggerType.CRON: create_cron_trigger,
    TriggerType.API: create_api_trigger,
    TriggerType.EVENT: create_event_trigger,
}


class TriggerFactory:
    """Makes a trigger by the name of its type: for types that come from a configuration."""

    @overload
    @staticmethod
    def create_trigger(
        trigger_type: Literal[TriggerType.CRON, "cron"], **arguments: Any
    ) -> CronTrigger[EventBase]: ...

    @overload
    @staticmethod
    def create_trigger(
        trigger_type: Literal[TriggerType.API, "api"], **arguments: Any
    ) -> APITrigger[EventBase]: ...

    @overload
    @staticmethod
    def create_trigger(
        trigger_type: Literal[TriggerType.EVENT, "event"], **arguments: Any
    ) -> EventTrigger[EventBase]: ...

    @overload
    @staticmethod
    def create_trigger(
        trigger_type: TriggerType | str, **arguments: Any
    ) -> CronTrigger[EventBase] | APITrigger[EventBase] | EventTrigger[EventBase]: ...

    @staticmethod
    def create_trigger(trigger_type: TriggerType | str, **arguments: Any) -> Any:
        """A trigger of that type; `arguments` are those of `create_<type>_trigger`.

        Raises TriggerConfigError for an unknown type or wrong names, and what the function raises.
        """
        kind = _type_of(trigger_type)
        maker = _MAKERS[kind]
        signature = inspect.signature(maker)
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise TriggerConfigError(
                f"a trigger of type {kind.value!r}: {error}; it takes "
                + ", ".join(signature.parameters)
            ) from error
        return maker(**arguments)


def _type_of(given: object) -> TriggerType:
    try:
        return TriggerType(given.lower() if isinstance(given, str) else given)
    except ValueError as error:
        raise TriggerConfigError(
            f"{given!r:.100} is no type of trigger: give one of " + ", ".join(TriggerType)
        ) from error
