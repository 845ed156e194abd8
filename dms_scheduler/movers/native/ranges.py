"""Reads two open files side by side and compares them, at a bounded speed."""

from __future__ import annotations

import os
from collections.abc import Callable

from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.native.sparse import next_data
from dms_scheduler.movers.native.throttle import TokenBucket, chunk_size


class ReadLimit:
    """The bandwidth limit of a call that only reads; shared by its threads."""

    def __init__(self, guard: Guard, bucket: TokenBucket) -> None:
        """The guard is asked before each read."""
        self._guard = guard
        self._bucket = bucket

    def wait(self, size: int) -> int:
        """Wait until something may be read, and return how many bytes: at most `size`."""
        rate = self._bucket.rate
        amount = min(size, chunk_size(rate))
        if rate:
            self._guard.pause(self._bucket.reserve(amount))
        else:
            self._guard.check()
        return amount


def fingerprint(fd: int) -> tuple[int, ...]:
    """Return what changes when an open file is written to."""
    status = os.fstat(fd)
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def same_range(
    ends: tuple[int, int],
    start: int,
    size: int,
    wait: Callable[[int], int],
    moved: Callable[[int], None],
) -> tuple[bool, int]:
    """Compare `size` bytes from `start` of both files; return whether they are the same, and how
    many bytes were read of both together, without what is hole in both. `wait` says how many may
    be read at once.

    Raises:
        OSError: one of them cannot be read.

    """
    done = read = 0
    while (done := next_data(ends, start + done, start + size) - start) < size:
        wanted = wait(2 * (size - done))
        wanted = max(1, wanted // 2)
        first, second = (os.pread(end, wanted, start + done) for end in ends)
        read += len(first) + len(second)
        moved(len(first) + len(second))
        if first != second:
            return False, read
        if not first:
            break  # both are shorter than they were: whoever asked sees that they changed
        done += len(first)
    return True, read
