"""A small HTTP server on loopback: answers as a test wrote down, remembers what was asked."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Reply:
    """One answer; `drop` closes the connection instead, after the request has been read, `cut` does
    so after that many bytes of the body. It is given when `after` is set."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    drop: bool = False
    cut: int | None = None
    after: threading.Event | None = None


def problem(status: int, detail: str, *, kind: str = "of-a-test", **headers: str) -> Reply:
    """A problem document, as DMS answers."""
    kind = f"urn:dms:problem:{kind}"
    body = json.dumps({"type": kind, "title": "t", "status": status, "detail": detail}).encode()
    return Reply(status, body, {"Content-Type": "application/problem+json", **headers})


def answer(value: Any, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class ScriptedServer:
    """`with ScriptedServer([...]) as server:` the last reply is given for ever."""

    def __init__(self, replies: list[Reply]) -> None:
        self.asked: list[Asked] = []
        self._replies = replies
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def base(self) -> str:
        """The API base that it stands for."""
        return f"http://127.0.0.1:{self._server.server_port}/api/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next(self) -> Reply:
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                body = self.rfile.read(length)
                headers = {name.lower(): value for name, value in self.headers.items()}
                script.asked.append(Asked(self.command, self.path, headers, body))
                reply = script._next()
                self.close_connection = True
                if reply.after is not None:
                    reply.after.wait(60)
                if reply.drop:
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body[: reply.cut])

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815  (names of http.server)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing: a test reads `asked`."""

        return Handler
