"""Cron expressions against a walk over the real minutes of zones whose clocks change oddly."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.scheduler.domain.cron_expression import CronExpression, DstPolicy

# A zone, and a day near which its clock changed (or, in the last ones, did not).
CHANGES = [
    ("Asia/Seoul", "1988-05-08"),
    ("Asia/Seoul", "1988-10-09"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Pacific/Apia", "2011-12-30"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Africa/Casablanca", "2026-03-22"),
    ("America/Havana", "2026-03-08"),
    ("America/Havana", "2026-11-01"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Antarctica/Troll", "2026-10-25"),
    ("Pacific/Kwajalein", "1993-08-21"),
    ("America/Caracas", "2016-05-01"),
    ("Europe/Dublin", "2025-12-31"),
    ("Asia/Kathmandu", "1986-01-01"),
    ("UTC", "2026-06-01"),
]
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Case:
    """An expression, and independently of the parser what its minute and hour fields mean."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    wildcard: bool

    def matches(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours


def case(minutes: list[int] | None, hours: list[int] | None) -> Case:
    words = [",".join(map(str, values)) if values else "*" for values in (minutes, hours)]
    return Case(
        text=f"{words[0]} {words[1]} * * *",
        minutes=frozenset(minutes or range(60)),
        hours=frozenset(hours or range(24)),
        wildcard=minutes is None or hours is None,
    )


CASES = [
    case([30], [2]),
    case([0], [3]),
    case([0], [0]),
    case([15], [1]),
    case([0, 15, 30, 45], [0, 1, 2, 3]),
    case([59], [23]),
    case([5], None),
    case(None, [2]),
    case([0, 20, 40], None),
    case([0], [12]),
]


@lru_cache(maxsize=8)
def walk(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Each UTC minute, and what the clock on the wall shows then; made once for all expressions."""
    minutes = (start + MINUTE * number for number in range((end - start) // MINUTE))
    return [(at, at.astimezone(zone).replace(tzinfo=None, fold=0)) for at in minutes]


def expected(case: Case, policy: DstPolicy, zone: ZoneInfo, around: datetime) -> list[datetime]:
    """The instants by the rules' own words, for two days before and after a day."""
    fires: list[datetime] = []
    follows_wall = case.wildcard or policy == "wall"
    newest: datetime | None = None
    before: datetime | None = None
    for at, wall in walk(zone, around - timedelta(days=3), around + timedelta(days=3)):
        left_out = _left_out(before, wall)
        made_up = policy == "once" and not follows_wall and any(map(case.matches, left_out))
        repeated = newest is not None and wall <= newest
        if (case.matches(wall) and (follows_wall or not repeated)) or made_up:
            fires.append(at)
        newest = wall if newest is None else max(newest, wall)
        before = wall
    return [at for at in fires if abs(at - around) < timedelta(days=2)]


def _left_out(before: datetime | None, wall: datetime) -> list[datetime]:
    if before is None or not MINUTE < wall - before <= timedelta(hours=3, minutes=1):
        return []
    count = (wall - before) // MINUTE
    return [before + MINUTE * n for n in range(1, count)]


@pytest.mark.parametrize("policy", ["once", "skip", "wall"])
@pytest.mark.parametrize(("name", "day"), CHANGES)
def test_clock_changes(name: str, day: str, policy: DstPolicy) -> None:
    zone = ZoneInfo(name)
    around = datetime.fromisoformat(day).replace(tzinfo=UTC)
    low, high = around - timedelta(days=2), around + timedelta(days=2)
    for each in CASES:
        expression = CronExpression.parse(each.text, dst_policy=policy)
        wanted = expected(each, policy, zone, around)
        assert forwards(expression, zone, low, high) == wanted, each.text
        assert backwards(expression, zone, low, high) == wanted[::-1], each.text


def forwards(
    expression: CronExpression, zone: ZoneInfo, low: datetime, high: datetime
) -> list[datetime]:
    return collect(expression.next, low.astimezone(zone), lambda at: at < high)


def backwards(
    expression: CronExpression, zone: ZoneInfo, low: datetime, high: datetime
) -> list[datetime]:
    return collect(expression.previous, high.astimezone(zone), lambda at: at > low)


def collect(
    step: Callable[[datetime], datetime], at: datetime, inside: Callable[[datetime], bool]
) -> list[datetime]:
    found: list[datetime] = []
    while inside(at := step(at)):
        found.append(at.astimezone(UTC))
    return found


@settings(max_examples=60, deadline=None)
@given(
    change=st.sampled_from(CHANGES),
    policy=st.sampled_from(["once", "skip", "wall"]),
    minutes=st.none() | st.lists(st.integers(0, 59), min_size=1, max_size=4, unique=True),
    hours=st.none() | st.lists(st.integers(0, 23), min_size=1, max_size=5, unique=True),
)
def test_any_minutes_and_hours(
    change: tuple[str, str],
    policy: DstPolicy,
    minutes: list[int] | None,
    hours: list[int] | None,
) -> None:
    zone, around = ZoneInfo(change[0]), datetime.fromisoformat(change[1]).replace(tzinfo=UTC)
    each = case(minutes, hours)
    expression = CronExpression.parse(each.text, dst_policy=policy)
    low, high = around - timedelta(days=2), around + timedelta(days=2)
    wanted = expected(each, policy, zone, around)
    assert forwards(expression, zone, low, high) == wanted
    assert backwards(expression, zone, low, high) == wanted[::-1]


def test_the_second_pass_of_an_hour_is_told_by_fold() -> None:
    zone = ZoneInfo("America/New_York")
    second_pass = datetime(2026, 11, 1, 1, 10, fold=1, tzinfo=zone)
    every_ten = CronExpression.parse("*/10 * * * *")
    following = every_ten.next(second_pass)
    assert (following.hour, following.minute, following.fold) == (1, 20, 1)
    fixed = CronExpression.parse("30 1 * * *")
    assert fixed.next(second_pass).day == 2
    assert fixed.previous(second_pass).fold == 0
    repeated = CronExpression.parse("30 1 * * *", dst_policy="wall").next(second_pass)
    assert (repeated.day, repeated.fold) == (1, 1)


def test_a_time_that_a_clock_leaves_out_fires_once_at_the_gaps_end() -> None:
    zone = ZoneInfo("America/New_York")
    before = datetime(2026, 3, 8, 0, 0, tzinfo=zone)
    found = CronExpression.parse("0,15,30 2 * * *").preview(2, before)
    assert [at.strftime("%d %H:%M") for at in found] == ["08 03:00", "09 02:00"]
    also_at_three = CronExpression.parse("30 2,3 * * *").preview(3, before)
    assert [at.strftime("%d %H:%M") for at in also_at_three] == ["08 03:00", "08 03:30", "09 02:30"]


def test_a_day_that_a_zone_left_out_has_no_fires() -> None:
    zone = ZoneInfo("Pacific/Apia")
    found = CronExpression.parse("0 9 * * *").preview(2, datetime(2011, 12, 29, 0, tzinfo=zone))
    assert [at.day for at in found] == [29, 31]
