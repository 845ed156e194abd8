"""Cron expressions against cronsim and croniter, in UTC, where these two are right.

Left out, because they are wrong or mean something else there: clock changes (both return wrong
instants around them, hence UTC); ranges of one value, which they take for all values (cronsim 3-3/1
in days of the week, croniter any 3-3); for croniter also days of month and of week that begin with
a star and a step (it takes either day, Vixie cron wants both to fit), `L` and `#`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

from croniter import croniter
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.scheduler import CronError, CronExpression

MONTHS: list[str] = [
    "JAN",
    "FEB",
    "MAR",
    "APR",
    "MAY",
    "JUN",
    "JUL",
    "AUG",
    "SEP",
    "OCT",
    "NOV",
    "DEC",
]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
STEPS = 8

moments = st.integers(0, 90 * 366 * 86_400).map(
    lambda seconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def values(low: int, high: int, names: list[str]) -> st.SearchStrategy[str]:
    return st.integers(low, high).map(
        lambda number: names[number - low] if names and number - low < len(names) else str(number)
    )


@st.composite
def ranges(draw: st.DrawFn, low: int, high: int) -> str:
    first = draw(st.integers(low, high - 1))
    last = draw(st.integers(first + 1, high))
    step = draw(st.none() | st.integers(1, max(1, last - first)))
    return f"{first}-{last}" + (f"/{step}" if step else "")


@st.composite
def fields(draw: st.DrawFn, low: int, high: int, names: list[str], *, stars: bool = True) -> str:
    """One field; of stars with a step only where `stars` says so."""
    one = values(low, high, names) | ranges(low, high)
    items = st.lists(one, min_size=1, max_size=4).map(",".join)
    steps = st.integers(1, high - low).map(lambda step: f"*/{step}")
    return draw(st.just("*") | items | (steps if stars else items))


@st.composite
def expressions(draw: st.DrawFn, *, both_stars: bool) -> str:
    minute, hour = draw(fields(0, 59, [])), draw(fields(0, 23, []))
    month = draw(fields(1, 12, MONTHS))
    special = st.just("L") if both_stars else st.nothing()
    day = draw(fields(1, 31, [], stars=both_stars) | special)
    nth = st.tuples(st.sampled_from(WEEKDAYS), st.integers(1, 4)).map(
        lambda two: f"{two[0]}#{two[1]}"
    )
    weekday = draw(fields(0, 6, WEEKDAYS, stars=both_stars) | (nth if both_stars else st.nothing()))
    return f"{minute} {hour} {day} {month} {weekday}"


def parsed(text: str) -> CronExpression:
    """Ours; a date that never comes is an error of ours, and a search without end of theirs."""
    try:
        return CronExpression.parse(text)
    except CronError as error:
        assume("no month of the month field" not in str(error))
        raise


@settings(max_examples=100)
@given(text=expressions(both_stars=True), start=moments)
def test_as_cronsim(text: str, start: datetime) -> None:
    ours = parsed(text)
    forward = cast("Iterator[datetime]", CronSim(text, start))
    at = start
    for _ in range(STEPS):
        at = ours.next(at)
        assume(at.year < start.year + 49)  # cronsim looks no further
        assert at == next(forward)
    backward = cast("Iterator[datetime]", CronSim(text, start, reverse=True))
    at = start
    for _ in range(STEPS):
        at = ours.previous(at)
        assume(at.year > start.year - 49)
        assert at == next(backward)


@settings(max_examples=100)
@given(text=expressions(both_stars=False), start=moments)
def test_as_croniter(text: str, start: datetime) -> None:
    ours = parsed(text)
    theirs = croniter(text, start, max_years_between_matches=100)
    at = start
    for _ in range(STEPS):
        at = ours.next(at)
        assert at == theirs.get_next(datetime)
