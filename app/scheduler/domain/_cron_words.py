"""A cron expression in English words."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from app.scheduler.domain._calendar_names import MONTHS, WEEKDAYS
from app.scheduler.domain._cron_fields import Fields

_MONTHS: Final = ("", *MONTHS)  # by their numbers


def describe(fields: Fields) -> str:
    """For example "at 09:00, on Monday to Friday"; without a final full stop."""
    parts = [_time(fields), _days(fields)]
    if fields.months != 0x1FFE:
        parts.append("in " + _listed(fields.months, _MONTHS))
    return ", ".join(part for part in parts if part)


def _time(fields: Fields) -> str:
    seconds, minutes, hours = (_values(m) for m in (fields.seconds, fields.minutes, fields.hours))
    if len(minutes) * len(hours) <= 4 and len(seconds) == 1:
        times = [_clock(hour, minute, seconds[0]) for hour in hours for minute in minutes]
        return "at " + _joined(times)
    words: list[str] = []
    if seconds != [0]:
        words.append(_every(seconds, 60, "second"))
    if minutes != [0] or not words:
        if len(minutes) < 60 or not words:
            words.append(_every(minutes, 60, "minute"))
    else:
        words.append("at minute 0")
    if len(hours) < 24:
        words.append(_hours(hours))
    elif minutes == [0] and seconds == [0]:
        return "every hour"
    return ", ".join(words)


def _clock(hour: int, minute: int, second: int) -> str:
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def _every(values: list[int], size: int, unit: str) -> str:
    if len(values) == size:
        return f"every {unit}"
    step = values[1] - values[0] if len(values) > 1 else 0
    if step > 1 and values == list(range(values[0], size, step)):
        start = "" if values[0] == 0 else f" from {unit} {values[0]}"
        return f"every {step} {unit}s{start}"
    return f"at {unit}{'s' if len(values) > 1 else ''} {_ranges(values)}"


def _hours(hours: list[int]) -> str:
    if len(hours) > 1 and hours == list(range(hours[0], hours[-1] + 1)):
        return f"from {hours[0]:02}:00 to {hours[-1]:02}:59"
    if len(hours) > 2 and len({b - a for a, b in pairwise(hours)}) == 1:
        return _every(hours, 24, "hour")
    return "between " + _joined([f"{hour:02}:00 and {hour:02}:59" for hour in hours])


def _days(fields: Fields) -> str:
    days, weekdays = _day_words(fields), _weekday_words(fields)
    if days and weekdays:
        both = fields.days_star or fields.weekdays_star
        return f"on {days} {'if it is' if both else 'or on'} {weekdays}"
    return f"on {days or weekdays}" if days or weekdays else ""


def _day_words(fields: Fields) -> str:
    words: list[str] = []
    if fields.days and fields.days != 0xFFFFFFFE:
        values = _values(fields.days)
        words.append(f"day{'s' if len(values) > 1 else ''} {_ranges(values)}")
    words += [
        "the last day" if back == 0 else f"{back} days before the last"
        for back in _values(fields.from_last)
    ]
    words += [f"the weekday nearest to day {day}" for day in _values(fields.nearest)]
    if fields.last_workday:
        words.append("the last weekday")
    return _joined(words) + " of the month" if words else ""


def _weekday_words(fields: Fields) -> str:
    words: list[str] = []
    if fields.weekdays and fields.weekdays != 0x7F:
        words.append(_listed(fields.weekdays, WEEKDAYS))
    words += [f"the {_NTH[nth]} {WEEKDAYS[weekday]} of the month" for weekday, nth in fields.nth]
    return _joined(words)


_NTH: Final = {-1: "last", 1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}


def _listed(mask: int, names: Sequence[str]) -> str:
    values = _values(mask)
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{names[values[0]]} to {names[values[-1]]}"
    return _joined([names[value] for value in values])


def _ranges(values: list[int]) -> str:
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    words: list[str] = []
    for run in runs:
        words += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(value) for value in run]
    return _joined(words)


def _joined(words: list[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def _values(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
