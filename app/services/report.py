"""A task's report on its way to whoever asks: unpacked, chosen from and packed again, in pieces."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson

from task_state import StoreUnavailableError

_GZIP: Final = 31
_MOST_AT_ONCE: Final = 1024 * 1024
_QUICK_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which lines are wanted: those of these actions (none named: of any), of this attempt."""

    actions: Collection[str] = ()
    attempt: int | None = None

    @property
    def all(self) -> bool:
        """Whether no line is left out."""
        return not self.actions and self.attempt is None

    def wants(self, line: dict[str, Any]) -> bool:
        """Whether that line is wanted. What tells of lines left out is of no attempt."""
        action = line.get("action")
        if self.actions and action not in self.actions:
            return False
        return self.attempt is None or line.get("attempt", self.attempt) == self.attempt


async def chosen_lines(pieces: AsyncGenerator[bytes], chosen: Chosen) -> AsyncGenerator[bytes]:
    """The chosen lines of a stored report, in pieces of whole lines. Work that would keep others
    waiting is done in a thread. Raises StoreUnavailableError when the report is not whole."""
    unpacker = _Unpacker(chosen)
    async with aclosing(pieces):
        async for piece in pieces:
            parts = unpacker.parts(piece)
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                yield part
    unpacker.end()


async def packed(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Those pieces as one gzip member: of several, which are gzip too, most clients of HTTP read
    the first one alone."""
    packer = zlib.compressobj(_QUICK_LEVEL, wbits=_GZIP)
    async with aclosing(pieces):
        async for piece in pieces:
            if part := await asyncio.to_thread(packer.compress, piece):
                yield part
    yield packer.flush()


def omitted_line(count: int, chosen: Chosen) -> bytes:
    """The last line of a report that has lost some; nothing if it has not, or nobody asks."""
    line = {"action": "omitted", "lines": count}
    return orjson.dumps(line) + b"\n" if count and chosen.wants(line) else b""


class _Unpacker:
    """Unpacks gzip members as they come, at most a MiB at once, and chooses among their lines."""

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False
        self._rest = b""

    def parts(self, data: bytes) -> Iterator[bytes]:
        """The chosen ones among the lines that are whole by now."""
        for text in self._unpacked(data):
            whole, line_break, rest = (self._rest + text).rpartition(b"\n")
            self._rest = rest
            if part := self._choose(whole + line_break):
                yield part

    def end(self) -> None:
        """Raise unless the last member came to its end."""
        if self._begun or self._rest:
            raise _not_whole()

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        text = b""
        while data or len(text) == _MOST_AT_ONCE:
            self._begun = True
            try:
                text = self._member.decompress(data, _MOST_AT_ONCE)
            except zlib.error as error:
                raise _not_whole() from error
            data = self._member.unconsumed_tail
            if self._member.eof:
                data, self._begun = self._member.unused_data, False
                self._member = zlib.decompressobj(_GZIP)
            yield text

    def _choose(self, text: bytes) -> bytes:
        if self._chosen.all:
            return text
        wants = self._chosen.wants
        return b"".join(
            line for line in text.splitlines(keepends=True) if wants(orjson.loads(line))
        )


def _not_whole() -> StoreUnavailableError:
    return StoreUnavailableError(
        "the report is not whole: the task was deleted or run anew while its report was read; "
        "ask again"
    )
