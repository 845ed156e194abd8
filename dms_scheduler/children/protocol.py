"""The words between a worker and its child process: marked, length-prefixed JSON on a socket pair.

To the child:   {"kind": "setup", "modules", "entry_points", "sys_path", "memory_bytes"}
                {"kind": "run", "task": <TaskView>, "deadline": <monotonic seconds>}
                {"kind": "deadline", "at"}   {"kind": "cancel", "reason", "ends_task"}
                {"kind": "adjust", "values"}
From the child: {"kind": "ready", "pid"}   {"kind": "broken", "error"}
                {"kind": "log", "message"}   {"kind": "progress", "values", "advanced"}
                {"kind": "report", "data": <base64>, "lines", "failed"}
                {"kind": "checkpoint", "value"}   {"kind": "end", "outcome": <Outcome>}

What comes from the child is checked: a handler lives in the same process, and may write to the
channel's descriptor by mistake.
"""

import asyncio
import base64
import json
import socket
import struct
from dataclasses import dataclass
from typing import Any, cast

from dms_scheduler.handler import Outcome
from dms_scheduler.report import Block

MAX_FRAME = 32 * 1024 * 1024
CHANNEL_LOST = 71
"""Exit code of a child whose channel was closed by its handler, not by its worker."""

_MARK = b"dms\x01"
_HEADER = struct.Struct(">4sI")


@dataclass(frozen=True, slots=True)
class Ready:
    """The task modules are loaded, in the process of this id."""

    pid: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The task modules do not load."""

    error: str


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the task's log."""

    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """New progress; without values, only that work was done."""

    values: dict[str, Any] | None
    advanced: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint."""

    value: Any


@dataclass(frozen=True, slots=True)
class Reported:
    """Lines of the task's report."""

    block: Block


@dataclass(frozen=True, slots=True)
class End:
    """The handler has ended."""

    outcome: Outcome


Said = Ready | Broken | Log | Progress | Saved | Reported | End


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Lone surrogates (file names that are not UTF-8) are escaped by JSON itself."""
    body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME:
        raise ValueError(f"a message of {len(body)} bytes is more than {MAX_FRAME}")
    return _HEADER.pack(_MARK, len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """A frame's body; raises ValueError for anything but a JSON object."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("a message between worker and child must be a JSON object")
    return cast("dict[str, Any]", message)


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """The next message to the child, blocking; None when the worker is gone."""
    header = _exactly(channel, _HEADER.size)
    if header is None:
        return None
    body = _exactly(channel, _length(header))
    return None if body is None else decode(body)


async def read(reader: asyncio.StreamReader) -> Said | None:
    """The child's next message, for the worker's loop; None when the child is gone. Raises
    ValueError for what is none."""
    try:
        header = await reader.readexactly(_HEADER.size)
        body = await reader.readexactly(_length(header))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return _said(decode(body))


def _said(message: dict[str, Any]) -> Said:
    """By hand: pydantic refuses texts with lone surrogates, which log lines may have."""
    match message:
        case {"kind": "log", "message": str(text)}:
            return Log(text)
        case {"kind": "progress", "values": dict() | None, "advanced": bool(advanced)}:
            return Progress(cast("dict[str, Any] | None", message["values"]), advanced)
        case {"kind": "checkpoint", "value": value}:
            return Saved(value)
        case {"kind": "report", "data": str(data), "lines": int(lines), "failed": bool(failed)}:
            return _reported(data, lines, failed=failed)
        case {"kind": "end", "outcome": dict()}:
            return End(Outcome.of_json(message["outcome"]))
        case _:
            return _greeting(message)


def _reported(data: str, lines: int, *, failed: bool) -> Reported:
    if not 0 < lines < 2**32:
        raise ValueError(f"no message of a child: a report of {lines} lines")
    try:
        block = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise ValueError(f"no message of a child: a report that is no base64: {error}") from error
    return Reported(Block(block, lines, failed=failed))


def _greeting(message: dict[str, Any]) -> Ready | Broken:
    match message:
        case {"kind": "ready", "pid": int(pid)}:
            return Ready(pid)
        case {"kind": "broken", "error": str(text)}:
            return Broken(text)
        case _:
            raise ValueError(f"no message of a child: {message!r:.100}")


def _length(header: bytes) -> int:
    mark, length = cast("tuple[bytes, int]", _HEADER.unpack(header))
    if mark != _MARK:
        raise ValueError("the channel between worker and child was written to by somebody else")
    if length > MAX_FRAME:
        raise ValueError(f"a message of {length} bytes is more than {MAX_FRAME}")
    return length


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
