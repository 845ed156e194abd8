"""The points of a task's progress over time: bounded, growing, and the same over all attempts."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dms_scheduler.series import MOST_POINTS, Series

START = 1_700_000_000_000


def stored(series: Series) -> dict[str, Any]:
    found = json.loads(series.due(now=True))
    series.stored()
    return found


def points(series: Series) -> list[list[int]]:
    return stored(series)["points"]


def test_points_begin_at_the_start_and_end_at_the_newest() -> None:
    series = Series(START)
    for step in range(1, 31):
        series.add({"bytes": step * 10, "files": step, "phase": "copy"}, START + step * 100)
    found = points(series)
    assert found[0] == [START, 0, 0]
    assert found[-1] == [START + 3000, 300, 30]
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(found)]
    assert all(gap >= 1000 for gap in gaps[1:-1])


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10**9)), min_size=1, max_size=900))
def test_there_are_never_too_many_and_nothing_goes_back(steps: list[tuple[int, int]]) -> None:
    series, at = Series(START), START
    for gap, size in steps:
        at += gap
        series.add({"bytes": size}, at)
    found = points(series)
    assert len(found) <= MOST_POINTS + 1
    assert found == sorted(found)
    assert [size for _, size, _ in found] == sorted(size for _, size, _ in found)
    assert found[0][:2] == [START, 0]
    assert found[-1][0] == at


def test_a_long_task_has_points_far_apart() -> None:
    series = Series(START)
    for second in range(100_000):
        series.add({"bytes": second}, START + second * 1000)
    found = stored(series)
    assert MOST_POINTS / 3 < len(found["points"]) <= MOST_POINTS
    assert found["interval_seconds"] >= 256
    assert found["points"][-1] == [START + 99_999_000, 99_999, 0]


def test_the_next_attempt_goes_on_from_there() -> None:
    first = Series(START)
    first.add({"bytes": 500, "files": 5}, START + 1000)
    second = Series(START + 9000)
    second.continue_from(stored(first))
    for size, total in ((100, 600), (300, 800)):
        second.add({"bytes": size, "files": 5}, START + 10_000 + size)
        found = points(second)
        assert found[-1] == [START + 10_000 + size, total, 5], "bytes anew, files as before"
    assert found[:2] == [[START, 0, 0], [START + 1000, 500, 5]]


def test_a_clock_that_was_set_back_moves_no_point_back() -> None:
    series = Series(START)
    series.add({"bytes": 1}, START + 5000)
    series.add({"bytes": 2}, START - 60_000)
    assert points(series) == [[START, 0, 0], [START + 5000, 1, 0], [START + 5000, 2, 0]]


@pytest.mark.parametrize(
    "values", [{}, {"phase": "plan"}, {"bytes": "5"}, {"bytes": True}, {"files": -1},
               {"bytes": None}, {"bytes": float("inf")}, {"bytes": 2**64}],
)  # fmt: skip
def test_what_is_no_amount_is_no_point(values: dict[str, Any]) -> None:
    series = Series(START)
    series.add(values, START + 1)
    assert series.due(now=True) == b""


def test_it_is_stored_every_few_seconds_and_whatever_comes_meanwhile_later() -> None:
    series = Series(START)
    series.add({"bytes": 1}, START + 1000)
    assert series.due()
    series.add({"bytes": 2}, START + 3000)
    series.stored()
    assert series.due() == b"", "seconds have to pass"
    assert points(series)[-1][1] == 2
    assert series.due(now=True) == b"", "it is stored"
