"""What tests of triggers share: a clock and a publisher that do what they are told."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime

from app.event_system import EventBase, PublisherPort
from app.scheduler import Scheduler


def epoch(text: str) -> float:
    """Seconds since 1970 of an ISO time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class HandClock:
    """Time passes by `advance`; `step` sets the wall clock, of which nobody who sleeps knows."""

    def __init__(self, start: str = "2026-01-05T08:59:30") -> None:
        self.wall = epoch(start)
        self.passed = 0.0
        self.looks: list[float] = []
        self.longest = 0.0
        self._sleepers: dict[asyncio.Event, float] = {}

    def now(self) -> float:
        return self.wall

    @property
    def asleep(self) -> bool:
        """Whether somebody sleeps, and is not about to wake."""
        return any(not wake.is_set() for wake in self._sleepers)

    async def sleep(self, seconds: float, wake: asyncio.Event) -> None:
        self.looks.append(self.wall)
        self.longest = max(self.longest, seconds)
        own = asyncio.Event()
        self._sleepers[own] = self.passed + seconds
        waits = [asyncio.ensure_future(own.wait()), asyncio.ensure_future(wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sleepers.pop(own, None)
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def step(self, seconds: float) -> None:
        self.wall += seconds

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.passed += seconds
        for own, until in list(self._sleepers.items()):
            if until <= self.passed:
                del self._sleepers[own]
                own.set()


async def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait until it is so."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0)
    assert condition(), f"did not come to pass: {what}"


async def quiet(scheduler: Scheduler, clock: HandClock) -> None:
    """Wait until all that is due was served, and the sleeper sleeps."""
    timetable = scheduler._timetable

    def is_quiet() -> bool:
        return (
            clock.asleep
            and not timetable._lanes
            and not timetable._ready
            and not timetable._wake.is_set()
        )

    await until(is_quiet, "the scheduler is quiet")


class Recorder(PublisherPort):
    """Keeps what is published; raises the errors of a list first; lets nothing through while it is
    held."""

    def __init__(self, errors: Iterable[Exception] = ()) -> None:
        self.published: list[tuple[str, EventBase]] = []
        self.tries = 0
        self.open = asyncio.Event()
        self.open.set()
        self._errors = list(errors)

    async def publish(self, topic: str, event: EventBase) -> None:
        self.tries += 1
        await self.open.wait()
        if self._errors:
            raise self._errors.pop(0)
        self.published.append((topic, event))

    async def publish_many(self, events: Iterable[EventBase]) -> None:
        for event in events:
            await self.publish(event.topic, event)

    async def close(self) -> None:
        """It holds nothing."""

    @property
    def slots(self) -> list[str]:
        """The slots of the events: hour, minute and second."""
        return [event.headers["dms-slot"][11:19] for _, event in self.published]


def left_behind() -> list[str]:
    """The tasks of schedulers that there are."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("timetable", "trigger "))]
