"""Copies, hashes and writes out a stretch of a file, at the same place of another."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import xxhash

_BUFFER_BYTES = 512 << 10
_HUGE_PAGE_BYTES = 2 << 20
_MANY_BYTES = 16 << 20
_WRITE_OUT_BYTES = 8 << 20
_MOST_STEPS = 4096
UNSUPPORTED = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EBADF,
    errno.EPERM,
    errno.ETXTBSY,
}
"""What the kernel answers when two files allow no shortcut: then bytes are read and written."""

_STATFS_BYTES = 1024  # more than any system's `struct statfs`, which begins with the magic number
_TMPFS_MAGIC = 0x01021994
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
Step = Callable[[int, int, int, int], int]


class Pace(Protocol):
    """Told around each chunk, so that limits, counts and cancels see it."""

    @property
    def chunk(self) -> int:
        """How many bytes to move at once."""
        ...

    def before(self, size: int) -> None:
        """Wait until `size` bytes may be moved; raise to stop."""
        ...

    def after(self, size: int) -> None:
        """Count `size` bytes that were moved."""
        ...

    def check(self) -> None:
        """Raise to stop."""
        ...


class EarlyPace:
    """Another pace, and what was moved is written out bit by bit meanwhile, without a wait."""

    def __init__(self, pace: Pace, target: int, start: int) -> None:
        """What is moved goes to `target`, from `start` on."""
        self._pace = pace
        self._target = target
        self._begun = self._place = start

    @property
    def chunk(self) -> int:
        """How many bytes to move at once."""
        return self._pace.chunk

    def before(self, size: int) -> None:
        """Wait until `size` bytes may be moved; raise to stop."""
        self._pace.before(size)

    def after(self, size: int) -> None:
        """Count `size` bytes that were moved."""
        self._pace.after(size)
        self._place += size
        waiting = self._place - self._begun
        if waiting >= _WRITE_OUT_BYTES:
            # Only a beginning, which takes no error from the descriptor: `write_back` tells it.
            _libc.sync_file_range(self._target, self._begun, waiting, _WRITE)
            self._begun = self._place

    def check(self) -> None:
        """Raise to stop."""
        self._pace.check()


@dataclass(frozen=True, slots=True)
class Copied:
    """How many bytes the source gave, their hash and the copy's, if they were asked for."""

    size: int
    digest: bytes | None
    reread: bytes | None = None


def copy_and_reread(source: int, target: int, start: int, end: int, pace: Pace) -> Copied:
    """Copy as `copy_range` does, and read the copy back step by step, while caches hold it.

    Only of use where what is read back is the storage itself: see `is_memory`.
    """
    digest, reread = xxhash.xxh3_128(), xxhash.xxh3_128()

    def read_back(data: memoryview, place: int) -> None:
        reread.update(data[: os.preadv(target, [data], place)])

    done = _by_buffer(source, target, start, end, pace, digest.update, read_back)
    return Copied(done, digest.digest(), reread.digest())


def copy_range(
    source: int, target: int, start: int, end: int, pace: Pace, *, hashed: bool
) -> Copied:
    """Copy bytes `start` up to `end` of `source`, fewer only if it ends before.

    With `hashed` the hash is of the very bytes that were read. May move the descriptors'
    positions; raises OSError.
    """
    if hashed:
        digest = xxhash.xxh3_128()
        done = _by_buffer(source, target, start, end, pace, digest.update)
        return Copied(done, digest.digest())
    done = 0
    for step in (_in_kernel, _by_sendfile):
        done += _pump(step, source, target, start + done, end, pace)
    if start + done < end:
        done += _by_buffer(source, target, start + done, end, pace, None)
    return Copied(done, None)


def _pump(step: Step, source: int, target: int, start: int, end: int, pace: Pace) -> int:
    """Repeat `step` until all is copied, the source ends, or the step cannot be used."""
    place = start
    while place < end:
        wanted = min(pace.chunk, end - place)
        pace.before(wanted)
        try:
            moved = step(source, target, place, wanted)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                break
            raise
        if moved == 0:
            break
        pace.after(moved)
        place += moved
    return place - start


def _in_kernel(source: int, target: int, place: int, size: int) -> int:
    return os.copy_file_range(source, target, size, place, place)


def _by_sendfile(source: int, target: int, place: int, size: int) -> int:
    os.lseek(target, place, os.SEEK_SET)
    return os.sendfile(target, source, place, size)


def _by_buffer(
    source: int,
    target: int,
    start: int,
    end: int,
    pace: Pace,
    seen: Callable[[memoryview], object] | None,
    written: Callable[[memoryview, int], object] | None = None,
) -> int:
    buffer = _buffer(end - start)
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
        if written is not None:
            written(buffer[:size], place)
        pace.after(size)
        place += size
    return place - start


def _buffer(size: int) -> memoryview:
    """Return a buffer for that many bytes, which pass through it bit by bit."""
    if size < _MANY_BYTES:
        return memoryview(bytearray(max(1, min(_BUFFER_BYTES, size))))
    # In one huge page: a fifth less time than with many small ones. It is zeroed first.
    page = mmap.mmap(-1, _HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        page.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(page)[:_BUFFER_BYTES]


def write_at(target: int, data: memoryview, place: int) -> None:
    """Write all of `data` at `place`."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(target, rest, place)
        place += written
        rest = rest[written:]


def digest_range(fd: int, start: int, end: int, pace: Pace) -> bytes:
    """Return the hash of bytes `start` up to `end`, fewer if the file ends before."""
    digest = xxhash.xxh3_128()
    buffer = _buffer(end - start)
    place = start
    while place < end:
        pace.check()
        size = os.preadv(fd, [buffer[: end - place]], place)
        if size == 0:
            break
        digest.update(buffer[:size])
        place += size
    return digest.digest()


def is_memory(fd: int) -> bool:
    """Say whether a file is on a tmpfs: the page cache is its storage."""
    status = (ctypes.c_long * (_STATFS_BYTES // ctypes.sizeof(ctypes.c_long)))()
    return _libc.fstatfs(fd, status) == 0 and status[0] == _TMPFS_MAGIC


def write_back(fd: int, start: int, end: int, pace: Pace, *, drop: bool) -> None:
    """Wait until bytes `start` up to `end` are on storage, step by step, so that a stop is seen.

    With `drop` the next reader gets them from there, and not from the page cache; raises OSError.
    """
    step = max(_WRITE_OUT_BYTES, (end - start) // _MOST_STEPS)  # what is that long is holes
    for place in range(start, end, step):
        pace.check()
        size = min(step, end - place)
        if _libc.sync_file_range(fd, place, size, _WAIT_BEFORE | _WRITE | _WAIT_AFTER) != 0:
            # The kernel tells a descriptor of a failed write-out only once: not by fdatasync again.
            code = ctypes.get_errno()
            if code not in UNSUPPORTED:
                raise OSError(code, os.strerror(code))
    os.fdatasync(fd)
    if drop:
        os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)
