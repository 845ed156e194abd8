"""Reads single parameter values as people write them: `10M`, `90s`, `mtime,mode`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import cast

from app.core.bandwidth import parse_bandwidth
from dms_scheduler.movers import MoverError, Preserve, split_path
from dms_scheduler.movers.patterns import compile_pattern
from dms_scheduler.movers.rclone import is_remote, parse_address

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NO_DEADLINE = "give a duration such as 90s or 2h, or a time such as 2030-01-31T12:00:00Z"
_LONGEST = timedelta(days=366)


def whole_number(value: object) -> object:
    """Refuse true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        message = "give a whole number"
        raise ValueError(message)
    return value


def bandwidth(value: object) -> object:
    """Read `10M` as 10 MiB a second; the range is left to the field."""
    if not isinstance(value, str):
        return whole_number(value)
    return parse_bandwidth(value)


def deadline(value: object) -> object:
    """Read `90`, `90s`, `15m`, `2h`, `1d` as a duration, and ISO 8601 with a zone as a time."""
    if value is None or isinstance(value, datetime | timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(_NO_DEADLINE)
    text = str(value).strip()
    match = _DURATION.fullmatch(text)
    return _duration(match) if match else _time(text)


def _duration(match: re.Match[str]) -> timedelta:
    seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 < seconds <= _LONGEST.total_seconds():
        message = "give more than nothing and at most 366 days"
        raise ValueError(message)
    return timedelta(seconds=seconds)


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(_NO_DEADLINE) from None
    if moment.tzinfo is None:
        message = f"{text} has no time zone; add Z or an offset such as +09:00"
        raise ValueError(message)
    return moment


def listed(value: object) -> object:
    """Take a parameter that was given once as a list of one."""
    return (value,) if isinstance(value, str) else value


def preserved(value: object) -> object:
    """Take a list, or names separated by commas; `all` for everything, `none` for nothing."""
    if not isinstance(value, str | list | tuple | set | frozenset):
        message = "give names separated by commas, such as mtime,mode"
        raise ValueError(message)
    values = [value] if isinstance(value, str) else cast("Iterable[object]", value)
    names = [name.strip() for item in values for name in str(item).split(",") if name.strip()]
    choices = [each.value for each in Preserve]
    if unknown := sorted(set(names) - {*choices, "all", "none"}):
        message = (
            f"{', '.join(unknown)} cannot be preserved; choose of "
            f"{', '.join(choices)}, or all, or none"
        )
        raise ValueError(message)
    return choices if "all" in names else [name for name in names if name != "none"]


def place(value: str) -> str:
    """Check an absolute path of this machine, or a `remote:path`; raises ValueError."""
    try:
        if is_remote(value):
            parse_address(value)  # whether the remote is known, its engine will say
        else:
            split_path(value)
    except MoverError as error:
        raise ValueError(str(error)) from error
    return value


def local_place(value: str) -> str:
    """Check an absolute path of this machine; raises ValueError."""
    if is_remote(value):
        message = "give a path of the worker's machine; files at a remote have no times of access"
        raise ValueError(message)
    return place(value)


def patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each pattern can be read; raises ValueError."""
    try:
        for pattern in value:
            compile_pattern(pattern)
    except MoverError as error:
        raise ValueError(str(error)) from error
    return value
