"""Events: immutable facts with a topic. Not the names of server-sent events: `app.core.events`."""

import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, NoReturn, Self, TypeVar
from weakref import WeakValueDictionary

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import PydanticSerializationError

from app.event_system.domain.errors import EventDecodeError, EventEncodeError
from app.event_system.domain.topics import check_topic

MAX_EVENT_BYTES: Final = 2**20
"""The largest event, as JSON in UTF-8."""


class _Ids:
    """Makes UUIDs of version 7 (RFC 9562) whose order is the order of their making."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0  # ms since 1970, then a count of 12 bits within the ms

    def next(self) -> str:
        with self._lock:
            self._last = max(time.time_ns() // 1_000_000 << 12, self._last + 1)
            stamp, count = self._last >> 12, self._last & 0xFFF
        tail = int.from_bytes(os.urandom(8))
        return (
            f"{stamp >> 16:08x}-{stamp & 0xFFFF:04x}-7{count:03x}-"
            f"{tail >> 48 & 0x3FFF | 0x8000:04x}-{tail & 0xFFFF_FFFF_FFFF:012x}"
        )


next_event_id = _Ids().next
"""A new id of an event: unique, and greater than those that this process made before."""


class _Headers(dict[str, str]):
    """The headers of an event, which nobody changes any more."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the headers of an event do not change: make another event of it")

    __setitem__ = __delitem__ = __ior__ = _refuse  # pyright: ignore[reportAssignmentType]
    clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (dict(self),)


def _fixed(headers: Mapping[str, str]) -> _Headers:
    return _Headers(headers)


_NO_HEADERS: Final = _Headers()


def _none() -> dict[str, str]:
    return _NO_HEADERS


def _now() -> datetime:
    return datetime.now(UTC)


class EventBase(BaseModel):
    """A fact: something that happened, and when. Subclass it and add the fields that tell more.

    `event_id` is the same when an event is published again, and by it a consumer tells a repeat.
    `occurred_at` is aware. Fields that a class does not know are kept. Raises pydantic's
    ValidationError on values that do not fit.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        # Any bytes and any float must survive JSON.
        ser_json_bytes="base64",
        val_json_bytes="base64",
        ser_json_inf_nan="strings",
    )

    type_name: ClassVar[str] = "EventBase"
    """What the type is called on the wire: the name of module and class, or what
    `class Paid(EventBase, type_name="shop.paid")` says."""

    topic: Annotated[str, AfterValidator(check_topic)]
    event_id: str = Field(default_factory=next_event_id, min_length=1, max_length=128)
    occurred_at: AwareDatetime = Field(default_factory=_now)
    headers: Annotated[dict[str, str], AfterValidator(_fixed)] = Field(default_factory=_none)

    def __init_subclass__(cls, type_name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type_name = type_name or f"{cls.__module__}.{cls.__qualname__}"
        _TYPES[cls.type_name] = cls

    def on(self, topic: str) -> Self:
        """The same event on that topic; raises TopicError."""
        return (
            self if topic == self.topic else self.model_copy(update={"topic": check_topic(topic)})
        )


E = TypeVar("E", bound=EventBase)
E_co = TypeVar("E_co", bound=EventBase, covariant=True)

_TYPES: WeakValueDictionary[str, type[EventBase]] = WeakValueDictionary()


def encode_event(event: EventBase, *, limit: int = MAX_EVENT_BYTES) -> bytes:
    """The event as JSON; raises EventEncodeError when it has no JSON or more than `limit` bytes."""
    try:
        encoded = event.__pydantic_serializer__.to_json(event)
    except PydanticSerializationError as error:
        raise EventEncodeError(
            f"event {event.event_id} on {event.topic} cannot travel as JSON: {error}"
        ) from error
    if len(encoded) > limit:
        raise EventEncodeError(
            f"event {event.event_id} on {event.topic} has {len(encoded)} bytes of JSON, and "
            f"{limit} are allowed: publish where the data is, not the data"
        )
    return encoded


def decode_event(encoded: bytes | str, type_name: str, wanted: type[E]) -> E:
    """The event as `wanted`, or as the subclass of it that `type_name` names. Who wants any
    EventBase gets one of an unknown type, or of one that has changed, with all its fields.
    Raises EventDecodeError when the payload does not fit."""
    named = _TYPES.get(type_name, wanted)
    known = named if issubclass(named, wanted) else wanted
    try:
        return known.model_validate_json(encoded)
    except ValidationError as error:
        if known is not wanted:
            return decode_event(encoded, wanted.type_name, wanted)
        raise _misfit(wanted, error) from error


def as_type(event: EventBase, wanted: type[E]) -> E:
    """The event itself when it is of that type, else one of that type made from its fields.
    Raises EventDecodeError when they do not fit."""
    if isinstance(event, wanted):
        return event
    try:
        return wanted.model_validate(event.model_dump())
    except ValidationError as error:
        raise _misfit(wanted, error) from error


def _misfit(wanted: type[EventBase], error: ValidationError) -> EventDecodeError:
    found = error.errors(include_url=False, include_input=False)
    reasons = "; ".join(
        f"{'.'.join(str(part) for part in one['loc']) or 'event'}: {one['msg']}"
        for one in found[:5]
    )
    return EventDecodeError(f"the event is no {wanted.__name__}: {reasons}")
