"""The HTTP protocol of our servers: uvicorn's, with limits on the head of a request.

uvicorn waits for a head without end and keeps all that comes of it, and its parser joins a long
header piece by piece: one client that never finishes a header could stop the whole process.
"""

import asyncio
import json
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1.1 whose heads are at most 64 KiB long and arrive within 10 seconds."""

    max_head_bytes: ClassVar[int] = 64 * 1024
    head_seconds: ClassVar[float] = 10.0

    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data to the parser: of a head, never more than it may have."""
        room = self.max_head_bytes - self._head_bytes if self._in_head else len(data)
        piece, rest = data[:room], data[room:]
        if self._in_head:
            self._head_bytes += len(piece)
        super().data_received(piece)
        if self.transport.is_closing():
            return
        if not self._answering():
            self._expect_head()
        if not rest:
            return
        if self._in_head and self._head_bytes >= self.max_head_bytes:
            limit = f"more than {self.max_head_bytes} bytes: send less in the URL and the headers"
            self._refuse(431, "head-too-large", f"the request's head has {limit}")
        else:
            self.data_received(rest)

    def on_headers_complete(self) -> None:
        """A head is there: what follows is the application's to limit."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What follows is the next head."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed."""
        self._refuse(400, "malformed-request", "this is not HTTP/1.1 as RFC 9112 has it")

    def _answering(self) -> bool:
        """Whether a request's answer is still under way (there may have been no request yet)."""
        return not getattr(self.cycle, "response_complete", True)

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes:
            limit = f"within {self.head_seconds:g} s: send it without pauses"
            self._refuse(408, "head-too-slow", f"the request's head did not arrive {limit}")
        else:  # a client that connected ahead of need, or one that still sends a body nobody reads
            self.transport.close()

    def _refuse(self, status: int, slug: str, detail: str) -> None:
        """Answer, unless an earlier request's answer is still under way, and close."""
        self._stop_waiting()
        if not self._answering():
            body = _problem(status, slug, detail)
            head = (
                b"content-type: application/problem+json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n" % len(body)
            )
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def _problem(status: int, slug: str, detail: str) -> bytes:
    title = HTTPStatus(status).phrase
    kind = f"urn:dms:problem:{slug}"
    return json.dumps({"type": kind, "title": title, "status": status, "detail": detail}).encode()
