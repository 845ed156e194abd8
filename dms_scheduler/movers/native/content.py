"""Copies the content of one open file into another by the quickest way both file systems allow."""

from __future__ import annotations

import fcntl
import os

import xxhash

from dms_scheduler.movers.native.spans import (
    UNSUPPORTED,
    Copied,
    Pace,
    copy_range,
    digest_range,
    write_back,
)

_FICLONE = 0x40049409
_REREAD_BYTES = 16 << 20
_SMALL_BYTES = 64 << 10


def copy_content(source: int, target: int, size: int, pace: Pace, *, hashed: bool) -> Copied:
    """Copy at most `size` bytes from the start of `source` into the empty file `target`.

    Fewer are copied only if the source has shrunk. With `hashed` the hash is of the very bytes
    that were read from the source; raises OSError.
    """
    if size <= min(_SMALL_BYTES, pace.chunk):
        return _copy_small(source, target, size, pace, hashed=hashed)
    if clone(source, target):
        pace.after(size)
        # A clone shares the source's blocks, so it is the source that has to be read.
        return Copied(size, digest_range(source, 0, size, pace) if hashed else None)
    return copy_range(source, target, 0, size, pace, hashed=hashed)


def _copy_small(source: int, target: int, size: int, pace: Pace, *, hashed: bool) -> Copied:
    """Copy a file that fits into one read: quicker than to ask the kernel for anything better."""
    pace.before(size)
    data = read_all(source, size)
    write_all(target, data)
    pace.after(len(data))
    return Copied(len(data), xxhash.xxh3_128_digest(data) if hashed else None)


def read_all(source: int, size: int) -> bytes:
    """Read `size` bytes from the current position, fewer if the file ends before."""
    data = os.read(source, size)
    while data and len(data) < size:
        more = os.read(source, size - len(data))
        if not more:
            break
        data += more
    return data


def clone(source: int, target: int) -> bool:
    """Let `target` share the blocks of `source`; return False where that is not possible."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True


def write_all(target: int, data: bytes) -> None:
    """Write all of `data` at the current position."""
    written = os.write(target, data)
    if written == len(data):
        return
    rest = memoryview(data)[written:]
    while rest:
        rest = rest[os.write(target, rest) :]


def digest_from_storage(fd: int, size: int, pace: Pace) -> bytes:
    """Return the hash of a file just written, as the storage holds it if that is affordable."""
    past_the_cache(fd, size, size, pace)
    return digest_range(fd, 0, size, pace)


def past_the_cache(fd: int, size: int, stored: int, pace: Pace) -> None:
    """Have the next reader of a file just written get what the storage holds.

    Only with 16 MiB `stored` or more: for small files that would cost a disk flush each.
    """
    if stored >= _REREAD_BYTES:
        write_back(fd, 0, size, pace, drop=True)
