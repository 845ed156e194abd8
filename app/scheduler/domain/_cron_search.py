"""Finding the next and the last local second that a cron expression means; pure bit maths.

Local seconds count from 1970-01-01T00:00 of the wall clock, as if no clock ever changed.
"""

from datetime import date, tzinfo
from typing import Final

from app.scheduler.domain._cron_days import LENGTHS, days_of_month
from app.scheduler.domain._cron_fields import Fields
from app.scheduler.domain.errors import CronError

_DAY: Final = 86_400
_ORDINAL: Final = date(1970, 1, 1).toordinal()
_FIRST_YEAR, _LAST_YEAR = 2, 9998


class Memo:
    """The month that was searched last, for the next search is mostly there: the day it begins,
    the day after it (days since 1970-01-01), its matching days (bit 1 for the first). One tuple, so
    that threads never see halves of two months.

    And what was found last: in that zone, from that second on up to the third number, the third
    number is the next. Thousands of triggers of one expression ask for the same.
    """

    __slots__ = ("found", "month")

    def __init__(self) -> None:
        self.month: tuple[int, int, int] = (0, 0, 0)
        self.found: tuple[tzinfo | None, int, int] = (None, 0, 0)


def next_local(fields: Fields, memo: Memo, local: int) -> int:
    """The first matching second from `local` on. Raises CronError beyond the year 9998."""
    days, second = divmod(local, _DAY)
    start, end, mask = memo.month
    if not start <= days < end:
        start, end, mask = memo.month = _month(fields, days)
    later = mask >> (days - start + 1)
    if later & 1 and (found := _next_time(fields, second)) >= 0:
        return days * _DAY + found
    later >>= 1
    if later:
        return (days + 1 + _lowest(later)) * _DAY + _first_time(fields)
    while True:
        start, end, mask = _month(fields, _next_start(fields.months, end))
        if mask:
            memo.month = (start, end, mask)
            return (start - 1 + _lowest(mask)) * _DAY + _first_time(fields)


def previous_local(fields: Fields, memo: Memo, local: int) -> int:
    """The last matching second up to `local`. Raises CronError before the year 2."""
    days, second = divmod(local, _DAY)
    start, end, mask = memo.month
    if not start <= days < end:
        start, end, mask = memo.month = _month(fields, days)
    day = days - start + 1
    if mask >> day & 1 and (found := _previous_time(fields, second)) >= 0:
        return days * _DAY + found
    earlier = mask & (1 << day) - 1
    while not earlier:
        start, end, mask = _month(fields, _previous_end(fields.months, start))
        earlier = mask
        memo.month = (start, end, mask)
    return (start - 1 + _highest(earlier)) * _DAY + _last_time(fields)


def _month(fields: Fields, days: int) -> tuple[int, int, int]:
    """The month of that day."""
    date_of = date.fromordinal(days + _ORDINAL)
    year, number = date_of.year, date_of.month
    length = LENGTHS[number]
    if number == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        length = 29
    start = days - date_of.day + 1
    matches = fields.months >> number & 1
    # 1970-01-01 was a Thursday.
    mask = days_of_month(fields, length, (start + 4) % 7) if matches else 0
    return start, start + length, mask


def _next_start(months: int, days: int) -> int:
    """The first day of the field's first month, from the month on that begins with `days`."""
    date_of = date.fromordinal(days + _ORDINAL)
    year, number = date_of.year, date_of.month
    if later := months >> number:
        number += _lowest(later)
    else:
        year, number = year + 1, _lowest(months)
    if year > _LAST_YEAR:
        raise CronError(f"there is no such time up to the year {_LAST_YEAR}")
    return date(year, number, 1).toordinal() - _ORDINAL


def _previous_end(months: int, days: int) -> int:
    """The last day of the field's last month before the month that begins with `days`."""
    date_of = date.fromordinal(days + _ORDINAL)
    year, number = date_of.year, date_of.month
    if earlier := months & (1 << number) - 1:
        number = _highest(earlier)
    else:
        year, number = year - 1, _highest(months)
    if year < _FIRST_YEAR:
        raise CronError(f"there is no such time from the year {_FIRST_YEAR} on")
    year, number = (year, number + 1) if number < 12 else (year + 1, 1)
    return date(year, number, 1).toordinal() - _ORDINAL - 1


def _next_time(fields: Fields, second: int) -> int:
    """The first matching second of the day from `second` on; -1 if there is none."""
    hour, rest = divmod(second, 3600)
    minute, second = divmod(rest, 60)
    if fields.hours >> hour & 1:
        if fields.minutes >> minute & 1 and (later := fields.seconds >> second):
            return hour * 3600 + minute * 60 + second + _lowest(later)
        if later := fields.minutes >> (minute + 1):
            start = hour * 3600 + (minute + 1 + _lowest(later)) * 60
            return start + _lowest(fields.seconds)
    if later := fields.hours >> (hour + 1):
        start = (hour + 1 + _lowest(later)) * 3600
        return start + _lowest(fields.minutes) * 60 + _lowest(fields.seconds)
    return -1


def _previous_time(fields: Fields, second: int) -> int:
    """The last matching second of the day up to `second`; -1 if there is none."""
    hour, rest = divmod(second, 3600)
    minute, second = divmod(rest, 60)
    if fields.hours >> hour & 1:
        if fields.minutes >> minute & 1 and (earlier := fields.seconds & (2 << second) - 1):
            return hour * 3600 + minute * 60 + _highest(earlier)
        if earlier := fields.minutes & (1 << minute) - 1:
            return hour * 3600 + _highest(earlier) * 60 + _highest(fields.seconds)
    if earlier := fields.hours & (1 << hour) - 1:
        start = _highest(earlier) * 3600
        return start + _highest(fields.minutes) * 60 + _highest(fields.seconds)
    return -1


def _first_time(fields: Fields) -> int:
    return _lowest(fields.hours) * 3600 + _lowest(fields.minutes) * 60 + _lowest(fields.seconds)


def _last_time(fields: Fields) -> int:
    return _highest(fields.hours) * 3600 + _highest(fields.minutes) * 60 + _highest(fields.seconds)


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _highest(mask: int) -> int:
    return mask.bit_length() - 1
