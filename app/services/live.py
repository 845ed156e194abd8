"""Live views: one reader of the stream of changes a process, fanned out to its subscribers."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from dataclasses import dataclass
from typing import Final

from app.core.errors import TooManyStreamsError
from app.core.metrics import Metrics
from app.services.background import Background
from task_state import StoreUnavailableError
from task_state.changes import Change
from task_state.redis import RedisRepositoryProvider

MAX_SUBSCRIBERS: Final = 1000
QUEUE_SIZE: Final = 1000
PING_SECONDS: Final = 15.0
_BLOCK_MS: Final = 1000
_REPLAY_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Topic:
    """What a subscriber wants to hear of: a task, a user's tasks in a service, or (neither) all."""

    task_id: str | None = None
    service: str | None = None
    user_id: str | None = None

    def covers(self, change: Change) -> bool:
        """Whether the change belongs to the topic."""
        if self.task_id is not None:
            return change.task_id == self.task_id
        if self.service is None:
            return True
        return change.service == self.service and self.user_id in (None, change.user_id)


EVERYTHING: Final = Topic()


def _topics(change: Change) -> tuple[Topic, ...]:
    """All topics that cover a change, so that telling it costs nothing per idle subscriber."""
    return (
        EVERYTHING,
        Topic(task_id=change.task_id),
        Topic(service=change.service),
        Topic(service=change.service, user_id=change.user_id),
    )


class Subscription:
    """The changes that one subscriber has not taken yet; too many are dropped and marked."""

    def __init__(self, topic: Topic, position: str) -> None:
        self.topic = topic
        self.position = position
        self.lost = False
        self.closed = False
        self._waiting: deque[Change] = deque()
        self._wake = asyncio.Event()

    def push(self, change: Change) -> None:
        """Add a change; a subscriber who does not keep up loses all, and learns of it."""
        if len(self._waiting) >= QUEUE_SIZE:
            self._waiting.clear()
            self.lost = True
        self._waiting.append(change)
        self._wake.set()

    def close(self) -> None:
        """Let take() return at once, now and from now on."""
        self.closed = True
        self._wake.set()

    async def take(self, timeout: float) -> list[Change]:
        """The changes since the last call, waiting at most `timeout` seconds for the first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        if not self.closed:
            self._wake.clear()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class LiveHub:
    """Reads changes while anybody listens. Nothing that must not be lost may depend on it."""

    def __init__(
        self,
        provider: RedisRepositoryProvider,
        metrics: Metrics,
        *,
        timeout_seconds: float,
        max_subscribers: int = MAX_SUBSCRIBERS,
    ) -> None:
        self._provider = provider
        self._metrics = metrics
        self._timeout = timeout_seconds
        self._max = max_subscribers
        self._subscribers: dict[Topic, set[Subscription]] = {}
        self._count = 0
        self._wanted = asyncio.Event()
        self._position: str | None = None
        self._placed = asyncio.Event()
        self._background = Background()
        self._closed = False

    def start(self) -> None:
        """Begin to read as soon as somebody subscribes."""
        self._background.start("live.read", self._read)

    def close_streams(self) -> None:
        """End every stream: the process is about to stop, and would wait for them otherwise."""
        self._closed = True
        for subscription in [s for group in self._subscribers.values() for s in group]:
            subscription.close()

    async def stop(self) -> None:
        """End every stream and the reader."""
        self.close_streams()
        await self._background.stop()

    @contextlib.asynccontextmanager
    async def subscribe(self, topic: Topic) -> AsyncGenerator[Subscription]:
        """A subscription to what happens from its `position` on.

        Raises TooManyStreamsError, and StoreUnavailableError when the position cannot be found out.
        """
        if self._closed or self._count >= self._max:
            raise TooManyStreamsError(
                f"this process follows {self._count} live streams already and takes no more: close "
                "some, or come again later"
            )
        with self._counted():
            subscription = Subscription(topic, await self._where())
            group = self._subscribers.setdefault(topic, set())
            group.add(subscription)
            try:
                yield subscription
            finally:
                group.discard(subscription)
                if not group and self._subscribers.get(topic) is group:
                    del self._subscribers[topic]

    async def replay(self, topic: Topic, after: str, until: str) -> AsyncIterator[Change]:
        """The topic's changes after one id up to another, as far as the stream still has them."""
        changes = await self._provider.get_changes()
        while _order(after) < _order(until):
            page = await changes.read(after, block_ms=1, count=_REPLAY_PAGE)
            if not page:
                return
            for change in page:
                if _order(change.change_id) > _order(until):
                    return
                if topic.covers(change):
                    yield change
            after = page[-1].change_id

    @contextlib.contextmanager
    def _counted(self) -> Generator[None]:
        self._count += 1
        self._wanted.set()
        self._metrics.live_streams.set(self._count)
        try:
            yield
        finally:
            self._count -= 1
            self._metrics.live_streams.set(self._count)
            if not self._count:
                self._wanted.clear()

    async def _where(self) -> str:
        """The id that the reader has come to: what follows it will be pushed."""
        try:
            async with asyncio.timeout(self._timeout):
                while self._position is None:
                    await self._placed.wait()
        except TimeoutError as error:
            raise StoreUnavailableError(
                "live changes cannot be read: is Redis up and reachable?"
            ) from error
        return self._position

    async def _read(self) -> None:
        """One turn: wait for a first subscriber, then read until there is none."""
        await self._wanted.wait()
        changes = await self._provider.get_changes()
        if self._position is None:
            self._position = await changes.last_id()
            self._placed.set()
        while self._count:
            for change in await changes.read(self._position, block_ms=_BLOCK_MS):
                self._position = change.change_id
                self._tell(change)
        # Nobody listens: the next one starts from what is newest then.
        self._position = None
        self._placed.clear()

    def _tell(self, change: Change) -> None:
        for topic in _topics(change):
            for subscription in self._subscribers.get(topic, ()):
                subscription.push(change)


def _order(change_id: str) -> tuple[int, int]:
    time_ms, _, sequence = change_id.partition("-")
    return int(time_ms), int(sequence or 0)
