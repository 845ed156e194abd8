"""Server-sent events: what followers are told, as bytes."""

import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from app.api.dependencies import Api
from app.api.responses import LiveResponse
from app.core.errors import BadInputError
from app.core.events import LIVE_END, LIVE_LOG, LIVE_LOST, live_event
from app.services.follow import LogEnd, LogLine, Lost, Quiet, follow_changes, follow_log
from app.services.live import Topic
from app.services.tasks import Scope
from task_state import StoreUnavailableError
from task_state.changes import Change

_LINE_NUMBER = re.compile(r"\d{1,10}")
_CHANGE_ID = re.compile(r"\d{1,19}-\d{1,19}")
# How long a browser waits before it connects again, in milliseconds.
_RECONNECT_MS = 2000


def last_line(last_event_id: str | None, offset: int) -> int:
    """The line that a follower has seen already: what it says, else what its offset leaves out."""
    if last_event_id is None:
        return offset
    if not _LINE_NUMBER.fullmatch(last_event_id):
        raise BadInputError("Last-Event-ID is not a line number: send the id of the last event")
    return int(last_event_id)


def last_change(last_event_id: str | None) -> str | None:
    """The change that a follower has seen already."""
    if last_event_id is not None and not _CHANGE_ID.fullmatch(last_event_id):
        raise BadInputError("Last-Event-ID is not a change's id: send the id of the last event")
    return last_event_id


async def log_response(api: Api, task_id: str, scope: Scope, after: int) -> LiveResponse:
    """A task's log lines after line `after`. The subscription is made before the answer begins, so
    that a refusal has its proper status."""
    stack = AsyncExitStack()
    subscription = await stack.enter_async_context(api.live.subscribe(Topic(task_id=task_id)))
    lines = follow_log(api.tasks, subscription, task_id, scope, after)
    return LiveResponse(stack, _stream(lines))


async def change_response(api: Api, topic: Topic, after: str | None) -> LiveResponse:
    """The topic's changes after that id, or from now on."""
    stack = AsyncExitStack()
    subscription = await stack.enter_async_context(api.live.subscribe(topic))
    changes = follow_changes(api.live, subscription, topic, after)
    start_id = None if after else subscription.position
    return LiveResponse(stack, _stream(changes, start_id))


_Item = LogLine | LogEnd | Change | Lost | Quiet


async def _stream(
    items: AsyncGenerator[_Item], start_id: str | None = None
) -> AsyncGenerator[bytes]:
    """The items as events; ends quietly when the store goes away: followers connect again."""
    async with aclosing(items):
        # Sent at once, so that the head of the answer is; an id lets a reconnect miss nothing.
        yield format_sse_event(comment="following", id=start_id, retry=_RECONNECT_MS)
        try:
            async for item in items:
                yield _encode(item)
        except StoreUnavailableError:
            return


def _encode(item: _Item) -> bytes:
    match item:
        case LogLine(number, text):
            return _event(LIVE_LOG, {"n": number, "line": text}, str(number))
        case LogEnd(status):
            return _event(LIVE_END, {"status": status})
        case Change(change_id):
            return _event(*live_event(item), change_id)
        case Lost():
            return _event(LIVE_LOST, {})
        case Quiet():
            return KEEPALIVE_COMMENT


def _event(name: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    return format_sse_event(event=name, data_str=orjson.dumps(data).decode(), id=event_id)
