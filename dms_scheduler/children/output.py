"""What a child process prints: one pipe for stdout and stderr, read by the worker's event loop."""

import asyncio
import os
from collections.abc import Callable

_CHUNK = 65_536
_TAIL = 4096


class OutputPipe:
    """A child's stdout and stderr: read as they come, handed to `sink`, or dropped without one."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tail = b""
        self.sink: Callable[[bytes], None] | None = None

    def start(self) -> None:
        """Begin to read; the write end now belongs to the child alone."""
        self._close_write_end()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_end, self._read)

    def drain(self) -> None:
        """Hand over what was written before now: at most what a pipe can hold, or little more."""
        for _ in range(32):
            if not self._read():
                return

    def tail(self) -> str:
        """The end of what came while there was no sink."""
        self.drain()
        return self._tail.decode("utf-8", "backslashreplace").strip() or "nothing"

    def close(self) -> None:
        """Stop reading and give both ends back."""
        self._stop()
        self._close_write_end()
        if self._read_end >= 0:
            os.close(self._read_end)
            self._read_end = -1

    def _read(self) -> bool:
        if self._read_end < 0:
            return False
        try:
            data = os.read(self._read_end, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._stop()
            return False
        if self.sink is not None:
            self.sink(data)
        else:
            self._tail = (self._tail + data)[-_TAIL:]
        return True

    def _stop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._read_end)
        self._loop = None

    def _close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1
