"""The words between a worker and its child process: length-prefixed JSON on a socket pair.

To the child:   {"kind": "setup", "modules", "entry_points", "sys_path", "memory_bytes"}
                {"kind": "run", "task": <TaskView>, "deadline": <monotonic seconds>}
                {"kind": "deadline", "at"}   {"kind": "cancel", "reason"}
From the child: {"kind": "ready"}   {"kind": "broken", "error"}
                {"kind": "log", "message"}   {"kind": "progress", "values", "advanced"}
                {"kind": "checkpoint", "value"}   {"kind": "end", "outcome": <Outcome>}
"""

import asyncio
import json
import socket
import struct
from typing import Any, cast

MAX_FRAME = 32 * 1024 * 1024
_HEADER = struct.Struct(">I")


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Lone surrogates (file names that are not UTF-8) are escaped by JSON itself."""
    body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME:
        raise ValueError(f"a message of {len(body)} bytes is more than {MAX_FRAME}")
    return _HEADER.pack(len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """A frame's body; raises ValueError for anything but a JSON object."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("a message between worker and child must be a JSON object")
    return cast("dict[str, Any]", message)


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """The next message, blocking; None when the other side is gone."""
    header = _exactly(channel, _HEADER.size)
    if header is None:
        return None
    body = _exactly(channel, _length(header))
    return None if body is None else decode(body)


async def read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message, for the worker's loop; None when the child is gone."""
    try:
        header = await reader.readexactly(_HEADER.size)
        return decode(await reader.readexactly(_length(header)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _length(header: bytes) -> int:
    (length,) = cast("tuple[int]", _HEADER.unpack(header))
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
