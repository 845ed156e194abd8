"""What a follower of a task's log, or of changes, is told, one thing after another."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from app.services.live import PING_SECONDS, LiveHub, Subscription, Topic
from app.services.tasks import Scope, TaskService
from task_state import TaskNotFoundError, TaskStatus
from task_state.changes import Change

LOG_PAGE: Final = 500
# Changes are a hint and may be lost; the log is looked at this often without one.
_LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class LogLine:
    """Line `number` of a task's log; the first is 1."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class LogEnd:
    """No line will follow: the task ended so, or (None) was deleted."""

    status: TaskStatus | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Changes were dropped: what is shown has to be loaded again."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing happened for a while; the connection is to be kept open."""


async def follow_log(
    tasks: TaskService, subscription: Subscription, task_id: str, scope: Scope, after: int
) -> AsyncGenerator[LogLine | LogEnd | Quiet]:
    """The log's lines after line `after`, then new ones as they come, until the task has ended."""
    quiet = 0.0
    while not subscription.closed:
        try:
            view = await tasks.logs(task_id, scope, offset=after, limit=LOG_PAGE)
        except TaskNotFoundError:
            yield LogEnd(None)
            return
        for text in view.page.lines:
            after += 1
            quiet = 0.0
            yield LogLine(after, text)
        if len(view.page.lines) == LOG_PAGE:
            continue
        if view.status.is_terminal:
            yield LogEnd(view.status)
            return
        if not await subscription.take(_LOOK_SECONDS):
            quiet += _LOOK_SECONDS
        if quiet >= PING_SECONDS:
            quiet = 0.0
            yield Quiet()


async def follow_changes(
    hub: LiveHub, subscription: Subscription, topic: Topic, after: str | None
) -> AsyncGenerator[Change | Lost | Quiet]:
    """The topic's changes after that id (None: from now on), as they come, until the hub closes."""
    if after is not None:
        async for change in hub.replay(topic, after, subscription.position):
            yield change
    while not subscription.closed:
        taken = await subscription.take(PING_SECONDS)
        if subscription.lost:
            subscription.lost = False
            yield Lost()
        for change in taken:
            yield change
        if not taken:
            yield Quiet()
