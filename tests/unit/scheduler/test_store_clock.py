"""The store's clock: never ahead, soon right again after a step, and asleep for a moment only."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dms_scheduler import store_clock
from dms_scheduler.store_clock import StoreClock


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock: its last number."""
    moments = [1000.0]
    monkeypatch.setattr(store_clock.time, "monotonic", lambda: moments[-1])
    return moments


def test_it_stands_still_until_it_was_read(monotonic: list[float]) -> None:
    clock = StoreClock()
    assert clock.now() == 0
    clock.read(5000.0, 999.9, 1000.0)
    assert clock.now() == 5000.0
    monotonic.append(1007.0)
    assert clock.now() == 5007.0


def test_the_quickest_reading_counts(monotonic: list[float]) -> None:
    clock = StoreClock()
    clock.read(5000.0, 998.0, 1000.0)  # it may be up to two seconds later there
    assert clock.now() == 5000.0
    clock.read(5001.0, 999.9, 1000.0)
    assert clock.now() == 5001.0
    clock.read(5000.5, 990.0, 1000.0)  # tells nothing new
    assert clock.now() == 5001.0


@pytest.mark.parametrize("step", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_step_of_the_stores_clock_is_followed(monotonic: list[float], step: float) -> None:
    clock = StoreClock()
    clock.read(50_000.0, 999.9, 1000.0)
    clock.read(50_000.0 + step, 999.9, 1000.0)
    assert clock.now() == 50_000.0 + step


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=20)
)
def test_it_is_never_ahead_of_a_steady_store(readings: list[tuple[float, float, float]]) -> None:
    """Each reading: a pause, the time of the way there, the time of the way back."""
    clock, moment, ahead = StoreClock(), 0.0, 7_000.0
    slowest = 0.0
    for pause, there, back in readings:
        moment += pause
        clock.read(moment + there + ahead, moment, moment + there + back)
        moment += there + back
        slowest = max(slowest, back)
        assert clock._ahead is not None
        assert -slowest - 1e-6 <= clock._ahead - ahead <= 1e-6


async def test_a_sleeper_looks_again_soon_and_is_woken() -> None:
    clock, wake = StoreClock(), asyncio.Event()
    await clock.sleep(1e9, wake)  # would never end if it slept as long as it was told to
    wake.set()
    begin = time.monotonic()
    await clock.sleep(1e9, wake)
    assert time.monotonic() >= begin
