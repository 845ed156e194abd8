"""Times in the configured zone, exact to the microsecond; and the form of a log line."""

import re
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_state import ConfigurationError
from task_state.repository import format_log_entry
from task_state.timezone import from_microseconds, get_timezone, now, to_microseconds

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d"


def test_the_default_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("DMS_TIMEZONE")
        else:
            monkeypatch.setenv("DMS_TIMEZONE", value)
        assert get_timezone() == ZoneInfo("Asia/Seoul")
        assert now().utcoffset() == timedelta(hours=9)


def test_the_zone_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_TIMEZONE", "UTC")
    assert now().utcoffset() == timedelta(0)
    assert format_log_entry("x").endswith("+00:00,x")
    monkeypatch.setenv("DMS_TIMEZONE", "America/New_York")
    assert from_microseconds(0).isoformat() == "1969-12-31T19:00:00-05:00"


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "../../etc/passwd", "/etc/localtime", "a\0b", "."]
)
def test_an_unknown_zone_says_what_to_do(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if "\0" in name:
        monkeypatch.setattr("os.environ", {"DMS_TIMEZONE": name})
    else:
        monkeypatch.setenv("DMS_TIMEZONE", name)
    with pytest.raises(ConfigurationError, match="Asia/Seoul"):
        now()


def test_now_is_the_present() -> None:
    assert abs(now() - datetime.now(UTC)) < timedelta(minutes=1)


@given(st.integers(-2_000_000_000_000_000, 8_500_000_000_000_000))
def test_microseconds_are_exact_both_ways(value: int) -> None:
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)
    when = when.astimezone(timezone(timedelta(hours=-3)))
    assert to_microseconds(when) == value
    assert from_microseconds(to_microseconds(when)) == when
    assert to_microseconds(from_microseconds(to_microseconds(when))) == to_microseconds(when)


def test_known_instants() -> None:
    assert to_microseconds(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert to_microseconds(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)) == -1
    naive = datetime(1970, 1, 1, 9)  # noqa: DTZ001  (taken in Asia/Seoul)
    assert to_microseconds(naive) == 0


def test_a_log_line_is_the_time_and_the_message() -> None:
    assert re.fullmatch(
        rf"{STAMP},worker started, at last", format_log_entry("worker started, at last")
    )
    lines = [format_log_entry("x") for _ in range(100)]
    assert all(first <= second for first, second in pairwise(lines)), "lines sort by time"


@given(st.text())
def test_a_message_is_one_line_of_text(message: str) -> None:
    line = format_log_entry(message)
    assert "\n" not in line
    assert "\r" not in line
    line.encode("utf-8")
    kept = re.sub(f"^{STAMP},", "", line)
    if message.isprintable():
        assert kept == message


def test_what_is_no_text_is_escaped() -> None:
    name = b"caf\xe9\n".decode("utf-8", "surrogateescape")
    assert format_log_entry(name).endswith(",caf\\udce9\\n")
