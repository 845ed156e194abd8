"""The zone in which DMS shows times: `DMS_TIMEZONE`, or Asia/Seoul."""

import os
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from task_state.errors import ConfigurationError

DEFAULT_TIMEZONE = "Asia/Seoul"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@lru_cache(maxsize=8)
def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"DMS_TIMEZONE={name!r} is not a known time zone: use a name such as 'Asia/Seoul' or "
            "'UTC', and install the system's or PyPI's tzdata if the name is right"
        ) from error


def get_timezone() -> tzinfo:
    """The configured zone; raises ConfigurationError when `DMS_TIMEZONE` names none."""
    return _zone(os.environ.get("DMS_TIMEZONE") or DEFAULT_TIMEZONE)


def now() -> datetime:
    """The current time, aware, in the configured zone."""
    return datetime.now(get_timezone())


def from_microseconds(value: int | bytes, zone: tzinfo | None = None) -> datetime:
    """An instant given in microseconds since 1970 UTC, in the zone (the configured one): exact
    until 2242, as long as a float holds a number of seconds closer than half a microsecond."""
    return datetime.fromtimestamp(int(value) / 1_000_000, zone or get_timezone())


def to_microseconds(value: datetime) -> int:
    """Microseconds since 1970 UTC, exact; a naive time is taken in the configured zone."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=get_timezone())
    return (aware - _EPOCH) // _MICROSECOND
