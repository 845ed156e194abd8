"""Templates of the fire time in a schedule's parameters: read once, filled in for each slot. Pure.

Nothing here depends on when it is called: one slot gives the same parameters on every replica, and
again when it is backfilled.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from app.scheduler.domain._calendar_names import MONTHS, WEEKDAYS
from app.scheduler.domain.errors import TemplateError
from app.scheduler.domain.placeholders import CLOSE, LITERAL, OPEN, braced_texts, put_back

TIMES: Final = ("slot", "previous", "next")
NAMES: Final = (*TIMES, "schedule")
MAX_OFFSET: Final = timedelta(days=36_600)

_BODY: Final = re.compile(
    r"\s*([^\s:+-]+)\s*((?:[+-]\s*[0-9]{1,10}\s*[smhdw]\s*)*)(?::(.*))?\Z", re.DOTALL
)
_OFFSET: Final = re.compile(r"([+-])\s*([0-9]+)\s*([smhdw])")
_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DIRECTIVES: Final[Mapping[str, Callable[[datetime], str]]] = {
    "a": lambda at: WEEKDAYS[at.isoweekday() % 7][:3],
    "A": lambda at: WEEKDAYS[at.isoweekday() % 7],
    "b": lambda at: MONTHS[at.month - 1][:3],
    "B": lambda at: MONTHS[at.month - 1],
    "d": lambda at: f"{at.day:02}",
    "F": lambda at: at.date().isoformat(),
    "G": lambda at: f"{at.isocalendar().year:04}",
    "H": lambda at: f"{at.hour:02}",
    "I": lambda at: f"{(at.hour + 11) % 12 + 1:02}",
    "j": lambda at: f"{at.timetuple().tm_yday:03}",
    "m": lambda at: f"{at.month:02}",
    "M": lambda at: f"{at.minute:02}",
    "p": lambda at: "AM" if at.hour < 12 else "PM",
    "s": lambda at: str(int(at.timestamp())),
    "S": lambda at: f"{at.second:02}",
    "T": lambda at: f"{at:%H:%M:%S}",
    "u": lambda at: str(at.isoweekday()),
    "U": lambda at: f"{at:%U}",
    "V": lambda at: f"{at.isocalendar().week:02}",
    "w": lambda at: str(at.isoweekday() % 7),
    "W": lambda at: f"{at:%W}",
    "y": lambda at: f"{at.year % 100:02}",
    "Y": lambda at: f"{at.year:04}",
    "z": lambda at: f"{at:%z}",
    "Z": lambda at: at.tzname() or "",
    "%": lambda _: "%",
}


@dataclass(frozen=True, slots=True)
class Occasion:
    """What templates are filled in with: a slot, the slots before and after it, and the schedule.

    Whole seconds since 1970 UTC, shown in `zone`.
    """

    schedule: str
    zone: tzinfo
    slot: int
    previous: int
    next: int


class _Step(NamedTuple):
    """One offset; `calendar`: days of the wall clock, of which a few have 23 or 25 hours."""

    change: timedelta
    calendar: bool


class _Placeholder(NamedTuple):
    name: str
    steps: tuple[_Step, ...]
    format: str | None


class Template:
    """Parameters of which some texts hold `{{ ... }}`. Raises TemplateError with the place.

    Texts anywhere in the values are looked at; names of parameters stay as they are. A text stays a
    text, also when it is one placeholder and nothing else.
    """

    __slots__ = ("_parameters", "_texts")

    def __init__(self, parameters: dict[str, Any], place: str = "parameters") -> None:
        self._parameters = parameters
        self._texts = braced_texts(parameters, place, _placeholder)

    @property
    def names(self) -> frozenset[str]:
        """What it asks for."""
        return frozenset(
            part.name
            for parts in self._texts.values()
            for part in parts
            if isinstance(part, _Placeholder)
        )

    def fill(self, occasion: Occasion) -> dict[str, Any]:
        """The parameters of a slot. Raises TemplateError when an offset leaves the years 1 to
        9999."""
        filled = {text: _fill(parts, occasion) for text, parts in self._texts.items()}
        return put_back(self._parameters, filled) if filled else self._parameters


def _placeholder(body: str, place: str) -> _Placeholder:
    found = _BODY.match(body)
    shown = f"{OPEN}{body}{CLOSE}"
    if found is None:
        raise TemplateError(
            place,
            f"{shown} is not understood: write a name, an offset, a format, as in "
            "{{ slot }}, {{ slot - 1d }} or {{ slot - 1d:%Y-%m-%d }}, and {{{{ for two braces",
        )
    name, offsets, form = found[1], found[2], found[3]
    if name not in NAMES:
        known = ", ".join(NAMES)
        raise TemplateError(
            place, f"{shown}: {name!r} is not known; known are {known}, and {LITERAL} is {OPEN}"
        )
    if name not in TIMES and (offsets or form is not None):
        raise TemplateError(place, f"{shown}: {name} is no time, so it has no offset and no format")
    steps = tuple(_step(sign, count, unit) for sign, count, unit in _OFFSET.findall(offsets))
    # Each alone may be as long, and all together too.
    if sum((abs(step.change) for step in steps), timedelta()) > MAX_OFFSET:
        raise TemplateError(place, f"{shown}: offsets are {MAX_OFFSET.days} days at most")
    return _Placeholder(name, steps, None if form is None else _format(form, shown, place))


def _step(sign: str, count: str, unit: str) -> _Step:
    # Ten digits of weeks are more than a timedelta holds.
    change = min(int(count), MAX_OFFSET // _UNITS[unit] + 1) * _UNITS[unit]
    return _Step(-change if sign == "-" else change, unit in "dw")


def _format(form: str, shown: str, place: str) -> str:
    form = form.strip()
    if not form:
        raise TemplateError(place, f"{shown}: nothing follows the colon: give a format as %Y-%m-%d")
    at = 0
    while (at := form.find("%", at)) >= 0:
        if form[at + 1 : at + 2] not in _DIRECTIVES:
            known = " ".join(f"%{one}" for one in _DIRECTIVES)
            raise TemplateError(
                place, f"{shown}: %{form[at + 1 : at + 2]} is not known; known are {known}"
            )
        at += 2
    return form


def _fill(parts: tuple[str | _Placeholder, ...], occasion: Occasion) -> str:
    return "".join(part if isinstance(part, str) else _shown(part, occasion) for part in parts)


def _shown(placeholder: _Placeholder, occasion: Occasion) -> str:
    if placeholder.name == "schedule":
        return occasion.schedule
    epoch: int = getattr(occasion, placeholder.name)
    try:
        at = datetime.fromtimestamp(epoch, occasion.zone)
        for step in placeholder.steps:
            at = _moved(at, step)
    except (OverflowError, ValueError) as error:
        raise TemplateError(
            "parameters", f"an offset from {epoch} s leaves the years 1 to 9999: make it smaller"
        ) from error
    if placeholder.format is None:
        return at.isoformat()
    return _formatted(at, placeholder.format)


def _moved(at: datetime, step: _Step) -> datetime:
    zone = at.tzinfo
    if step.calendar:
        # The same time of another day, or what the clock showed instead of one that it left out.
        at = (at + step.change).replace(fold=0)
        return at.astimezone(UTC).astimezone(zone)
    return (at.astimezone(UTC) + step.change).astimezone(zone)


def _formatted(at: datetime, form: str) -> str:
    pieces = re.split("%(.)", form, flags=re.DOTALL)
    pieces[1::2] = [_DIRECTIVES[letter](at) for letter in pieces[1::2]]
    return "".join(pieces)
