"""Answers as bytes, written without a second validation of what was validated already."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse
from pydantic import TypeAdapter
from starlette.types import Receive, Scope, Send

from task_state import StoreUnavailableError, TaskCounts, TaskPage, TaskRecord, TaskStatus

log = logging.getLogger(__name__)

JSON_MEDIA_TYPE: Final = "application/json"
_RECORDS: Final = TypeAdapter(list[TaskRecord])
# A reader that takes nothing for so long is gone, or might as well be.
_SEND_SECONDS: Final = 30.0


def json_response(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer from plain values."""
    return Response(orjson.dumps(body), status, headers, JSON_MEDIA_TYPE)


def task_response(task: TaskRecord, queue_position: int | None) -> Response:
    """One task. The record writes itself: integers of any size in its parameters survive."""
    place = b"" if queue_position is None else b',"queue_position":%d' % queue_position
    record = task.model_dump_json().encode()
    return Response(b'{"task":' + record[:-1] + place + b"}}", media_type=JSON_MEDIA_TYPE)


def page_response(request: Request, page: TaskPage) -> Response:
    """A page of tasks; the header `Link` names the next one, with the same options."""
    rest = orjson.dumps({"next_cursor": page.next_cursor, "total": page.total})
    tasks = _RECORDS.dump_json(list(page.tasks))
    headers = {"Link": _next_page(request, page.next_cursor)} if page.next_cursor else None
    body = b'{"tasks":' + tasks + b"," + rest[1:]
    return Response(body, headers=headers, media_type=JSON_MEDIA_TYPE)


def counts_response(counts: TaskCounts) -> Response:
    """How many tasks there are; a status that no task has is a zero."""
    by_user = None if counts.by_user is None else dict(counts.by_user)
    return json_response(
        {
            "total": counts.total,
            "by_status": {status.value: counts.by_status[status] for status in TaskStatus},
            "by_service": dict(counts.by_service),
            "by_user": by_user,
        }
    )


def _next_page(request: Request, cursor: str) -> str:
    """RFC 8288, relative to this request's place: a proxy may know that by another name."""
    options = parse_qsl(request.scope["query_string"].decode(), keep_blank_values=True)
    kept = [(name, value) for name, value in options if name not in {"cursor", "offset"}]
    query = urlencode([*kept, ("cursor", cursor)])
    return f'<{quote(request.url.path)}?{query}>; rel="next"'


class LiveResponse(EventSourceResponse):
    """Server-sent events, each sent within a limit. What they come from (`source`) is closed
    whatever happens."""

    def __init__(self, source: AsyncExitStack, events: AsyncGenerator[bytes]) -> None:
        # A proxy must pass each event on at once (nginx's word for it), and nobody may keep them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, headers=headers)
        self._source = source
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve until the events end, or the client goes."""
        async with self._source:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send the head, then event by event, then the end."""
        await _stream(self, self._events, send)


class LinesResponse(StreamingResponse):
    """Lines of JSON (application/x-ndjson) as they are made. Whoever gets the end of the answer has
    got all of it: a fault on the way breaks the connection."""

    def __init__(self, lines: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        kept = {"Cache-Control": "no-store", **headers}
        super().__init__(lines, headers=kept, media_type="application/x-ndjson")
        self._lines = lines

    async def stream_response(self, send: Send) -> None:
        """Send the head, then piece by piece, then the end."""
        try:
            await _stream(self, self._lines, send)
        except (StoreUnavailableError, OSError) as error:  # OSError: no room for temporary files
            # The server closes a connection whose answer is not whole.
            log.warning(
                "An answer was broken off", extra={"action": "http.lines", "reason": str(error)}
            )


async def _stream(response: Response, pieces: AsyncGenerator[bytes], send: Send) -> None:
    async with aclosing(pieces):
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": response.raw_headers,
            }
        )
        async for piece in pieces:
            try:
                async with asyncio.timeout(_SEND_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                return  # the server closes a connection whose answer is not whole
        await send({"type": "http.response.body", "body": b"", "more_body": False})
