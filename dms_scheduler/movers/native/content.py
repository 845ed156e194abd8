"""Copies the content of one open file into another by the quickest way both file systems allow."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import xxhash

_FICLONE = 0x40049409
_FLUSH_BYTES = 64 << 20
_REREAD_BYTES = 16 << 20
_SMALL_BYTES = 64 << 10
_BUFFER_BYTES = 256 << 10
_UNSUPPORTED = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EBADF,
    errno.EPERM,
    errno.ETXTBSY,
}
Step = Callable[[int, int, int], int]


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


@dataclass(frozen=True, slots=True)
class Copied:
    """How many bytes the source gave, and their hash if one was asked for."""

    size: int
    digest: bytes | None


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
        return Copied(size, digest_of(source, size, pace) if hashed else None)
    if hashed:
        return _copy_hashed(source, target, size, pace)
    done = 0
    for step in (_in_kernel, _by_sendfile, _by_buffer):
        if done < size:
            done += _pump(step, source, target, size - done, pace)
    return Copied(done, None)


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
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _pump(step: Step, source: int, target: int, size: int, pace: Pace) -> int:
    """Repeat `step` until `size` bytes are copied, the source ends, or the step cannot be used."""
    done = 0
    while done < size:
        wanted = min(pace.chunk, size - done)
        pace.before(wanted)
        try:
            moved = step(source, target, wanted)
        except OSError as error:
            if error.errno in _UNSUPPORTED and step is not _by_buffer:
                break
            raise
        if moved == 0:
            break
        pace.after(moved)
        done += moved
    return done


def _in_kernel(source: int, target: int, size: int) -> int:
    return os.copy_file_range(source, target, size)


def _by_sendfile(source: int, target: int, size: int) -> int:
    return os.sendfile(target, source, None, size)


def _by_buffer(source: int, target: int, size: int) -> int:
    data = os.read(source, size)
    write_all(target, data)
    return len(data)


def _copy_hashed(source: int, target: int, size: int, pace: Pace) -> Copied:
    digest = xxhash.xxh3_128()
    done = flushed = 0
    while done < size:
        wanted = min(pace.chunk, size - done)
        pace.before(wanted)
        data = os.read(source, wanted)
        if not data:
            break
        digest.update(data)
        write_all(target, data)
        pace.after(len(data))
        done += len(data)
        if done - flushed >= _FLUSH_BYTES:
            # Bit by bit: one flush of a huge file at its end would keep a cancel waiting.
            os.fdatasync(target)
            flushed = done
    return Copied(done, digest.digest())


def write_all(target: int, data: bytes) -> None:
    """Write all of `data` at the current position."""
    written = os.write(target, data)
    rest = memoryview(data)[written:]
    while rest:
        rest = rest[os.write(target, rest) :]


def digest_of(fd: int, size: int, pace: Pace) -> bytes:
    """Return the hash of the first `size` bytes of `fd`, fewer if it ends before."""
    return digest_range(fd, 0, size, pace)


def digest_range(fd: int, start: int, end: int, pace: Pace) -> bytes:
    """Return the hash of bytes `start` up to `end`, fewer if the file ends before."""
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, max(1, end - start))))
    place = start
    while place < end:
        pace.check()
        size = os.preadv(fd, [buffer[: end - place]], place)
        if size == 0:
            break
        digest.update(buffer[:size])
        place += size
    return digest.digest()


def digest_from_storage(fd: int, size: int, pace: Pace) -> bytes:
    """Return the hash of a file just written, past the page cache where that is affordable.

    Files of 16 MiB or more are written out and dropped from the cache first, so what is read is
    what the storage holds; for small ones that would cost a disk flush each.
    """
    if size >= _REREAD_BYTES:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return digest_of(fd, size, pace)
