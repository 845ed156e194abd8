"""What a schedule owes at a moment: every slot is decided once, by the policy; what is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidScheduleError
from app.services.schedules_plan import Owed, SchedulePlan
from app.services.schedules_views import preview_of, read_spec, view_of
from task_state.schedules import MissedSlots, ScheduleRecord, ScheduleSpec
from tests.support.triggers import epoch

NINE = int(epoch("2026-01-05T09:00:00"))
BASE: dict[str, Any] = {
    "cron": "* * * * *",
    "service": "sync",
    "user_id": "hong",
    "timezone": "UTC",
}


def spec(**changes: Any) -> ScheduleSpec:
    return ScheduleSpec.model_validate(BASE | changes)


def plan(schedule_id: str = "s", **changes: Any) -> SchedulePlan:
    return SchedulePlan.of(schedule_id, spec(**changes))


def minutes(owed: Owed | None) -> list[int]:
    assert owed is not None
    return [(slot - NINE) // 60 for slot in owed.slots]


# -------------------------------------------------------------------------------------------- owing
def test_nothing_is_owed_before_the_next_slot() -> None:
    assert plan().owed(NINE, NINE + 59.999) is None
    assert plan().next_due(NINE) == NINE + 60
    assert plan().next_due(NINE - 1) == NINE


def test_one_slot_is_owed_when_it_is_due() -> None:
    assert plan().owed(NINE, NINE + 60.0) == Owed(
        new_cursor=NINE + 60, slots=[NINE + 60], missed=None
    )
    assert plan().owed(NINE, NINE + 99.9) == Owed(
        new_cursor=NINE + 99, slots=[NINE + 60], missed=None
    )


def test_what_was_missed_is_listed() -> None:
    owed = plan().owed(NINE, NINE + 5 * 60)
    assert owed is not None
    assert minutes(owed) == [5]
    assert owed.missed == MissedSlots(4, NINE + 60, NINE + 240)
    assert owed.missed_count == 4


def test_many_missed_ones_are_counted() -> None:
    month = 30 * 86_400
    missed = MissedSlots(month - 1, NINE + 1, NINE + month - 1)
    owed = plan(cron="* * * * * *").owed(NINE, NINE + month)
    assert owed == Owed(new_cursor=NINE + month, slots=[NINE + month], missed=missed)
    assert owed is not None
    assert owed.missed_count == month - 1


@pytest.mark.parametrize(
    ("coalesce", "fires"),
    [("latest", [9]), ("earliest", [1]), ("all", [7, 8, 9]), ("none", [8, 9])],
)
def test_the_policies_are_those_of_triggers(coalesce: str, fires: list[int]) -> None:
    owed = plan(coalesce=coalesce, max_catchup=3).owed(NINE, NINE + 9 * 60 + 30 - 30)
    assert minutes(owed) == fires
    assert owed is not None
    assert owed.missed_count == 9 - len(fires)
    assert owed.new_cursor == NINE + 9 * 60


def test_what_comes_after_the_earliest_is_missed() -> None:
    owed = plan(coalesce="earliest").owed(NINE, NINE + 300)
    assert owed is not None
    assert (minutes(owed), owed.missed) == ([1], MissedSlots(4, NINE + 120, NINE + 300))


def test_none_may_leave_nothing_to_fire() -> None:
    owed = plan(cron="0 9 * * *", coalesce="none").owed(NINE - 1, NINE + 61)
    assert owed == Owed(new_cursor=NINE + 61, slots=[], missed=MissedSlots(1, NINE, NINE))


def test_start_and_end_bound_the_slots() -> None:
    bounds: dict[str, Any] = {
        "start_at": "2026-01-05T09:02:00Z",
        "end_at": "2026-01-05T09:05:00Z",
        "coalesce": "all",
    }
    bounded = plan(**bounds)
    assert bounded.next_due(NINE) == NINE + 120
    owed = bounded.owed(NINE, NINE + 3600)
    assert minutes(owed) == [2, 3, 4]
    assert owed is not None
    assert (owed.missed, owed.new_cursor) == (None, NINE + 3600)
    assert bounded.next_due(owed.new_cursor) is None
    assert bounded.count(NINE - 600, NINE + 7200) == 3
    assert bounded.following(NINE, 10) == [NINE + 60 * minute for minute in (2, 3, 4)]


def test_a_slot_that_jitter_delays_is_not_settled_before() -> None:
    delayed = plan(jitter_seconds=30)
    due = delayed.due(NINE)
    assert NINE < due < NINE + 30
    assert delayed.owed(NINE - 1, due - 0.001) is None
    owed = delayed.owed(NINE - 1, due)
    assert owed is not None
    assert (owed.slots, owed.new_cursor) == ([NINE], int(due))
    assert delayed.without_jitter().owed(NINE - 1, NINE) is not None


@given(
    cron=st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "*/20 * * * * *"]),
    zone=st.sampled_from(["UTC", "Asia/Seoul", "America/New_York", "Australia/Lord_Howe"]),
    coalesce=st.sampled_from(["latest", "earliest", "all", "none"]),
    jitter=st.sampled_from([0, 5, 3600]),
    grace=st.sampled_from([0, 60, 7200]),
    catchup=st.integers(1, 100),
    start=st.sampled_from(
        [NINE, int(epoch("2026-03-08T05:00:00")), int(epoch("2026-11-01T04:00:00"))]
    ),
    steps=st.lists(st.floats(0.001, 9000), min_size=1, max_size=12),
)
def test_every_slot_is_decided_once(
    cron: str,
    zone: str,
    coalesce: str,
    jitter: float,
    grace: float,
    catchup: int,
    start: int,
    steps: list[float],
) -> None:
    made = plan(
        cron=cron, timezone=zone, coalesce=coalesce, jitter_seconds=jitter, grace_seconds=grace,
        max_catchup=catchup,
    )  # fmt: skip
    cursor, now = start, float(start)
    fired: list[int] = []
    missed = 0
    for step in steps:
        now += step
        owed = made.owed(cursor, now)
        due = made.next_due(cursor)
        assert (owed is None) == (due is None or now < due)
        if owed is None:
            continue
        assert cursor < owed.new_cursor <= now
        assert all(cursor < slot <= owed.new_cursor for slot in owed.slots)
        assert len(owed.slots) <= catchup
        if owed.missed is not None:
            first, last = owed.missed.first, owed.missed.last
            between = [first, *made.following(first, owed.missed.count - 1)]
            assert (between[-1], len(between)) == (last, owed.missed.count)
            assert cursor < first <= last <= owed.new_cursor
            assert not any(first <= slot <= last for slot in owed.slots)
        fired += owed.slots
        missed += owed.missed_count
        cursor = owed.new_cursor
        following = made.next_due(cursor)
        assert following is None or following > now
    assert fired == sorted(set(fired)), "none twice, in order"
    assert len(fired) + missed == made.count(start, cursor)


# --------------------------------------------------------------------------------------- parameters
def test_parameters_have_the_slot_and_those_around_it() -> None:
    made = plan(
        "밤", cron="0 9 * * MON", timezone="Asia/Seoul",
        parameters={"from": "{{ previous:%F }}", "to": "{{ next:%F }}", "at": "{{ slot:%F %T }}",
                    "of": "{{ schedule }}"},
    )  # fmt: skip
    slot = int(datetime(2026, 1, 5, 9, tzinfo=ZoneInfo("Asia/Seoul")).timestamp())
    assert made.tasks([slot])[0].parameters == {
        "from": "2025-12-29", "to": "2026-01-12", "at": "2026-01-05 09:00:00", "of": "밤",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{{ slot + 36600d }}", "{{ next + 3000w }}"])
def test_a_time_beyond_the_calendar_is_an_error_that_names_the_field(text: str) -> None:
    made = plan(cron="0 0 1 1 *", parameters={"x": text}, jitter_seconds=5)
    last = made.following(epoch("9998-01-01T00:00:00") - 1, 9)[-1]
    assert last <= made.due(last) <= last + 5
    with pytest.raises(InvalidScheduleError, match="parameters: "):
        made.parameters(last)


def test_a_time_without_a_zone_is_the_schedules() -> None:
    made = plan(timezone="Asia/Seoul")
    assert made.aware(datetime(2026, 1, 5)).utcoffset() == timedelta(hours=9)  # noqa: DTZ001
    aware = datetime(2026, 1, 5, tzinfo=UTC)
    assert made.aware(aware) is aware


# ------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"cron": "61 * * * *"}, ["cron"]),
        ({"cron": "0 0 30 2 *"}, ["cron"]),
        ({"timezone": "Asia/Seol"}, ["timezone"]),
        ({"timezone": "../UTC"}, ["timezone"]),
        ({"timezone": "localtime"}, ["timezone"]),
        ({"dst_policy": "twice"}, ["dst_policy"]),
        ({"parameters": {"src": {"x": "{{ slto }}"}}}, ["parameters.src.x"]),
        ({"cron": "x", "timezone": "y", "dst_policy": "z"}, ["dst_policy", "cron", "timezone"]),
    ],
)
def test_each_wrong_field_is_named(changes: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(InvalidScheduleError) as caught:
        plan(**changes)
    assert [problem.field for problem in caught.value.problems] == fields
    assert all(f"{field}: " in str(caught.value) for field in fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cron": None}, "cron: "),
        ({"user": "hong"}, "user: no such field: "),
        ({"overlap": "sometimes"}, "overlap: "),
        ({"grace_seconds": -1}, "grace_seconds: "),
        ({"start_at": "2026-01-05T09:02:00"}, "start_at: "),
        ({"start_at": 2027}, "start_at: 2027 is no time"),
        ({"end_at": "2027"}, "end_at: '2027' is no time"),
        ({"end_at": True}, "end_at: True is no time"),
        (
            {"start_at": "2026-01-05T09:02:00Z", "end_at": "2026-01-05T09:02:00Z"},
            "end_at: must be later than start_at",
        ),
        ({"service": "a b"}, "service: "),
    ],
)
def test_what_a_person_wrote_is_read_or_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidScheduleError) as caught:
        read_spec(BASE | changes, "UTC")
    assert message in str(caught.value)


def test_a_missing_field_is_named_and_a_missing_zone_is_the_default() -> None:
    with pytest.raises(InvalidScheduleError, match="service: is missing"):
        read_spec({"cron": "@daily", "user_id": "hong"}, "UTC")
    values = {"cron": "@daily", "user_id": "hong", "service": "sync"}
    assert read_spec(values, "Asia/Seoul").timezone == "Asia/Seoul"
    assert read_spec(values | {"timezone": None}, "Asia/Seoul").timezone == "Asia/Seoul"
    assert read_spec(values | {"timezone": "UTC"}, "Asia/Seoul").timezone == "UTC"


# -------------------------------------------------------------------------------------------- views
def record(**changes: Any) -> ScheduleRecord:
    moment = datetime.fromtimestamp(NINE, UTC)
    values: dict[str, Any] = {
        "schedule_id": "s", "spec": spec(), "source": "api", "revision": 1, "created_at": moment,
        "updated_at": moment, "paused": False, "paused_at": None, "reason": None, "cursor": NINE,
        "fired": 0, "missed": 0, "skipped": 0, "failures": 0, "active": [], "active_count": 0,
        "buffered": [],
    }  # fmt: skip
    return ScheduleRecord(**values | changes)


def test_a_view_has_the_next_fires_and_the_words() -> None:
    shown = view_of(record(spec=spec(cron="0 9 * * *", timezone="Asia/Seoul")), NINE + 5.0)
    assert shown.words == "at 09:00"
    assert [fire.isoformat() for fire in shown.next_fires][:2] == [
        "2026-01-06T09:00:00+09:00", "2026-01-07T09:00:00+09:00",
    ]  # fmt: skip
    assert len(shown.next_fires) == 5
    assert shown.problem is None


def test_a_paused_schedule_has_no_next_fires_and_a_broken_one_says_why() -> None:
    assert view_of(record(paused=True), NINE).next_fires == []
    broken = view_of(record(spec=spec(cron="never")), NINE)
    assert broken.next_fires == []
    assert broken.problem is not None
    assert broken.problem.startswith("cron: ")


def test_a_preview_shows_slots_due_times_and_parameters() -> None:
    own = spec(parameters={"day": "{{ slot:%H:%M }}"}, jitter_seconds=10)
    made = SchedulePlan.of("s", own)
    shown = preview_of(made, own, NINE, 3)
    assert [fire.parameters["day"] for fire in shown.fires] == ["09:01", "09:02", "09:03"]
    assert [round(fire.due.timestamp(), 3) for fire in shown.fires] == [
        round(made.due(NINE + 60 * minute), 3) for minute in (1, 2, 3)
    ]
