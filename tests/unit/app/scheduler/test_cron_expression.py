"""Cron expressions: what they accept, what they refuse, and the instants that they mean."""

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.scheduler.domain.cron_expression import CronExpression
from app.scheduler.domain.errors import CronError, SchedulerError

ODD_DAYS = ", ".join(map(str, range(1, 30, 2)))
NEW_YORK = ZoneInfo("America/New_York")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def next_of(expression: str, after: str) -> str:
    return CronExpression.parse(expression).next(utc(after)).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00", "2026-01-01 00:01:00"),
        ("* * * * * *", "2026-01-01T00:00", "2026-01-01 00:00:01"),
        ("*/15 * * * *", "2026-01-01T00:59:59.999", "2026-01-01 01:00:00"),
        ("5/20 * * * *", "2026-01-01T00:26", "2026-01-01 00:45:00"),
        ("0 9 * * MON-FRI", "2026-01-02T09:00", "2026-01-05 09:00:00"),
        ("0 9 * * fri-sun", "2026-01-05T09:00", "2026-01-09 09:00:00"),
        ("0 0 * * 7", "2026-01-01T00:00", "2026-01-04 00:00:00"),
        ("0 0 * * 0", "2026-01-01T00:00", "2026-01-04 00:00:00"),
        ("0 0 13 * FRI", "2026-01-01T00:00", "2026-01-02 00:00:00"),
        ("0 0 */2 * MON", "2026-01-01T00:00", "2026-01-05 00:00:00"),
        ("0 0 13 * ?", "2026-01-13T00:00", "2026-02-13 00:00:00"),
        ("0 0 ? * MON", "2026-01-13T00:00", "2026-01-19 00:00:00"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29 00:00:00"),
        ("0 0 29 2 *", "2096-02-29T00:00", "2104-02-29 00:00:00"),
        ("0 0 L * *", "2026-02-01T00:00", "2026-02-28 00:00:00"),
        ("0 0 L-3 * *", "2026-02-01T00:00", "2026-02-25 00:00:00"),
        ("0 0 LW * *", "2026-01-31T00:00", "2026-02-27 00:00:00"),
        ("0 0 1W * *", "2026-07-31T00:00", "2026-08-03 00:00:00"),
        ("0 0 15W * *", "2026-08-01T00:00", "2026-08-14 00:00:00"),
        ("0 0 31W * *", "2026-05-01T00:00", "2026-05-29 00:00:00"),
        ("0 0 * * 5L", "2026-01-01T00:00", "2026-01-30 00:00:00"),
        ("0 0 * * FRIL", "2026-01-30T00:00", "2026-02-27 00:00:00"),
        ("0 0 * * MON#2", "2026-01-01T00:00", "2026-01-12 00:00:00"),
        ("0 0 * 2 1#5", "2026-01-01T00:00", "2044-02-29 00:00:00"),
        ("0 0 1,L,15W JAN,MAR *", "2026-01-02T00:00", "2026-01-15 00:00:00"),
        ("@hourly", "2026-01-01T00:30", "2026-01-01 01:00:00"),
        ("@Daily", "2026-01-01T00:30", "2026-01-02 00:00:00"),
        ("@yearly", "2026-01-01T00:00", "2027-01-01 00:00:00"),
        ("  0   0\t1 1 * ", "2026-01-01T00:00", "2027-01-01 00:00:00"),
    ],
)
def test_next(expression: str, after: str, expected: str) -> None:
    assert next_of(expression, after) == expected


def test_next_and_previous_are_strict_and_keep_the_zone() -> None:
    expression = CronExpression.parse("30 9 * * *")
    at = datetime(2026, 1, 5, 9, 30, tzinfo=NEW_YORK)
    assert expression.next(at) == datetime(2026, 1, 6, 9, 30, tzinfo=NEW_YORK)
    assert expression.previous(at) == datetime(2026, 1, 4, 9, 30, tzinfo=NEW_YORK)
    assert expression.next(at).tzinfo is NEW_YORK
    almost = datetime(2026, 1, 5, 9, 29, 59, 999_999, tzinfo=NEW_YORK)
    assert expression.next(almost) == at
    assert expression.previous(at.replace(microsecond=1)) == at


def test_preview() -> None:
    found = CronExpression.parse("0 12 1 * *").preview(3, utc("2026-11-15T00:00"))
    assert [day.strftime("%m-%d") for day in found] == ["12-01", "01-01", "02-01"]
    assert CronExpression.parse("0 12 1 * *").preview(0, utc("2026-11-15T00:00")) == []


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("60 * * * *", "minute field '60': 60 is out of range 0-59"),
        ("* 24 * * *", "hour field '24': 24 is out of range 0-23"),
        ("* * 0 * *", "day-of-month field '0': 0 is out of range 1-31"),
        ("* * * 13 *", "month field '13': 13 is out of range 1-12 (allowed: 1-12 or JAN-DEC)"),
        ("* * * * 8", "day-of-week field '8': 8 is out of range 0-7 (allowed: 0-7 or SUN-SAT)"),
        ("61 * * * * *", "second field '61'"),
        ("* * * FOO *", "month field 'FOO': 'FOO' is not a value"),
        ("* * * * MON-FOO", "'FOO' is not a value"),
        ("5-1 * * * *", "the range runs backwards: write 5-59,0-1"),
        ("*/0 * * * *", "the step '0' is not a number from 1 on"),
        ("*/x * * * *", "the step 'X' is not a number"),
        ("*/90 * * * *", "a step of 90 leaves 0 alone: cron counts anew in each hour"),
        ("1,,2 * * * *", "an empty item"),
        ("-1 * * * *", "'' is not a value"),
        ("1- * * * *", "'' is not a value"),
        ("? * * * *", "'?' is not a value"),
        ("* * * * L", "L needs the weekday before it"),
        ("* * * * MON#6", "1st to the 5th"),
        ("* * * * 9#1", "9 is out of range 0-7"),
        ("* * L-31 * *", "31 is out of range 0-30"),
        ("* * 32W * *", "32 is out of range 1-31"),
        ("٣ * * * *", "is not a value"),
        ("0 0 30 2 *", "no month of the month field ever has a day"),
        ("0 0 31 4,6,9,11 *", "no month of the month field ever has a day"),
        ("0 0 31W 2 *", "no month"),
        ("@reboot", "known are @yearly"),
        ("1" * 2000, "1000 at most"),
    ],
)
def test_refusals_name_the_field_the_value_and_the_range(expression: str, words: str) -> None:
    with pytest.raises(CronError) as refused:
        CronExpression.parse(expression)
    assert words in str(refused.value)
    assert isinstance(refused.value, SchedulerError)


def test_a_bad_policy_and_a_naive_time_are_refused() -> None:
    with pytest.raises(CronError, match="dst_policy 'never' is not one of once, skip, wall"):
        CronExpression.parse("* * * * *", dst_policy="never")  # pyright: ignore[reportArgumentType]
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="names no time zone"):
        CronExpression.parse("* * * * *").next(naive)


def test_the_ends_of_time_are_errors_not_hangs() -> None:
    yearly = CronExpression.parse("@yearly")
    with pytest.raises(CronError):
        yearly.next(datetime(9999, 6, 1, tzinfo=UTC))
    with pytest.raises(CronError):
        yearly.previous(datetime(1, 1, 2, tzinfo=UTC))
    with pytest.raises(CronError, match="9998"):
        CronExpression.parse("0 0 29 2 *").next(datetime(9996, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("* * * * * *", "every second"),
        ("*/5 * * * *", "every 5 minutes"),
        ("7 * * * *", "at minute 7"),
        ("0 * * * *", "every hour"),
        ("0 */6 * * *", "at 00:00, 06:00, 12:00 and 18:00"),
        ("0 */2 * * *", "at minute 0, every 2 hours"),
        ("*/10 9-17 * * MON-FRI", "every 10 minutes, from 09:00 to 17:59, on Monday to Friday"),
        ("0 9 * * MON-FRI", "at 09:00, on Monday to Friday"),
        ("30 8 1 1 *", "at 08:30, on day 1 of the month, in January"),
        ("0 0 13 * FRI", "at 00:00, on day 13 of the month or on Friday"),
        (
            "0 0 */2 * FRI",
            ", ".join(["at 00:00", f"on days {ODD_DAYS} and 31 of the month if it is Friday"]),
        ),
        ("0 0 L * *", "at 00:00, on the last day of the month"),
        (
            "0 0 * * MON#2,FRIL",
            "at 00:00, on the second Monday of the month and the last Friday of the month",
        ),
        ("15 30 8 * * *", "at 08:30:15"),
    ],
)
def test_describe(expression: str, words: str) -> None:
    assert CronExpression.parse(expression).describe() == words


def test_parsing_is_cached() -> None:
    assert CronExpression.parse("1 2 3 4 *") is CronExpression.parse("1 2 3 4 *")
    once, wall = (
        CronExpression.parse("1 2 3 4 *"),
        CronExpression.parse("1 2 3 4 *", dst_policy="wall"),
    )
    assert once != wall


ALPHABET = "0123456789*/,-?#LWMONFRIJA@ \t\n٣"


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet=ALPHABET, max_size=40) | st.text(max_size=20))
def test_any_text_is_read_or_refused_quickly(text: str) -> None:
    started = time.process_time()
    try:
        expression = CronExpression.parse(text)
        following = expression.next(utc("2026-01-01T00:00"))
        assert expression.previous(following) < following
        assert expression.describe()
    except CronError:
        pass
    assert time.process_time() - started < 5.0  # a hang, not a speed
