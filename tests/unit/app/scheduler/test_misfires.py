"""Which slots fire: policies by example, and heap and sleeper against a naive simulation."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.event_system import EventBase
from app.scheduler import Coalesce, CronExpression, FirePolicy, Scheduler, TriggerConfigError
from app.scheduler.domain.slots import due_at, first_slot, look
from app.scheduler.infrastructure.cron_trigger import CronTrigger
from tests.support.triggers import HandClock, Recorder, epoch, quiet

START = "2026-01-05T08:59:30"
NINE = int(epoch("2026-01-05T09:00:00"))
MINUTELY = CronExpression.parse("* * * * *")


def minutes_fired(late: float, policy: FirePolicy) -> tuple[list[int], bool]:
    """Which slots (minutes after nine) fire, when nobody looked from nine until `late` seconds
    later."""
    found = look(MINUTELY, UTC, policy, "t", NINE, NINE + late)
    assert found.following is not None
    assert found.following > NINE + late
    assert found.following - NINE - late <= 60
    return [(slot - NINE) // 60 for slot in found.fires], found.skipped


@pytest.mark.parametrize(
    ("late", "coalesce", "fires"),
    [
        (0, "latest", [0]),
        (59, "none", [0]),
        (60, "latest", [0, 1]),
        (90, "all", [0, 1]),
        (90, "none", [0, 1]),
        (90.001, "latest", [1]),
        (90.001, "earliest", [0]),
        (90.001, "all", [0, 1]),
        (90.001, "none", [1]),
        (1000, "latest", [16]),
        (1000, "earliest", [0]),
        (1000, "all", [12, 13, 14, 15, 16]),
        (1000, "none", [16]),
    ],
)
def test_policies(late: float, coalesce: Coalesce, fires: list[int]) -> None:
    policy = FirePolicy(grace=90, coalesce=coalesce, max_catchup=5)
    assert minutes_fired(late, policy) == (fires, len(fires) < late // 60 + 1)


def test_a_slot_in_time_fires_even_when_more_than_max_catchup_wait() -> None:
    assert minutes_fired(600, FirePolicy(grace=3600, max_catchup=3)) == ([8, 9, 10], True)


def test_one_late_slot() -> None:
    hourly = CronExpression.parse("@hourly")
    for coalesce, fires in (
        ("latest", [NINE]),
        ("earliest", [NINE]),
        ("all", [NINE]),
        ("none", []),
    ):
        policy = FirePolicy(grace=5, coalesce=coalesce)  # pyright: ignore[reportArgumentType]
        assert look(hourly, UTC, policy, "t", NINE, NINE + 5.5).fires == fires
        assert look(hourly, UTC, policy, "t", NINE, NINE + 5).fires == [NINE]


def test_start_and_end() -> None:
    nine = datetime.fromtimestamp(NINE, UTC)
    policy = FirePolicy(start=nine, end=nine + timedelta(minutes=2))
    assert first_slot(MINUTELY, UTC, policy, NINE - 86_400) == NINE, "start is in"
    assert first_slot(MINUTELY, UTC, policy, NINE) == NINE + 60
    assert first_slot(MINUTELY, UTC, policy, NINE + 60) is None, "end is out"
    late = look(MINUTELY, UTC, policy, "t", NINE, NINE + 3600)
    assert late == ([NINE + 60], None, True)
    half = FirePolicy(start=nine + timedelta(microseconds=1))
    assert first_slot(MINUTELY, UTC, half, 0) == NINE + 60


def test_a_week_of_missed_seconds_costs_nothing() -> None:
    every_second = CronExpression.parse("* * * * * *")
    policy = FirePolicy(coalesce="all", max_catchup=3)
    week = 7 * 86_400
    found = look(every_second, UTC, policy, "t", NINE, NINE + week + 0.5)
    assert found.fires == [NINE + week - 2, NINE + week - 1, NINE + week]
    assert found.following == NINE + week + 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grace": -1}, "grace is -1"),
        ({"grace": float("nan")}, "grace is nan"),
        ({"coalesce": "newest"}, "give one of latest, earliest, all, none"),
        ({"max_catchup": 0}, "max_catchup is 0"),
        ({"jitter": -0.1}, "jitter is -0.1"),
        ({"jitter": float("nan")}, "jitter is nan"),
        ({"jitter": 1e9}, "0 to 86400 seconds"),
        ({"start": datetime(2026, 1, 1)}, "start is 2026-01-01T00:00:00, without a time zone"),  # noqa: DTZ001
        (
            {"start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 1, tzinfo=UTC)},
            "is not before end",
        ),
    ],
)
def test_refusals(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TriggerConfigError, match=words):
        FirePolicy(**options)


@given(slot=st.integers(0, 10**6), key=st.text(), jitter=st.floats(0.001, 86_400))
def test_jitter_is_never_early_nor_beyond_the_next_slot(slot: int, key: str, jitter: float) -> None:
    slot *= 60
    policy = FirePolicy(jitter=jitter)
    due = due_at(MINUTELY, UTC, policy, key, slot)
    assert slot <= due <= slot + min(jitter, 60)
    assert due == due_at(MINUTELY, UTC, policy, key, slot), "the same on every machine"


def test_jitter_spreads() -> None:
    dues = {due_at(MINUTELY, UTC, FirePolicy(jitter=60), f"t{n}", NINE) for n in range(1000)}
    tenths = [sum(NINE + n * 6 <= due < NINE + n * 6 + 6 for due in dues) for n in range(10)]
    assert len(dues) == 1000
    assert min(tenths) > 50
    more = {due_at(MINUTELY, UTC, FirePolicy(jitter=60), "t", NINE + n * 60) % 60 for n in range(9)}
    assert len(more) == 9


# ------------------------------------------------------------- heap and sleeper, naive simulation

EXPRESSIONS = ["* * * * * *", "*/7 * * * * *", "* * * * *", "*/2 * * * *", "30 1-59/3 * * * *"]
policies = st.builds(
    FirePolicy,
    grace=st.sampled_from([0.0, 1.0, 5.0, 60.0, 1000.0]),
    coalesce=st.sampled_from(["latest", "earliest", "all", "none"]),
    max_catchup=st.integers(1, 9),
    jitter=st.sampled_from([0.0, 0.0, 0.5, 20.0, 300.0]),
    start=st.none() | st.just(datetime.fromtimestamp(NINE, UTC)),
    end=st.none() | st.just(datetime.fromtimestamp(NINE + 600, UTC)),
)
actions = st.lists(
    st.tuples(st.just("advance"), st.sampled_from([0.3, 1.0, 2.5, 17.0, 60.0, 400.0]))
    | st.tuples(st.just("step"), st.sampled_from([-3600.0, -7.5, -0.2, 0.7, 45.0, 1800.0])),
    min_size=1,
    max_size=14,
)


class Naive:
    """One trigger, slot by slot: what the looks at the clock must have made fire."""

    def __init__(self, key: str, text: str, policy: FirePolicy, now: float) -> None:
        self.key, self.policy, self.expression = key, policy, CronExpression.parse(text)
        self.handled = now

    def due(self, slot: int) -> float:
        return due_at(self.expression, UTC, self.policy, self.key, slot)

    def look(self, now: float) -> list[int]:
        policy, waiting = self.policy, [*self.slots(now)]
        if not waiting:
            return []
        self.handled = waiting[-1]
        in_time = [slot for slot in waiting if now - self.due(slot) <= policy.grace]
        if len(in_time) < len(waiting):
            if policy.coalesce == "latest":
                waiting = waiting[-1:]
            elif policy.coalesce == "earliest":
                waiting = waiting[:1]
            elif policy.coalesce == "none":
                waiting = in_time
        return waiting[-policy.max_catchup :]

    def slots(self, now: float) -> list[int]:
        found: list[int] = []
        slot = int(self.expression.next_epoch(self.handled, UTC))
        while slot <= now and self.due(slot) <= now:
            moment = datetime.fromtimestamp(slot, UTC)
            started = self.policy.start is None or moment >= self.policy.start
            if started and (self.policy.end is None or moment < self.policy.end):
                found.append(slot)
            slot = self.expression.next_epoch(slot, UTC)
        return found


async def simulate(triggers: list[tuple[str, FirePolicy]], moves: list[tuple[str, float]]) -> None:
    clock, recorder = HandClock(START), Recorder()
    scheduler = Scheduler(recorder, clock=clock)
    naive = [Naive(str(n), text, policy, clock.now()) for n, (text, policy) in enumerate(triggers)]
    for one in naive:
        trigger = CronTrigger(one.expression, lambda: EventBase(topic="t"), UTC, one.policy)
        await scheduler.register_trigger(one.key, trigger, f"t.{one.key}")
    await scheduler.start()
    await quiet(scheduler, clock)
    expected: dict[str, list[int]] = {one.key: [] for one in naive}
    for kind, seconds in moves:
        getattr(clock, kind)(seconds)
        clock.looks.clear()
        await quiet(scheduler, clock)
        for now in clock.looks:
            for one in naive:
                expected[one.key] += one.look(now)
    await scheduler.stop()
    fired: dict[str, list[int]] = {one.key: [] for one in naive}
    for topic, event in recorder.published:
        slot = datetime.fromisoformat(event.headers["dms-slot"]).timestamp()
        fired[topic.removeprefix("t.")].append(int(slot))
    assert fired == expected
    assert all(slots == sorted(set(slots)) for slots in fired.values())
    assert clock.longest <= 60


@settings(max_examples=150)
@given(
    triggers=st.lists(st.tuples(st.sampled_from(EXPRESSIONS), policies), min_size=1, max_size=6),
    moves=actions,
)
def test_every_slot_once_in_order_as_the_policy_says(
    triggers: list[tuple[str, FirePolicy]], moves: list[tuple[str, float]]
) -> None:
    asyncio.run(simulate(triggers, moves))


def test_the_simulation_fires_at_all() -> None:
    """So that the property is no comparison of nothing with nothing."""
    one = Naive("0", "* * * * *", FirePolicy(), epoch(START))
    assert one.look(NINE + 61) == [NINE, NINE + 60][-1:]
