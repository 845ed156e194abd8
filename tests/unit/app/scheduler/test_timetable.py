"""The timetable: order, replacing, dropping, lanes, and what breaks."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.event_system import EventBase
from app.scheduler import Scheduler, create_cron_trigger
from app.scheduler.infrastructure import _timetable as module
from app.scheduler.infrastructure._timetable import LANES, Timetable
from tests.support.triggers import HandClock, Recorder, left_behind, quiet, until


class Served:
    """Serves keys: notes them, and holds them while it is closed."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.begun = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.again: float | None = None

    async def __call__(self, key: str, now: float) -> float | None:
        self.begun += 1
        await self.open.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.keys.append(key)
        return None if self.again is None else now + self.again


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def timetable(served: Served, clock: HandClock) -> AsyncGenerator[Timetable]:
    timetable = Timetable(served, clock)
    timetable.start()
    timetable.start()
    yield timetable
    served.open.set()
    await timetable.stop(20)
    assert left_behind() == []


async def settled(timetable: Timetable, clock: HandClock) -> None:
    await until(
        lambda: clock.asleep and not timetable._lanes and not timetable._wake.is_set(), "quiet"
    )


async def test_keys_come_in_the_order_of_their_times(
    timetable: Timetable, served: Served, clock: HandClock
) -> None:
    now = clock.now()
    for key, seconds in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("far", 1e6)):
        timetable.put(key, now + seconds)
    await settled(timetable, clock)
    clock.advance(10)
    await settled(timetable, clock)
    assert served.keys == ["a", "b", "c"]
    assert len(timetable) == 1


async def test_a_key_has_one_time(timetable: Timetable, served: Served, clock: HandClock) -> None:
    now = clock.now()
    timetable.put("a", now + 5)
    await settled(timetable, clock)
    timetable.put("a", now + 1)  # earlier than what is slept for
    timetable.put("b", now + 1)
    timetable.put("b", now + 30)
    await settled(timetable, clock)
    clock.advance(6)
    await settled(timetable, clock)
    assert served.keys == ["a"]
    clock.advance(30)
    await settled(timetable, clock)
    assert served.keys == ["a", "b"]


async def test_void_items_do_not_pile_up(timetable: Timetable, clock: HandClock) -> None:
    for seconds in range(100_000):
        timetable.put("a", clock.now() + 100 + seconds)
    assert len(timetable._heap) < 2000
    assert len(timetable) == 1


async def test_dropped_keys_are_not_served(
    timetable: Timetable, served: Served, clock: HandClock
) -> None:
    timetable.put("a", clock.now() + 1)
    timetable.put("b", clock.now() + 1)
    await timetable.drop("a", 1)
    await timetable.drop("unknown", 1)
    await settled(timetable, clock)
    clock.advance(2)
    await settled(timetable, clock)
    assert served.keys == ["b"]


async def test_a_key_that_waits_for_a_lane_can_be_dropped(
    timetable: Timetable, served: Served, clock: HandClock
) -> None:
    served.open.clear()
    for number in range(LANES + 5):
        timetable.put(f"{number:03d}", clock.now())
    await until(lambda: served.begun == LANES, "all lanes are busy")
    await timetable.drop(f"{LANES + 2:03d}", 1)
    served.open.set()
    await settled(timetable, clock)
    wanted = [f"{number:03d}" for number in range(LANES + 5) if number != LANES + 2]
    assert sorted(served.keys) == wanted


async def test_a_dropped_key_is_not_put_back(
    timetable: Timetable, served: Served, clock: HandClock
) -> None:
    served.again = 10.0
    served.open.clear()
    timetable.put("a", clock.now())
    await until(lambda: served.begun == 1, "it is served")
    dropping = asyncio.create_task(timetable.drop("a", 20))
    await asyncio.sleep(0)
    served.open.set()
    await dropping
    assert served.keys == ["a"]
    assert len(timetable) == 0
    timetable.put("a", clock.now())  # it may come again
    await settled(timetable, clock)
    assert served.keys == ["a", "a"]
    assert len(timetable) == 1


async def test_a_cancelled_lane_leaves_its_work_to_another(
    timetable: Timetable, served: Served, clock: HandClock
) -> None:
    served.open.clear()
    for number in range(LANES + 1):
        timetable.put(f"{number:03d}", clock.now())
    await until(lambda: served.begun == LANES, "all lanes are busy")
    await timetable.drop("000", 0)
    await until(lambda: served.begun == LANES + 1, "the last one has a lane")
    served.open.set()
    await settled(timetable, clock)
    assert sorted(served.keys) == [f"{number:03d}" for number in range(1, LANES + 1)]


async def test_serving_that_breaks_is_tried_again(
    timetable: Timetable, served: Served, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    served.error = RuntimeError("a defect")
    timetable.put("a", clock.now())
    await settled(timetable, clock)
    assert "a defect" in caplog.text
    assert served.keys == []
    clock.advance(module._RETRY_SECONDS)
    await settled(timetable, clock)
    assert served.keys == ["a"]


async def test_a_trigger_may_unregister_itself(clock: HandClock) -> None:
    recorder = Recorder()
    scheduler = Scheduler(recorder, clock=clock)

    async def once() -> EventBase:
        await scheduler.unregister_trigger("once")
        return EventBase(topic="made")

    await scheduler.register_trigger("once", create_cron_trigger("* * * * *", once), "made")
    await scheduler.start()
    await quiet(scheduler, clock)
    for _ in range(3):
        clock.advance(60)
        await quiet(scheduler, clock)
    await scheduler.stop()
    assert scheduler.get_registered_triggers() == {}
    assert len(recorder.published) == 1
