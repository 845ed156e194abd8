"""The memory that a move shares with its executors: orders go down, counts come up.

Numbers are eight bytes at a multiple of eight, each written by one process alone, so a reader sees
the old one or the new one. The bandwidth limit is the exception: it has a lock.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import time
from collections.abc import Iterator
from types import TracebackType

from dms_scheduler.movers.guard import Stopped
from dms_scheduler.movers.native.meter import Meter, Tally
from dms_scheduler.movers.native.throttle import STATE_FIELDS, TokenBucket
from dms_scheduler.movers.results import ActiveFile

_HEAD = 16  # numbers: stop, deadline, and the limit's
_SLOT = 128  # numbers: the counts, then the path of the file that is worked on
_PATH_AT = 32
_PATH_BYTES = (_SLOT - _PATH_AT) * 8
_STOP, _DEADLINE, _LIMIT = 0, 1, 2
_TALLIES = {tally: place for place, tally in enumerate(Tally)}
_MOVED = len(_TALLIES)
_AGAIN, _AGAIN_FILES = _MOVED + 1, _MOVED + 2
_COUNTS = _AGAIN_FILES + 1
_VERSION, _DONE, _SIZE, _LENGTH, _TEMPORARY = range(_COUNTS, _COUNTS + 5)
_SLICE_SECONDS = 0.05


class RecordLock:
    """A lock between processes and the threads of one that the kernel lifts when its holder dies.

    It is the process's, so of threads only one may use it: executors have but one.
    """

    def __init__(self) -> None:
        self._fd = os.memfd_create("dms-limit")

    def __enter__(self) -> None:
        """Wait for it."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""
        fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class Board:
    """Made before the executors are forked; each of them has a slot of its own."""

    def __init__(self, slots: int) -> None:
        self._map = mmap.mmap(-1, (_HEAD + slots * _SLOT) * 8)
        self._view = memoryview(self._map)
        self._reals = self._view.cast("d")
        self._limit = self._reals[_LIMIT : _LIMIT + STATE_FIELDS]
        self._lock = RecordLock()
        self.bucket = TokenBucket(state=self._limit, lock=self._lock)
        self.slots = [Slot(self._map, number) for number in range(slots)]
        self._seen = [[0] * _COUNTS for _ in range(slots)]
        self._reals[_DEADLINE] = math.inf

    def stop(self) -> None:
        """Let every executor stop at its next check."""
        self._reals[_STOP] = 1.0

    def allow_until(self, deadline: float) -> None:
        """Set the monotonic time at which every executor stops."""
        self._reals[_DEADLINE] = deadline

    def check(self) -> None:
        """Raise Stopped if executors have to stop."""
        if self._reals[_STOP] or time.monotonic() >= self._reals[_DEADLINE]:
            raise Stopped

    def count_into(self, meter: Meter) -> None:
        """Add what the executors have counted since the last call."""
        for slot, seen in zip(self.slots, self._seen, strict=True):
            now = slot.counts()
            if now == seen:
                continue
            for tally, place in _TALLIES.items():
                if now[place] != seen[place]:
                    meter.add(tally, now[place] - seen[place])
            meter.moved(now[_MOVED] - seen[_MOVED])
            again = now[_AGAIN] - seen[_AGAIN], now[_AGAIN_FILES] - seen[_AGAIN_FILES]
            if any(again):
                meter.expect_more(*again)
            seen[:] = now

    def active(self) -> Iterator[ActiveFile]:
        """Yield the files that executors work on."""
        for slot in self.slots:
            file = slot.active()
            if file is not None:
                yield file

    def close(self) -> None:
        """Give the memory back; executors keep theirs until they end."""
        for slot in self.slots:
            slot.close()
        self._limit.release()
        self._reals.release()
        self._view.release()
        self._map.close()
        self._lock.close()


class Slot:
    """The counts of one executor, written by it and read by the process that started it."""

    def __init__(self, shared: mmap.mmap, number: int) -> None:
        at = (_HEAD + number * _SLOT) * 8
        self._view = memoryview(shared)[at : at + _SLOT * 8]
        self._numbers = self._view.cast("q")
        self._path_at = at + _PATH_AT * 8
        self._map = shared

    def add(self, tally: Tally, amount: int = 1) -> None:
        """Count something."""
        self._numbers[_TALLIES[tally]] += amount

    def moved(self, size: int) -> None:
        """Count bytes that were just written, of the file that was begun."""
        self._numbers[_MOVED] += size
        self._numbers[_DONE] += size

    def expect_more(self, size: int, files: int = 0) -> None:
        """Expect that much more than was planned."""
        self._numbers[_AGAIN] += size
        self._numbers[_AGAIN_FILES] += files

    def begin(self, path: str, size: int) -> None:
        """Name the file that is worked on from now on."""
        name = os.fsencode(path)[:_PATH_BYTES]
        numbers = self._numbers
        numbers[_VERSION] += 1  # odd: not to be read now
        self._map[self._path_at : self._path_at + len(name)] = name
        numbers[_LENGTH] = len(name)
        numbers[_DONE], numbers[_SIZE] = 0, size
        numbers[_VERSION] += 1

    def end(self) -> None:
        """Say that no file is worked on."""
        self._numbers[_LENGTH] = 0

    def hold(self, temporary: int) -> None:
        """Say which temporary file is there now, by its number; 0 for none."""
        self._numbers[_TEMPORARY] = temporary

    @property
    def held(self) -> int:
        """The number of the temporary file that is there, 0 for none."""
        return self._numbers[_TEMPORARY]

    def counts(self) -> list[int]:
        """Return all counts."""
        return self._numbers[:_COUNTS].tolist()

    def active(self) -> ActiveFile | None:
        """Return the file that is worked on; None if there is none, or another one by now."""
        numbers = self._numbers
        version, length = numbers[_VERSION], numbers[_LENGTH]
        if version % 2 or not length:
            return None
        path = self._map[self._path_at : self._path_at + length]
        done, size = numbers[_DONE], numbers[_SIZE]
        if numbers[_VERSION] != version:
            return None
        return ActiveFile(path=os.fsdecode(path), bytes=min(done, size), size=size)

    def close(self) -> None:
        """Let go of the shared memory."""
        self._numbers.release()
        self._view.release()


class SharedBrake:
    """Tells an executor when to stop, from the board."""

    def __init__(self, board: Board) -> None:
        self.check = board.check

    def pause(self, seconds: float) -> None:
        """Wait, checking twenty times a second; raises Stopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _SLICE_SECONDS))
        self.check()
