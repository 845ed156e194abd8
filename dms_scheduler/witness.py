"""The witness: a file that remembers, outside the store, how new the store once was."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

logger = logging.getLogger(__name__)

_PERIOD_SECONDS: Final = 5.0
_DAY_US: Final = 86_400_000_000


class Witness:
    """One number in a file: the time in µs of the latest change that was seen of the store.

    Any number of processes share the file; each writes only what is later than what it finds. It
    may be some seconds behind. What cannot be read or written is logged, once, and done without:
    the processes' own memory is left.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._due = clock()
        self._written = 0
        self._well = True

    def read(self) -> int:
        """The latest change that was noted; 0 where none was, or what stands there means none."""
        try:
            text = self._path.read_text("ascii").strip()
            seen = int(text) if text.isdecimal() else -1
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            self._warn(str(error))
            return 0
        if not 0 <= seen < time.time_ns() // 1000 + _DAY_US:
            self._warn("it holds no time that has been: remove it, and it is made anew")
            return 0
        return seen

    def keep(self, seen: int, *, now: bool = False) -> None:
        """Note a later change: at most every 5 s, or `now`."""
        if seen <= self._written or (not now and self._clock() < self._due):
            return
        self._due = self._clock() + _PERIOD_SECONDS
        if seen > self.read():
            try:
                self._write(seen)
            except OSError as error:
                self._warn(str(error))
                return
        self._written = seen
        self._well = True

    def _write(self, seen: int) -> None:
        # Not named by the process: containers that share the file may all be process 1.
        draft = self._path.with_name(f"{self._path.name}.{uuid4().hex}")
        try:
            with draft.open("x", encoding="ascii") as file:
                file.write(f"{seen}\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _warn(self, error: str) -> None:
        if self._well:
            logger.warning(
                "The witness file cannot be used: a restored store may go unnoticed",
                extra={"action": "witness", "path": str(self._path), "error": error},
            )
        self._well = False
