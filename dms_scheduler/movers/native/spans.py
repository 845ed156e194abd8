"""Copies, hashes and writes out a stretch of a file, at the same place of another."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

import xxhash

from dms_scheduler.movers.native.content import Copied, Pace

_BUFFER_BYTES = 256 << 10
_WRITE_OUT_BYTES = 8 << 20
_MOST_STEPS = 4096
_NOT_IN_KERNEL = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.EPERM,
    errno.ETXTBSY,
}
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def copy_range(
    source: int, target: int, start: int, end: int, pace: Pace, *, hashed: bool
) -> Copied:
    """Copy bytes `start` up to `end` of `source`, fewer only if it ends before.

    With `hashed` the hash is of the very bytes that were read; raises OSError.
    """
    if hashed:
        digest = xxhash.xxh3_128()
        done = _by_buffer(source, target, start, end, pace, digest.update)
        return Copied(done, digest.digest())
    done = _in_kernel(source, target, start, end, pace)
    if start + done < end:
        done += _by_buffer(source, target, start + done, end, pace, None)
    return Copied(done, None)


def _in_kernel(source: int, target: int, start: int, end: int, pace: Pace) -> int:
    place = start
    while place < end:
        wanted = min(pace.chunk, end - place)
        pace.before(wanted)
        try:
            moved = os.copy_file_range(source, target, wanted, place, place)
        except OSError as error:
            if error.errno in _NOT_IN_KERNEL:
                break
            raise
        if moved == 0:
            break
        pace.after(moved)
        place += moved
    return place - start


def _by_buffer(
    source: int,
    target: int,
    start: int,
    end: int,
    pace: Pace,
    seen: Callable[[memoryview], object] | None,
) -> int:
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, end - start)))
    place = start
    while place < end:
        wanted = min(pace.chunk, len(buffer), end - place)
        pace.before(wanted)
        size = os.preadv(source, [buffer[:wanted]], place)
        if size == 0:
            break
        if seen is not None:
            seen(buffer[:size])
        write_at(target, buffer[:size], place)
        pace.after(size)
        place += size
    return place - start


def write_at(target: int, data: memoryview, place: int) -> None:
    """Write all of `data` at `place`."""
    while data:
        written = os.pwrite(target, data, place)
        place += written
        data = data[written:]


def write_back(fd: int, start: int, end: int, pace: Pace, *, drop: bool) -> None:
    """Wait until bytes `start` up to `end` are on storage, step by step, so that a stop is seen.

    With `drop` the next reader gets them from there, and not from the page cache; raises OSError.
    """
    step = max(_WRITE_OUT_BYTES, (end - start) // _MOST_STEPS)  # what is that long is holes
    for place in range(start, end, step):
        pace.check()
        size = min(step, end - place)
        # Where it is not known (an error) the next call does all of it at once.
        _libc.sync_file_range(fd, place, size, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
    os.fdatasync(fd)
    if drop:
        os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)
