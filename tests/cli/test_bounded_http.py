"""The servers' HTTP protocol over sockets: heads too large, too slow, or no HTTP at all."""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from cli.bounded_http import BoundedHttp
from tests.support.cli import clean_environment
from tests.support.frontend import NOWHERE, REDIS_NOWHERE, eventually
from tests.support.servers import quiet_port

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
_TWO_LENGTHS = HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Hurried(BoundedHttp):
    head_seconds = 0.2


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body; `/early` answers before it reads one."""
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


@asynccontextmanager
async def _served(protocol: type[BoundedHttp] = BoundedHttp) -> AsyncGenerator[int]:
    config = uvicorn.Config(
        _echo, http=protocol, log_config=None, lifespan="off", timeout_keep_alive=60
    )
    server = _Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await eventually(lambda: server.started)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            await serving


async def _talk(port: int, *pieces: bytes) -> bytes:
    """Send the pieces, and read until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


def _is_problem(answer: bytes, status: int, slug: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"content-type: application/problem+json" in head
    problem = json.loads(body)
    assert (problem["type"], problem["status"]) == (f"urn:dms:problem:{slug}", status)


@pytest.mark.parametrize(
    "endless",
    [
        b"X: " + b"a" * BoundedHttp.max_head_bytes,
        b"X: a\r\n" * (BoundedHttp.max_head_bytes // 6),
        b"X: " + b"a" * BoundedHttp.max_head_bytes + b"\r\n\r\n",
    ],
    ids=["one header", "many headers", "a whole head"],
)
async def test_a_head_may_not_be_endless(endless: bytes) -> None:
    async with _served() as port:
        _is_problem(await _talk(port, HEAD + endless), 431, "head-too-large")


async def test_a_large_head_and_a_larger_body_pass() -> None:
    size = 3 * BoundedHttp.max_head_bytes
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n" % size
    long = b"X: " + b"a" * (BoundedHttp.max_head_bytes - 500) + b"\r\n\r\n"
    async with _served() as port:
        answer = await _talk(port, head + long + b"b" * size)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b"\r\n%d\r\n" % size in answer


async def test_each_head_of_a_connection_has_the_whole_limit() -> None:
    large = HEAD + b"X: " + b"a" * (BoundedHttp.max_head_bytes // 2) + b"\r\n"
    last = large + b"Connection: close\r\n\r\n"
    async with _served() as port:
        answer = await _talk(port, large + b"\r\n", large + b"\r\n", large + b"\r\n", last)
    assert answer.count(b"HTTP/1.1 200") == 4


@pytest.mark.parametrize("begun", [b"G", HEAD, HEAD + b"X: a"])
async def test_a_head_that_stops_coming_is_given_up(begun: bytes) -> None:
    async with _served(_Hurried) as port:
        _is_problem(await _talk(port, begun), 408, "head-too-slow")


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with _served(_Hurried) as port:
        assert await _talk(port) == b""


async def test_a_body_that_nobody_reads_does_not_keep_the_connection() -> None:
    head = b"POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    async with _served(_Hurried) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            writer.write(head)
            assert await reader.readuntil(b"0\r\n\r\n")
            writer.write(b"a")
            assert await reader.read() == b""
        writer.close()


async def test_a_slow_body_is_left_to_the_application() -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    async with _served(_Hurried) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            writer.write(head + b"a")
            # Another connection, opened later, is given up before: this one's head was in time.
            assert await _talk(port) == b""
            writer.write(b"b")
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01",
        _TWO_LENGTHS,
    ],
    ids=["TLS", "two lengths"],
)
async def test_what_is_no_request_is_refused(garbage: bytes) -> None:
    async with _served() as port:
        _is_problem(await _talk(port, garbage), 400, "malformed-request")


async def test_serve_uses_it() -> None:
    port = quiet_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.entry", "serve", "--host", "127.0.0.1", "--port", str(port),
        env=clean_environment(DMS_REDIS_WRITE_URL=REDIS_NOWHERE, DMS_SCHEDULER_BASE_URL=NOWHERE),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:

        async def refused() -> bytes:
            assert process.returncode is None, "the frontend ended"
            with contextlib.suppress(ConnectionRefusedError):
                return await _talk(port, HEAD + b"X: " + b"a" * BoundedHttp.max_head_bytes)
            return b""

        _is_problem(await eventually(refused), 431, "head-too-large")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
