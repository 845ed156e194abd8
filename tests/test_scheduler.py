"""The scheduler of triggers: registration, cron by an injected clock, other people's triggers.

Its neighbours: tests/unit/app/scheduler (time maths, misfires, API and event triggers, HTTP) and
tests/acceptance (the document).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.event_system import (
    BrokerUnavailableError,
    EventBase,
    EventEncodeError,
    EventSystemError,
    TopicError,
)
from app.event_system.infrastructure import InMemoryBroker, InMemoryConsumer, InMemoryPublisher
from app.scheduler import (
    CronTrigger,
    DuplicateTriggerError,
    Scheduler,
    TriggerPort,
    UnknownTriggerError,
    create_cron_trigger,
    create_event_trigger,
)
from tests.support.triggers import HandClock, Recorder, left_behind, quiet, until


class Made(EventBase):
    """An event of these tests."""

    number: int = 0


def made(**fields: Any) -> Made:
    return Made(topic="made", **fields)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def scheduler(clock: HandClock, recorder: Recorder) -> AsyncGenerator[Scheduler]:
    scheduler = Scheduler(recorder, clock=clock, drain_seconds=20, repeat_seconds=20)
    yield scheduler
    recorder.open.set()
    await scheduler.stop()
    assert left_behind() == []


def every_minute(**options: Any) -> CronTrigger[Made]:
    return create_cron_trigger("* * * * *", made, "UTC", **options)


# ---------------------------------------------------------------------------------- registration


async def test_triggers_are_listed_as_a_copy(scheduler: Scheduler) -> None:
    trigger = every_minute()
    await scheduler.register_trigger("one", trigger, "made")
    listed = scheduler.get_registered_triggers()
    assert listed == {"one": (trigger, "made")}
    listed.clear()
    assert list(scheduler.get_registered_triggers()) == ["one"]


async def test_an_id_and_a_trigger_are_registered_once(scheduler: Scheduler) -> None:
    trigger = every_minute()
    await scheduler.register_trigger("one", trigger, "made")
    with pytest.raises(DuplicateTriggerError, match="'one' already"):
        await scheduler.register_trigger("one", every_minute(), "made")
    with pytest.raises(DuplicateTriggerError, match="for 'two' is registered already"):
        await scheduler.register_trigger("two", trigger, "made")
    await scheduler.unregister_trigger("one")
    await scheduler.register_trigger("two", trigger, "made")
    assert list(scheduler.get_registered_triggers()) == ["two"]


async def test_what_cannot_be_registered(scheduler: Scheduler) -> None:
    with pytest.raises(TopicError):
        await scheduler.register_trigger("one", every_minute(), "made.*")
    with pytest.raises(UnknownTriggerError, match="no trigger is registered as 'none'") as error:
        await scheduler.unregister_trigger("none")
    assert not str(error.value).startswith('"')
    assert scheduler.get_registered_triggers() == {}


async def test_starting_and_stopping_twice_and_again(
    scheduler: Scheduler, clock: HandClock, recorder: Recorder
) -> None:
    trigger = every_minute()
    await scheduler.register_trigger("one", trigger, "made")
    assert not trigger.is_running()
    for _ in range(2):
        await scheduler.start()
        await scheduler.start()
        assert trigger.is_running()
        assert scheduler.is_running()
        await quiet(scheduler, clock)
        clock.advance(30)
        await quiet(scheduler, clock)
        await scheduler.stop()
        await scheduler.stop()
        assert not trigger.is_running()
        clock.advance(150)  # nobody looks: what passes while it is stopped is not made up
    assert recorder.slots == ["09:00:00", "09:03:00"]


async def test_register_and_unregister_while_running(
    scheduler: Scheduler, clock: HandClock, recorder: Recorder
) -> None:
    await scheduler.start()
    first, second = every_minute(), every_minute()
    await scheduler.register_trigger("first", first, "a")
    await scheduler.register_trigger("second", second, "b")
    assert first.is_running()
    await quiet(scheduler, clock)
    clock.advance(30)
    await quiet(scheduler, clock)
    await scheduler.unregister_trigger("first")
    assert not first.is_running()
    clock.advance(60)
    await quiet(scheduler, clock)
    assert sorted(topic for topic, _ in recorder.published) == ["a", "b", "b"]


async def test_unregister_waits_for_what_is_being_published(
    scheduler: Scheduler, clock: HandClock, recorder: Recorder
) -> None:
    await scheduler.register_trigger("one", every_minute(), "made")
    await scheduler.start()
    await quiet(scheduler, clock)
    recorder.open.clear()
    clock.advance(30)
    await until(lambda: recorder.tries == 1, "publishing began")
    leaving = asyncio.create_task(scheduler.unregister_trigger("one"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not leaving.done()
    recorder.open.set()
    await leaving
    assert recorder.slots == ["09:00:00"]
    assert scheduler.get_registered_triggers() == {}
    await scheduler.register_trigger("one", every_minute(), "made")
    await quiet(scheduler, clock)
    clock.advance(60)
    await quiet(scheduler, clock)
    assert recorder.slots == ["09:00:00", "09:01:00"]


@pytest.mark.parametrize("leave", ["unregister", "stop"])
async def test_leaving_does_not_wait_for_ever(
    clock: HandClock, recorder: Recorder, leave: str
) -> None:
    scheduler = Scheduler(recorder, clock=clock, drain_seconds=0.05)
    await scheduler.register_trigger("one", every_minute(), "made")
    await scheduler.start()
    await quiet(scheduler, clock)
    recorder.open.clear()
    clock.advance(30)
    await until(lambda: recorder.tries == 1, "publishing began")
    if leave == "unregister":
        await scheduler.unregister_trigger("one")
    await scheduler.stop()
    assert recorder.published == []
    assert left_behind() == []


async def test_a_trigger_that_does_not_start(scheduler: Scheduler, clock: HandClock) -> None:
    async with InMemoryBroker() as broker:
        consumer = broker.consumer()
        await consumer.close()
        broken = create_event_trigger(consumer, "source", lambda _: made())
        good = every_minute()
        await scheduler.register_trigger("good", good, "made")
        await scheduler.register_trigger("broken", broken, "made")
        with pytest.raises(EventSystemError):
            await scheduler.start()
        assert not good.is_running()
        assert not scheduler.is_running()
        await scheduler.unregister_trigger("broken")
        await scheduler.start()
        with pytest.raises(EventSystemError):
            await scheduler.register_trigger("broken", broken, "made")
        assert list(scheduler.get_registered_triggers()) == ["good"]


# ------------------------------------------------------------------------------------------ cron


async def test_slot_and_hops_are_headers(
    scheduler: Scheduler, clock: HandClock, recorder: Recorder
) -> None:
    trigger = create_cron_trigger(
        "0 9 * * MON-FRI",
        lambda: Made(topic="reports", headers={"이름": "값"}, number=7),
        timezone="UTC",
    )
    await scheduler.register_trigger("report", trigger, "reports")
    await scheduler.start()
    await quiet(scheduler, clock)
    clock.advance(30.5)
    await quiet(scheduler, clock)
    ((topic, event),) = recorder.published
    assert topic == "reports"
    assert isinstance(event, Made)
    assert event.number == 7
    assert event.headers == {
        "이름": "값",
        "dms-slot": "2026-01-05T09:00:00+00:00",
        "dms-hops": "0",
    }
    assert trigger.get_trigger_count() == 1


async def test_the_zone_is_seoul_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, clock: HandClock
) -> None:
    monkeypatch.delenv("DMS_TIMEZONE", raising=False)
    trigger = create_cron_trigger("0 18 * * *", made)
    trigger.use("x", clock)
    await trigger.start()
    due = trigger.due_at()
    assert due is not None
    assert due - clock.now() == 30, "09:00 in UTC is 18:00 in Seoul"


async def test_a_clock_that_is_set(
    scheduler: Scheduler, clock: HandClock, recorder: Recorder
) -> None:
    await scheduler.register_trigger("one", every_minute(), "made")
    await scheduler.start()
    await quiet(scheduler, clock)
    clock.advance(30)
    await quiet(scheduler, clock)
    clock.step(-3600)  # what fired does not fire again
    for _ in range(59):
        clock.advance(60)
        await quiet(scheduler, clock)
    assert recorder.slots == ["09:00:00"]
    clock.advance(60)
    clock.advance(60)
    await quiet(scheduler, clock)
    clock.step(7200)
    clock.advance(60)  # it looks again after 60 seconds at most
    await quiet(scheduler, clock)
    assert recorder.slots[-1] == "11:02:00", "of those that were missed, the latest"
    assert clock.longest <= 60


async def test_a_factory_that_fails_does_not_end_its_trigger(
    scheduler: Scheduler,
    clock: HandClock,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    results: list[Any] = [ValueError("no data"), "not an event", made(number=3)]

    def factory() -> Made:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    trigger = create_cron_trigger("* * * * *", factory, "UTC")
    await scheduler.register_trigger("one", trigger, "made")
    await scheduler.start()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await quiet(scheduler, clock)
            clock.advance(60)
        await quiet(scheduler, clock)
    assert recorder.slots == ["09:02:00"]
    assert (trigger.get_trigger_count(), trigger.get_error_count()) == (1, 2)
    first, second = (each for each in caplog.records if each.__dict__["action"] == "trigger.failed")
    assert "ValueError: no data" in first.__dict__["reason"]
    assert first.__dict__["slot"] == "2026-01-05T09:00:00+00:00"
    assert "must return an EventBase" in second.__dict__["reason"]


async def test_async_factories(scheduler: Scheduler, clock: HandClock, recorder: Recorder) -> None:
    async def factory() -> Made:
        await asyncio.sleep(0)
        return made(number=1)

    trigger = create_cron_trigger("* * * * *", factory, "UTC")
    await scheduler.register_trigger("one", trigger, "made")
    await scheduler.start()
    await quiet(scheduler, clock)
    clock.advance(30)
    await quiet(scheduler, clock)
    assert [event.topic for _, event in recorder.published] == ["made"]


async def test_a_slow_trigger_holds_up_no_other(
    scheduler: Scheduler, clock: HandClock, recorder: Recorder
) -> None:
    gate = asyncio.Event()

    async def slow() -> Made:
        await gate.wait()
        return made()

    stuck = create_cron_trigger("* * * * *", slow, "UTC")
    await scheduler.register_trigger("slow", stuck, "slow")
    await scheduler.register_trigger("quick", every_minute(), "quick")
    await scheduler.start()
    for number in range(1, 4):
        await until(lambda: clock.asleep, "the sleeper sleeps")
        clock.advance(60)
        await until(lambda n=number: len(recorder.published) == n, "the quick one fired")
    gate.set()
    await quiet(scheduler, clock)
    topics = [topic for topic, _ in recorder.published]
    assert topics == ["quick"] * 3 + ["slow"] * 2, "its first, and the latest of those it missed"


async def test_the_topic_of_the_registration_counts(
    scheduler: Scheduler,
    clock: HandClock,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await scheduler.register_trigger("one", every_minute(), "other")
    await scheduler.start()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await quiet(scheduler, clock)
            clock.advance(60)
        await quiet(scheduler, clock)
    assert [topic for topic, _ in recorder.published] == ["other"] * 3
    told = [each for each in caplog.records if each.__dict__["action"] == "trigger.topic"]
    assert len(told) == 1
    assert told[0].__dict__["named"] == "made"
    assert told[0].__dict__["topic"] == "other"


async def test_the_event_is_published_again_while_the_broker_is_away(clock: HandClock) -> None:
    recorder = Recorder([BrokerUnavailableError("away")] * 2)
    scheduler = Scheduler(recorder, clock=clock)
    trigger = every_minute()
    await scheduler.register_trigger("one", trigger, "made")
    await scheduler.start()
    await quiet(scheduler, clock)
    clock.advance(30)
    await quiet(scheduler, clock)
    await scheduler.stop()
    assert recorder.slots == ["09:00:00"]
    assert recorder.tries == 3
    assert trigger.get_error_count() == 0


@pytest.mark.parametrize("error", [BrokerUnavailableError("away"), EventEncodeError("no JSON")])
async def test_an_event_that_nobody_can_publish(
    clock: HandClock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder([error, error])
    scheduler = Scheduler(recorder, clock=clock, repeat_seconds=0)
    trigger = every_minute()
    await scheduler.register_trigger("one", trigger, "made")
    await scheduler.start()
    for _ in range(3):
        await quiet(scheduler, clock)
        clock.advance(60)
    await quiet(scheduler, clock)
    await scheduler.stop()
    assert recorder.slots[-1] == "09:02:00"
    failed = trigger.get_error_count()
    assert failed == (1 if isinstance(error, BrokerUnavailableError) else 2)
    assert trigger.get_trigger_count() == 3 - failed
    told = [each for each in caplog.records if each.__dict__["action"] == "trigger.unpublished"]
    assert len(told) == failed
    assert told[0].__dict__["event_id"]


async def test_a_cron_trigger_alone() -> None:
    clock = HandClock()
    trigger = every_minute()
    trigger.use("alone", clock)
    assert [event async for event in trigger.emit()] == [], "it was not started"
    await trigger.start()
    events = trigger.emit()
    for slot in ("09:00", "09:01"):
        following = asyncio.ensure_future(anext(events))
        await until(lambda: clock.asleep, "it sleeps")
        assert not following.done()
        clock.advance(60)
        event = await following
        assert event.headers["dms-slot"][11:16] == slot
    ending = asyncio.ensure_future(anext(events, None))
    await until(lambda: clock.asleep, "it sleeps")
    await trigger.stop()
    assert await ending is None
    assert not trigger.is_running()
    assert trigger.get_trigger_count() == 2


async def test_a_cron_trigger_alone_looks_at_the_clock_each_minute() -> None:
    clock = HandClock()
    trigger = create_cron_trigger("0 12 * * *", made, "UTC")
    trigger.use("alone", clock)
    await trigger.start()
    following = asyncio.ensure_future(anext(trigger.emit()))
    await until(lambda: clock.asleep, "it sleeps")
    clock.step(3 * 3600)
    clock.advance(60)
    assert (await following).headers["dms-slot"] == "2026-01-05T12:00:00+00:00"
    await trigger.stop()


# ------------------------------------------------------------------------------------ other people


class Broken(TriggerPort[Made]):
    """A trigger of somebody else's, with the four methods alone, whose first run breaks."""

    def __init__(self) -> None:
        self.runs = 0
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    def is_running(self) -> bool:
        return self.running

    async def emit(self) -> AsyncGenerator[Made, None]:
        self.runs += 1
        yield made(number=self.runs)
        if self.runs == 1:
            raise RuntimeError("a defect")


async def test_a_trigger_that_breaks_runs_again(
    monkeypatch: pytest.MonkeyPatch, scheduler: Scheduler, recorder: Recorder
) -> None:
    monkeypatch.setattr("app.scheduler.infrastructure.scheduler._RESTART_PAUSE", 0.01)
    await scheduler.register_trigger("broken", Broken(), "made")
    await scheduler.start()
    await until(lambda: len(recorder.published) == 2, "it ran twice")


async def test_a_publisher_that_fails_ends_no_simple_trigger(clock: HandClock) -> None:
    class Twice(Broken):
        async def emit(self) -> AsyncGenerator[Made, None]:
            yield made(number=1)
            yield made(number=2)

    recorder = Recorder([EventEncodeError("no JSON")])
    scheduler = Scheduler(recorder, clock=clock)
    await scheduler.register_trigger("twice", Twice(), "made")
    await scheduler.start()
    await until(lambda: recorder.published, "the second event")
    await scheduler.stop()
    assert [event.number for _, event in recorder.published if isinstance(event, Made)] == [2]


async def test_on_a_real_broker() -> None:
    async with InMemoryBroker() as broker:
        arrived = await InMemoryConsumer(broker).subscribe("clock.**")
        scheduler = Scheduler(InMemoryPublisher(broker))
        trigger = create_cron_trigger("* * * * * *", made)
        await scheduler.register_trigger("tick", trigger, "clock.second")
        await scheduler.start()
        deliveries = [await anext(arrived) for _ in range(2)]
        await scheduler.stop()
        slots = [delivery.event.headers["dms-slot"] for delivery in deliveries]
        assert slots == sorted(set(slots))
        assert {delivery.event.topic for delivery in deliveries} == {"clock.second"}
