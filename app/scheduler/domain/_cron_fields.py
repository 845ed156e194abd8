"""The fields of a cron expression: text in, bit masks out, and errors that name the field."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.scheduler.domain._calendar_names import MONTHS, WEEKDAYS
from app.scheduler.domain.errors import CronError

_MONTHS: Final = tuple(name[:3].upper() for name in MONTHS)
_DAYS: Final = tuple(name[:3].upper() for name in WEEKDAYS)

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Field:
    """What may stand in one field: its name, the lowest and the highest value, names for values."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The range, in words."""
        words = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        return f"{self.low}-{self.high}{words}"

    def error(self, value: str, why: str) -> CronError:
        """What is wrong with `value`, where it stands and what may stand there."""
        return CronError(f"{self.name} field {value!r}: {why} (allowed: {self.allowed})")


SECOND: Final = Field("second", 0, 59)
MINUTE: Final = Field("minute", 0, 59)
HOUR: Final = Field("hour", 0, 23)
DAY: Final = Field("day-of-month", 1, 31)
MONTH: Final = Field("month", 1, 12, _MONTHS)
WEEKDAY: Final = Field("day-of-week", 0, 7, _DAYS)

_NUMBER: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_LAST_DAY: Final = re.compile(r"L(?:-([0-9]{1,4}))?", re.ASCII)
_NEAREST: Final = re.compile(r"(?:([0-9]{1,4})W|W([0-9]{1,4}))", re.ASCII)
_NTH: Final = re.compile(r"([A-Z0-9]+)#([0-9]{1,4})", re.ASCII)
_LAST_WEEKDAY: Final = re.compile(r"([0-9]{1,4}|[A-Z]{3})L", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fields:
    """All fields as bit masks: bit n stands for value n (Sunday is 0).

    `from_last` has bit n for the n-th day before the month's last. `nearest` has bit n for the
    weekday nearest to day n, `last_workday` stands for `LW`. `nth` holds (weekday, n), with n = -1
    for the last one of the month. `days_star`, `weekdays_star`: the field began with `*` or is `?`.
    """

    seconds: int
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    from_last: int
    nearest: int
    last_workday: bool
    nth: tuple[tuple[int, int], ...]
    days_star: bool
    weekdays_star: bool
    wildcard: bool


def parse_fields(text: str) -> Fields:
    """Read 5 fields (minute first), 6 (second first) or a nickname; raises CronError."""
    parts = _split(text)
    second, minute, hour, day, month, weekday = parts
    days = _Days()
    weekdays = _Weekdays()
    day_mask = _mask(DAY, day, days.special)
    weekday_mask = _mask(WEEKDAY, weekday, weekdays.special)
    return Fields(
        seconds=_mask(SECOND, second),
        minutes=_mask(MINUTE, minute),
        hours=_mask(HOUR, hour),
        days=day_mask,
        months=_mask(MONTH, month),
        weekdays=(weekday_mask | weekday_mask >> 7) & 0x7F,
        from_last=days.from_last,
        nearest=days.nearest,
        last_workday=days.last_workday,
        nth=tuple(dict.fromkeys(weekdays.nth)),
        days_star=day[0] in "*?",
        weekdays_star=weekday[0] in "*?",
        wildcard=minute[0] == "*" or hour[0] == "*",
    )


def _split(text: str) -> list[str]:
    """Six fields, seconds first; the text is at most a few hundred characters."""
    if len(text) > 1000:
        raise CronError(f"a cron expression of {len(text)} characters: 1000 at most")
    words = text.upper().split()
    if len(words) == 1 and words[0].startswith("@"):
        plain = NICKNAMES.get(words[0].lower())
        if plain is None:
            known = ", ".join(NICKNAMES)
            raise CronError(f"{text.strip()!r} is no nickname of cron: known are {known}")
        words = plain.split()
    if len(words) == 5:
        return ["0", *words]
    if len(words) == 6:
        return words
    raise CronError(
        f"{text!r} has {len(words)} fields: write 5 (minute hour day-of-month month day-of-week) "
        "or 6 (second first)"
    )


class _Days:
    """Collects what only a day-of-month field can say: L, L-3, LW, 15W."""

    def __init__(self) -> None:
        self.from_last = 0
        self.nearest = 0
        self.last_workday = False

    def special(self, item: str) -> bool:
        """Whether the item is such a one; it is noted then."""
        if item in {"LW", "WL"}:
            self.last_workday = True
        elif found := _LAST_DAY.fullmatch(item):
            self.from_last |= 1 << _bounded(DAY, item, int(found[1] or 0), 0, 30)
        elif found := _NEAREST.fullmatch(item):
            self.nearest |= 1 << _bounded(DAY, item, int(found[1] or found[2]), 1, 31)
        else:
            return False
        return True


class _Weekdays:
    """Collects what only a day-of-week field can say: FRI#2, 5L."""

    def __init__(self) -> None:
        self.nth: list[tuple[int, int]] = []

    def special(self, item: str) -> bool:
        """Whether the item is such a one; it is noted then."""
        if found := _NTH.fullmatch(item):
            nth = int(found[2])
            if not 1 <= nth <= 5:
                raise WEEKDAY.error(item, "a month has the 1st to the 5th of a weekday")
            self.nth.append((_value(WEEKDAY, found[1], item) % 7, nth))
        elif found := _LAST_WEEKDAY.fullmatch(item):
            self.nth.append((_value(WEEKDAY, found[1], item) % 7, -1))
        elif item == "L":
            raise WEEKDAY.error(item, "L needs the weekday before it, as in 5L or FRIL")
        else:
            return False
        return True


def _bounded(field: Field, item: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise field.error(item, f"{value} is out of range {low}-{high}")
    return value


def _mask(field: Field, text: str, special: Callable[[str], bool] | None = None) -> int:
    mask = 0
    for item in text.split(","):
        if not item:
            raise field.error(text, "an empty item; is there a comma too many?")
        if special is None or not special(item):
            mask |= _range_mask(field, item)
    return mask


def _range_mask(field: Field, item: str) -> int:
    """`*`, `?`, `5`, `1-5`, any of them with `/step`; `5/15` counts from 5 to the end."""
    span, slash, step_text = item.partition("/")
    step = _step(field, item, step_text) if slash else 1
    top = 6 if field is WEEKDAY else field.high
    if span == "*" or (span == "?" and field in {DAY, WEEKDAY}):
        low, high = field.low, top
    elif "-" in span:
        first, _, last = span.partition("-")
        low, high = _value(field, first, item), _value(field, last, item)
        if field is WEEKDAY and high == 0 and low > 0:
            high = 7  # FRI-SUN: a week may be meant to end with Sunday
        if low > high:
            raise field.error(
                item, f"the range runs backwards: write {low}-{top},{field.low}-{high}"
            )
    else:
        low = _value(field, span, item)
        high = top if slash else low
    if slash and step > max(high - low, 1):
        raise field.error(
            item, f"a step of {step} leaves {low} alone: cron counts anew in each {_unit(field)}"
        )
    return sum(1 << value for value in range(low, high + 1, step))


def _unit(field: Field) -> str:
    return {SECOND: "minute", MINUTE: "hour", HOUR: "day", MONTH: "year", WEEKDAY: "week"}.get(
        field, "month"
    )


def _step(field: Field, item: str, text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) == 0:
        raise field.error(item, f"the step {text!r} is not a number from 1 on")
    return int(text)


def _value(field: Field, text: str, item: str) -> int:
    if text in field.names:
        return field.names.index(text) + (1 if field is MONTH else 0)
    if not _NUMBER.fullmatch(text):
        raise field.error(item, f"{text!r} is not a value of this field")
    return _bounded(field, item, int(text), field.low, field.high)
