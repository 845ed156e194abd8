"""Answers as bytes, written without a second validation of what was validated already."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

import orjson
from fastapi import Response
from fastapi.sse import EventSourceResponse
from pydantic import TypeAdapter
from starlette.types import Receive, Scope, Send

from task_state import TaskPage, TaskRecord

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


def page_response(page: TaskPage) -> Response:
    """A page of tasks."""
    rest = orjson.dumps({"next_cursor": page.next_cursor, "total": page.total})
    tasks = _RECORDS.dump_json(list(page.tasks))
    return Response(b'{"tasks":' + tasks + b"," + rest[1:], media_type=JSON_MEDIA_TYPE)


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
        async with aclosing(self._events):
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async for event in self._events:
                try:
                    async with asyncio.timeout(_SEND_SECONDS):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                except TimeoutError:
                    return  # the server closes a connection whose answer is not whole
            await send({"type": "http.response.body", "body": b"", "more_body": False})
