"""Messages between a move and its executors: length and marshalled tuples, through pipes."""

from __future__ import annotations

# Both ends are this program, forked.
import marshal  # nosec B403
import os
import struct
from typing import Any

_LENGTH = struct.Struct("<I")
_READ_BYTES = 1 << 18

Message = tuple[Any, ...]


def packed(message: Message) -> bytes:
    """Return a message as bytes; it holds plain tuples, lists, text and numbers."""
    data = marshal.dumps(message)
    return _LENGTH.pack(len(data)) + data


class Unpacker:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take more of the stream; return the messages that are complete."""
        self._data += data
        messages: list[Message] = []
        while (end := self._end()) is not None:
            body = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            messages.append(marshal.loads(body))  # noqa: S302 # nosec B302
        return messages

    def _end(self) -> int | None:
        if len(self._data) < _LENGTH.size:
            return None
        end = _LENGTH.size + int(_LENGTH.unpack_from(self._data)[0])
        return end if len(self._data) >= end else None


def read_some(fd: int) -> bytes:
    """Read what is there, b"" at the end of the stream; waits unless `fd` does not block."""
    return os.read(fd, _READ_BYTES)


def write_whole(fd: int, data: bytes) -> None:
    """Write all of it, waiting."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
