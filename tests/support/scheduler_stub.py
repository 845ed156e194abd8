"""A foreign scheduler on loopback that behaves, and misbehaves, as a test tells it to."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Call:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Behaviour:
    """What happens to one call: an answer, or an answer that never comes, or half of one."""

    status: int = 200
    body: bytes = b'{"status": "QUEUED"}'
    then: Literal["answer", "hang", "drop"] = "answer"
    location: str | None = None


OK = Behaviour()
HANG = Behaviour(then="hang")
DROP = Behaviour(then="drop")
GARBAGE = Behaviour(body=b"<html>it works!</html>")


def answer(value: Any, status: int = 200) -> Behaviour:
    """An answer in JSON."""
    return Behaviour(status, json.dumps(value).encode())


@dataclass
class SchedulerStub:
    """`script` gives the behaviour of the next calls, then `always` is what happens. Calls of
    `held_path` are answered once `release` is set."""

    always: Behaviour = OK
    script: list[Behaviour] = field(default_factory=list[Behaviour])
    calls: list[Call] = field(default_factory=list[Call])
    definitions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    url: str = ""
    held_path: str | None = None
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def to(self, path: str, task_id: str | None = None) -> list[Call]:
        """The calls of a path, for one task or for all."""
        return [
            call
            for call in self.calls
            if call.path == path and (task_id is None or call.body["task_id"] == task_id)
        ]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side has enough."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = first.split(" ")[1]
        if path == "/definitions":
            behaviour = answer({"definitions": self.definitions})
        else:
            behaviour = self.script.pop(0) if self.script else self.always
        self.calls.append(Call(path, headers, json.loads(body) if body else None))
        if path == self.held_path:
            await self.release.wait()
        if behaviour.then == "drop":
            return False
        if behaviour.then == "hang":
            await reader.read()  # until the client gives up
            return False
        place = f"Location: {behaviour.location}\r\n" if behaviour.location else ""
        writer.write(
            f"HTTP/1.1 {behaviour.status} X\r\nContent-Length: {len(behaviour.body)}\r\n"
            f"Content-Type: application/json\r\n{place}\r\n".encode()
            + behaviour.body
        )
        await writer.drain()
        return True


@asynccontextmanager
async def scheduler_stub(**options: Any) -> AsyncGenerator[SchedulerStub]:
    """A stub that listens, with its address in `url`."""
    stub = SchedulerStub(**options)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await stub.serve(reader, writer)
        finally:
            connections.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()
