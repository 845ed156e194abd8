"""Templates of the fire time: what they are filled in with, what is refused, and that all else
survives."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.scheduler.domain.errors import TemplateError
from app.scheduler.domain.templates import Occasion, Template

SEOUL, BERLIN = ZoneInfo("Asia/Seoul"), ZoneInfo("Europe/Berlin")
NINE = int(datetime(2026, 1, 5, 9, tzinfo=SEOUL).timestamp())
DAY = 86_400


def at(slot: int, zone: ZoneInfo = SEOUL) -> Occasion:
    return Occasion("밤-백업", zone, slot, slot - DAY, slot + DAY)


def filled(text: str, occasion: Occasion | None = None) -> str:
    found: str = Template({"text": text}).fill(occasion or at(NINE))["text"]
    return found


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{{ slot }}", "2026-01-05T09:00:00+09:00"),
        ("{{slot}}", "2026-01-05T09:00:00+09:00"),
        ("{{ previous }}", "2026-01-04T09:00:00+09:00"),
        ("{{ next:%d }}", "06"),
        ("/in/{{ slot:%Y/%m/%d }}/{{ slot:%H%M%S }}", "/in/2026/01/05/090000"),
        ("{{ slot - 1d:%Y%m%d }}", "20260104"),
        ("{{ slot-1d:%Y%m%d }}", "20260104"),
        ("{{ slot + 1w - 1d + 2h - 3m + 4s }}", "2026-01-11T10:57:04+09:00"),
        ("{{ schedule }}", "밤-백업"),
        ("{{ slot:%s }}", str(NINE)),
        ("{{ slot:%Y년 %m월 %d일 }}", "2026년 01월 05일"),
        (
            "{{ slot:%a %A %b %B %p %I %j %u %w %y %% }}",
            "Mon Monday Jan January AM 09 005 1 1 26 %",
        ),
        ("{{ slot:%F %T %z %Z %G-W%V %U %W }}", "2026-01-05 09:00:00 +0900 KST 2026-W02 01 01"),
        ("{{ slot + 3h:%I %p }}", "12 PM"),
        ("{{ slot - 9h:%I %p }}", "12 AM"),
        ("{{ slot + 6d:%w %u }}", "0 7"),
        ("{{{{ slot }}", "{{ slot }}"),
        ("{{{{{{{{", "{{{{"),
        ("{{{{{{ slot:%d }}", "{{05"),
        ('{"a": {"b": {}}}', '{"a": {"b": {}}}'),
        ("{ slot } }} %Y", "{ slot } }} %Y"),
        ("", ""),
    ],
)
def test_what_a_text_becomes(text: str, result: str) -> None:
    assert filled(text) == result


def test_values_at_any_depth_are_filled_and_names_are_not() -> None:
    parameters: dict[str, Any] = {
        "{{ slot }}": 1,
        "list": ["{{ slot:%d }}", {"in": "{{ slot:%m }}"}, None, True, 1.5],
        "whole": "{{ slot:%Y }}",
    }
    before = json.dumps(parameters)
    template = Template(parameters)
    assert template.fill(at(NINE)) == {
        "{{ slot }}": 1,
        "list": ["05", {"in": "01"}, None, True, 1.5],
        "whole": "2026",  # a text stays a text
    }
    assert json.dumps(parameters) == before
    assert template.names == {"slot"}


@pytest.mark.parametrize(
    ("offset", "result"),
    [
        # Berlin's clock left out 02:00 to 03:00 on 2026-03-29.
        ("+ 1d", "2026-03-29T03:30:00+02:00"),
        ("+ 24h", "2026-03-29T03:30:00+02:00"),
        ("+ 2d", "2026-03-30T02:30:00+02:00"),
        ("+ 48h", "2026-03-30T03:30:00+02:00"),
        ("+ 1w", "2026-04-04T02:30:00+02:00"),
    ],
)
def test_days_keep_the_time_of_day_and_hours_are_real_ones(offset: str, result: str) -> None:
    slot = int(datetime(2026, 3, 28, 2, 30, tzinfo=BERLIN).timestamp())
    assert filled(f"{{{{ slot {offset} }}}}", at(slot, BERLIN)) == result


def test_a_time_that_the_clock_shows_twice_is_told_apart() -> None:
    first = int(datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN).timestamp())
    assert filled("{{ slot }}", at(first, BERLIN)) == "2026-10-25T02:30:00+02:00"
    assert filled("{{ slot }}", at(first + 3600, BERLIN)) == "2026-10-25T02:30:00+01:00"
    assert filled("{{ slot + 1h:%H:%M %z }}", at(first, BERLIN)) == "02:30 +0100"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ slott }}", "'slott' is not known; known are slot, previous, next, schedule"),
        ("{{ now }}", "'now' is not known"),
        ("{{ }}", "is not understood"),
        ("{{ slot 1d }}", "is not understood"),
        ("{{ slot - d }}", "is not understood"),
        ("{{ slot - 1y }}", "is not understood"),
        ("{{ slot - 1d", "has no }} after it"),
        ("{{ slot: }}", "nothing follows the colon"),
        ("{{ slot:%Q }}", "%Q is not known"),
        ("{{ slot:%Y% }}", "% is not known"),
        ("{{ schedule:%Y }}", "is no time"),
        ("{{ schedule + 1d }}", "is no time"),
        ("{{ slot + 36601d }}", "36600 days at most"),
        ("{{ slot + 9999999999w }}", "36600 days at most"),
        ("{{ slot + 30000d - 30000d }}", "36600 days at most"),
        ("{{ __class__ }}", "is not known"),
        ("{{ slot.year }}", "is not known"),
    ],
)
def test_what_is_no_template_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template({"src": "{{ slot }}", "more": [{"a b": f"x {text}"}]})
    assert caught.value.place == "parameters.more[0]['a b']"
    assert str(caught.value).startswith("parameters.more[0]['a b']: ")
    assert words in caught.value.problem


def test_an_offset_beyond_the_calendar_is_an_error_of_ours() -> None:
    with pytest.raises(TemplateError, match="years 1 to 9999"):
        filled("{{ slot + 36600d }}", at(253_000_000_000))


TEXTS = st.text(st.characters(blacklist_characters="{")).filter(lambda text: "{{" not in text)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def escaped(value: Any) -> Any:
    """The same, with each two braces written so that they are no template."""
    match value:
        case str():
            return value.replace("{{", "{{{{")
        case list():
            return [escaped(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {name: escaped(inner) for name, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_whatever_is_escaped_comes_out_as_it_was(parameters: dict[str, Any]) -> None:
    template = Template(escaped(parameters))
    assert template.fill(at(NINE)) == parameters
    assert template.names == frozenset()


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_any_json_is_read_or_refused(parameters: dict[str, Any]) -> None:
    with suppress(TemplateError):
        assert len(Template(parameters).fill(at(NINE))) == len(parameters)


@given(before=TEXTS, after=TEXTS, slot=st.integers(0, 4_000_000_000))
def test_text_around_a_placeholder_survives(before: str, after: str, slot: int) -> None:
    shown = datetime.fromtimestamp(slot, SEOUL).isoformat()
    assert filled(f"{before}{{{{ slot }}}}{after}", at(slot)) == f"{before}{shown}{after}"


@given(
    slot=st.integers(0, 4_000_000_000),
    zone=st.sampled_from(["Asia/Seoul", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana"]),
    days=st.integers(-400, 400),
    hours=st.integers(-400, 400),
)
def test_offsets_are_instants_of_the_zone(slot: int, zone: str, days: int, hours: int) -> None:
    here = ZoneInfo(zone)
    own = at(slot, here)
    by_hours = datetime.fromisoformat(filled(f"{{{{ slot {hours:+}h }}}}", own))
    assert by_hours.timestamp() == slot + hours * 3600
    by_days = datetime.fromisoformat(filled(f"{{{{ slot {days:+}d }}}}", own))
    wall = datetime.fromtimestamp(slot, here).replace(tzinfo=None) + timedelta(days=days)
    moved = by_days.replace(tzinfo=None) - wall
    exists = wall.replace(tzinfo=here).astimezone(UTC).astimezone(here).replace(tzinfo=None) == wall
    assert moved == timedelta(0) if exists else timedelta(0) < moved <= timedelta(hours=1)
