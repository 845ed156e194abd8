"""The API trigger: an event for each call, by HTTP or from code."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, Generic

from app.event_system import EventSystemError
from app.event_system.domain.events import E
from app.scheduler.domain.errors import EventFactoryError, TriggerNotRunningError
from app.scheduler.domain.trigger_port import Publish, TriggerPort
from app.scheduler.infrastructure._making import check_callable, make_event

DRAIN_SECONDS: Final = 5.0


class APITrigger(TriggerPort[E], Generic[E]):
    """Makes an event of each payload that `trigger()` is called with: made by
    `create_api_trigger`."""

    repeats: ClassVar[bool] = False

    def __init__(self, event_factory: Callable[[Any], E | Awaitable[E]]) -> None:
        check_callable("event_factory", event_factory)
        self._factory = event_factory
        self._publish: Publish | None = None
        self._calls: deque[tuple[E, asyncio.Future[None]]] = deque()  # nobody publishes them yet
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._under_way = 0
        self._takers = 0
        self._running = False
        self._count = 0
        self._errors = 0

    async def start(self) -> None:
        self._running = True

    async def stop(self) -> None:
        """No further call is taken; those under way have DRAIN_SECONDS to end."""
        if not self._running:
            return
        self._running = False
        self._news.set()
        if self._takers:
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._all_ended()
        while self._calls:
            _settle(self._calls.popleft()[1], _not_running())

    def is_running(self) -> bool:
        return self._running

    def get_trigger_count(self) -> int:
        """How many events were published."""
        return self._count

    def get_error_count(self) -> int:
        """How many calls ended without an event."""
        return self._errors

    async def trigger(self, payload: Any = None) -> E:
        """Make the event of the payload, and return it once it is published.

        Raises TriggerNotRunningError (nothing happened), EventFactoryError, or EventSystemError
        when it was not published.
        """
        if not self._running:
            raise _not_running()
        self._under_way += 1
        self._idle.clear()
        try:
            event = await make_event(self._factory, payload)
            await self._hand_over(event)
        except (EventFactoryError, EventSystemError):
            self._errors += 1
            raise
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
                self._news.set()
        self._count += 1
        return event

    async def emit(self) -> AsyncGenerator[E, None]:
        """Each call of `trigger()` returns when the event after its own is asked for."""
        self._takers += 1
        try:
            while (call := await self._next_call()) is not None:
                event, taken = call
                try:
                    yield event
                except BaseException:
                    _settle(taken, _not_running())
                    raise
                _settle(taken, None)
        finally:
            self._takers -= 1

    async def run(self, publish: Publish) -> None:
        """Calls publish by themselves, beside each other; here those that came before it ran."""
        self._takers += 1
        self._publish = publish
        try:
            while (call := await self._next_call()) is not None:
                await self._publish_for(call[1], call[0], publish)
        finally:
            self._publish = None
            self._takers -= 1

    async def _hand_over(self, event: E) -> None:
        if self._publish is not None:
            await self._publish(event)
        elif not self._running:
            raise _not_running()
        else:
            taken = asyncio.get_running_loop().create_future()
            self._calls.append((event, taken))
            self._news.set()
            await taken

    async def _next_call(self) -> tuple[E, asyncio.Future[None]] | None:
        """None once it is stopped and no call is under way."""
        while True:
            while self._calls:
                call = self._calls.popleft()
                if not call[1].done():  # else its caller was cancelled
                    return call
            if not self._running and not self._under_way:
                return None
            self._news.clear()
            await self._news.wait()

    async def _all_ended(self) -> None:
        while self._under_way:
            await self._idle.wait()

    async def _publish_for(self, taken: asyncio.Future[None], event: E, publish: Publish) -> None:
        try:
            await publish(event)
        except EventSystemError as error:
            _settle(taken, error)
        except BaseException:
            _settle(taken, _not_running())
            raise
        else:
            _settle(taken, None)


def _settle(taken: asyncio.Future[None], error: Exception | None) -> None:
    if taken.done():
        return
    if error is None:
        taken.set_result(None)
    else:
        taken.set_exception(error)


def _not_running() -> TriggerNotRunningError:
    return TriggerNotRunningError(
        "the API trigger is not running, so nothing was published: register it with a scheduler, "
        "start that, and call again"
    )
