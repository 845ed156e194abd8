"""Counting slots: the same as visiting each, and quick where there are millions."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.scheduler import CronExpression, DstPolicy

ZONES = ("Asia/Seoul", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC")
EXPRESSIONS = (
    "* * * * * *",
    "*/7 * * * * *",
    "30 */5 2,3 * * *",
    "*/20 * * * *",
    "15 1-3 * * *",
    "30 2 * * *",
    "0 0 29 2 *",
    "0 12 * * MON-FRI",
    "59 59 23 L * *",
)
CHANGES = (
    datetime(2026, 3, 8, 7, tzinfo=ZoneInfo("UTC")),  # New York goes forward
    datetime(2026, 11, 1, 6, tzinfo=ZoneInfo("UTC")),  # and back
    datetime(2026, 4, 4, 15, tzinfo=ZoneInfo("UTC")),  # Lord Howe goes back by half an hour
    datetime(2026, 2, 15, 2, tzinfo=ZoneInfo("UTC")),  # Casablanca goes back
)


def visited(expression: CronExpression, zone: ZoneInfo, after: int, upto: int) -> int:
    found = 0
    while (after := expression.next_epoch(after, zone)) <= upto:
        found += 1
    return found


@settings(max_examples=300)
@given(
    text=st.sampled_from(EXPRESSIONS),
    zone=st.sampled_from(ZONES),
    policy=st.sampled_from(["once", "skip", "wall"]),
    change=st.sampled_from(CHANGES),
    shift=st.integers(-90_000, 90_000),
    length=st.integers(-10, 30_000),
)
def test_counting_is_visiting(
    text: str, zone: str, policy: DstPolicy, change: datetime, shift: int, length: int
) -> None:
    expression, here = CronExpression.parse(text, dst_policy=policy), ZoneInfo(zone)
    after = int(change.timestamp()) + shift
    counted = expression.count(after, after + length, here)
    assert counted == visited(expression, here, after, after + length)


@pytest.mark.parametrize("text", EXPRESSIONS[3:])
def test_counting_years(text: str) -> None:
    expression, here = CronExpression.parse(text), ZoneInfo("America/New_York")
    after = int(CHANGES[0].timestamp()) - 40 * 86_400 + 1234
    upto = after + 700 * 86_400 + 567
    assert expression.count(after, upto, here) == visited(expression, here, after, upto)


def test_counting_a_century_of_seconds_visits_few_of_them() -> None:
    expression, here = CronExpression.parse("* * * * * *"), ZoneInfo("UTC")
    assert expression.count(0.5, 3_155_760_000.9, here) == 3_155_760_000
    assert expression.count(10, 10, here) == 0
