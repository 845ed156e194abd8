"""Which days of a month a cron expression means; pure calendar maths on bit masks."""

from typing import Final

from app.scheduler.domain._cron_fields import Fields
from app.scheduler.domain.errors import CronError

_FIVE_WEEKS: Final = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28
LENGTHS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def days_of_month(fields: Fields, length: int, first: int) -> int:
    """The matching days as bits 1 to `length`, in a month whose day 1 is weekday `first` (Sunday is
    0). Vixie's rule: both restricted, a day needs to be in one of the two fields; if either begins
    with `*`, in both."""
    month = (2 << length) - 2
    days = fields.days & month
    if fields.from_last:
        days |= _from_last(fields.from_last, length)
    if fields.nearest or fields.last_workday:
        days |= _workdays(fields, length, first)
    rotated = (fields.weekdays >> first | fields.weekdays << (7 - first)) & 0x7F
    weekdays = rotated * _FIVE_WEEKS << 1 & month
    for weekday, nth in fields.nth:
        weekdays |= _nth(weekday, nth, length, first)
    if fields.days_star or fields.weekdays_star:
        return days & weekdays
    return days | weekdays


def _from_last(mask: int, length: int) -> int:
    days = 0
    while mask:
        back = mask.bit_length() - 1
        mask ^= 1 << back
        days |= 1 << length - back if back < length else 0
    return days


def _workdays(fields: Fields, length: int, first: int) -> int:
    wanted = [day for day in range(1, length + 1) if fields.nearest >> day & 1]
    if fields.last_workday:
        wanted.append(length)
    mask = 0
    for day in wanted:
        mask |= 1 << _nearest_workday(day, length, first)
    return mask


def _nearest_workday(day: int, length: int, first: int) -> int:
    """Friday for a Saturday, Monday for a Sunday, but never in another month."""
    match (first + day - 1) % 7:
        case 6:
            return day - 1 if day > 1 else day + 2
        case 0:
            return day + 1 if day < length else day - 2
        case _:
            return day


def _nth(weekday: int, nth: int, length: int, first: int) -> int:
    day = 1 + (weekday - first) % 7
    if nth == -1:
        return 1 << (day + (length - day) // 7 * 7)
    day += 7 * (nth - 1)
    return 1 << day if day <= length else 0


def check_possible(fields: Fields, text: str) -> None:
    """Raises CronError for an expression that no date will ever fit, such as 30 February."""
    for month in range(1, 13):
        if not fields.months >> month & 1:
            continue
        lengths = (28, 29) if month == 2 else (LENGTHS[month],)
        if any(days_of_month(fields, length, first) for length in lengths for first in range(7)):
            return
    raise CronError(
        f"{text!r}: no month of the month field ever has a day that day-of-month and day-of-week "
        "mean, as with 30 February"
    )
