"""API triggers: when a call returns, what it is told, and stopping."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.event_system import BrokerUnavailableError, EventBase, EventEncodeError
from app.scheduler import (
    EventFactoryError,
    Scheduler,
    TriggerNotRunningError,
    create_api_trigger,
)
from tests.support.triggers import Recorder, left_behind, until


class Made(EventBase):
    """An event of these tests."""

    number: int = 0


def made(**fields: Any) -> Made:
    return Made(topic="made", **fields)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def scheduler(recorder: Recorder) -> AsyncGenerator[Scheduler]:
    scheduler = Scheduler(recorder, drain_seconds=20)
    yield scheduler
    recorder.open.set()
    await scheduler.stop()
    assert left_behind() == []


async def test_an_api_trigger_publishes_before_it_returns(
    scheduler: Scheduler, recorder: Recorder
) -> None:
    api = create_api_trigger(lambda payload: made(number=payload["number"]))
    await scheduler.register_trigger("api", api, "made")
    with pytest.raises(TriggerNotRunningError, match="start that, and call again"):
        await api.trigger({"number": 1})
    await scheduler.start()
    event = await api.trigger({"number": 2})  # at once: its run has not begun
    assert recorder.published == [("made", event)]
    assert (await api.trigger({"number": 3})).number == 3
    assert api.get_trigger_count() == 2
    await scheduler.stop()
    with pytest.raises(TriggerNotRunningError):
        await api.trigger({"number": 4})
    assert api.get_error_count() == 0


async def test_an_api_trigger_tells_its_caller() -> None:
    recorder = Recorder([BrokerUnavailableError("away")])
    scheduler = Scheduler(recorder)
    api = create_api_trigger(lambda payload: made(number=payload["number"]))
    await scheduler.register_trigger("api", api, "made")
    await scheduler.start()
    await until(lambda: api._publish is not None, "it runs")
    with pytest.raises(BrokerUnavailableError):
        await api.trigger({"number": 1})
    with pytest.raises(EventFactoryError, match="KeyError: 'number'"):
        await api.trigger({})
    await api.trigger({"number": 2})
    assert (api.get_trigger_count(), api.get_error_count()) == (1, 2)
    assert recorder.tries == 2, "its caller repeats, not the scheduler"
    await scheduler.stop()


async def test_calls_that_come_before_the_run_are_told_too() -> None:
    recorder = Recorder([EventEncodeError("no JSON")])
    scheduler = Scheduler(recorder)
    api = create_api_trigger(lambda _: made())
    await scheduler.register_trigger("api", api, "made")
    await scheduler.start()
    results = await asyncio.gather(api.trigger(), api.trigger(), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["EventEncodeError", "Made"]
    await scheduler.stop()


async def test_stop_waits_for_calls_under_way(scheduler: Scheduler, recorder: Recorder) -> None:
    api = create_api_trigger(lambda _: made())
    await scheduler.register_trigger("api", api, "made")
    await scheduler.start()
    recorder.open.clear()
    calls = [asyncio.create_task(api.trigger()) for _ in range(3)]
    await until(lambda: recorder.tries >= 1, "publishing began")
    stopping = asyncio.create_task(scheduler.stop())
    await until(lambda: not api.is_running(), "it takes no more")
    assert not stopping.done()
    recorder.open.set()
    await stopping
    assert {event.event_id for _, event in recorder.published} == {
        (await call).event_id for call in calls
    }


async def test_an_api_trigger_alone() -> None:
    api = create_api_trigger(lambda payload: made(number=payload))
    await api.start()
    events = api.emit()
    call = asyncio.create_task(api.trigger(5))
    assert (await anext(events)).number == 5
    await asyncio.sleep(0)
    assert not call.done(), "its event is not done with"
    second = asyncio.create_task(api.trigger(6))
    assert (await anext(events)).number == 6
    assert (await call).number == 5
    with pytest.raises(RuntimeError):
        await events.athrow(RuntimeError("the taker broke"))
    with pytest.raises(TriggerNotRunningError):
        await second
    abandoned = asyncio.create_task(api.trigger(7))
    await until(lambda: api._calls, "the call waits")
    await api.stop()
    with pytest.raises(TriggerNotRunningError):
        await abandoned
    assert [event async for event in api.emit()] == []
    assert api.get_trigger_count() == 1
