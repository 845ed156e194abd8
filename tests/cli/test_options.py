"""What the options' texts mean."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from cli.options import parameters, since


def test_a_repeated_name_makes_a_list() -> None:
    pairs = ["src=/a", "include=*.py", "include=*.md", "include=a=b", "empty="]
    assert parameters(pairs) == {"src": "/a", "include": ["*.py", "*.md", "a=b"], "empty": ""}


@pytest.mark.parametrize("pair", ["novalue", "=value", ""])
def test_a_pair_needs_a_name(pair: str) -> None:
    with pytest.raises(typer.BadParameter, match="name=value"):
        parameters([pair])


def test_bytes_that_are_not_text_are_refused_with_a_way_out() -> None:
    with pytest.raises(typer.BadParameter, match="not valid UTF-8"):
        parameters(["src=/data/\udcff"])


@pytest.mark.parametrize(
    ("text", "age"),
    [("90s", timedelta(seconds=90)), ("1.5h", timedelta(minutes=90)), ("7d", timedelta(days=7))],
)
def test_an_age_is_counted_from_now(text: str, age: timedelta) -> None:
    before = datetime.now(UTC)
    found = datetime.fromisoformat(since(text) or "")
    assert before - age <= found <= datetime.now(UTC) - age


def test_times_are_iso() -> None:
    assert since(None) is None
    assert since("2026-01-31T09:00+09:00") == "2026-01-31T09:00:00+09:00"
    assert since("2026-01-31") == "2026-01-31T00:00:00+00:00"
    with pytest.raises(typer.BadParameter, match="neither an age"):
        since("yesterday")


@pytest.mark.parametrize("text", ["999999w", "99999999999999999999999d", "9" * 400 + "s"])
def test_an_age_beyond_all_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="before the year 1"):
        since(text)
