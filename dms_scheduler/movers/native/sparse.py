"""Copies and hashes files with holes: what is not stored is neither read nor written.

Holes are asked for by SEEK_DATA and SEEK_HOLE. A file system that knows no holes shows the file
as one piece of data, and it is copied as such. Zeros that are stored stay stored.

The hash is of the content alone, wherever its holes are: it runs over the grains (4 KiB, counted
from the start of the file) that are not all zeros, with the place of each run of them. So a
terabyte of hole costs nothing, and a file has the same hash on every file system.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import xxhash

from dms_scheduler.movers.native.content import clone, past_the_cache
from dms_scheduler.movers.native.spans import Copied, Pace, copy_range, write_at

GRAIN = 4096
_ZEROS = bytes(GRAIN)
_READ_BYTES = 1 << 20
_NO_HOLES = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_RUN = struct.Struct("<QQ")


class Piece(NamedTuple):
    """Bytes `start` up to `end` of a file."""

    start: int
    end: int


class Window(NamedTuple):
    """Whole grains that hold the pieces of data, to be read at once."""

    start: int
    end: int
    pieces: tuple[Piece, ...]


def has_holes(status: os.stat_result) -> bool:
    """Say whether fewer bytes are stored than the file has (or they are compressed)."""
    return status.st_blocks * 512 < status.st_size


def pieces_of(fd: int, start: int, end: int) -> Iterator[Piece]:
    """Yield what is data of bytes `start` up to `end`; moves the descriptor's position."""
    place = start
    while place < end:
        try:
            data = os.lseek(fd, place, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end, or the file ends here by now
                return
            if error.errno not in _NO_HOLES:
                raise
            data, hole = place, end
        if data >= end:
            return
        yield Piece(data, min(hole, end))
        place = hole


def next_data(fds: Iterable[int], start: int, end: int) -> int:
    """Return the first place of bytes `start` up to `end` that any of the files stores, or `end`.

    Moves the descriptors' positions; raises OSError.
    """
    return min(next((piece.start for piece in pieces_of(fd, start, end)), end) for fd in fds)


def copy_with_holes(source: int, target: int, size: int, pace: Pace, *, hashed: bool) -> Copied:
    """Copy `size` bytes of `source` into the empty file `target`, which gets the same holes.

    Blocks are shared where the file system can. Result and errors are `copy_sparse`'s.
    """
    if clone(source, target):
        pace.after(size)
        return Copied(size, sparse_digest(source, 0, size, pace) if hashed else None)
    os.ftruncate(target, size)
    return copy_sparse(source, target, 0, size, pace, hashed=hashed)


def copy_sparse(
    source: int, target: int, start: int, end: int, pace: Pace, *, hashed: bool
) -> Copied:
    """Copy bytes `start` up to `end` of `source` to the same place of `target`, leaving holes.

    The target has its final size already, and no data there. The `size` returned is `end - start`,
    less only if the source was seen to have shrunk. Holes count as moved, but no limit holds them
    back. With `hashed` the digest is `sparse_digest`'s, of the very bytes that were read;
    `start` must then be a multiple of GRAIN. Raises OSError.
    """
    if hashed:
        return _copy_hashed(source, target, start, end, pace)
    place = start
    for piece in pieces_of(source, start, end):
        pace.after(piece.start - place)
        place = piece.start + copy_range(source, target, *piece, pace, hashed=False).size
        if place < piece.end:
            return Copied(place - start, None)
    pace.after(end - place)
    return Copied(end - start, None)


def _copy_hashed(source: int, target: int, start: int, end: int, pace: Pace) -> Copied:
    digest = SparseDigest()
    place = start
    chunk = max(GRAIN, pace.chunk - pace.chunk % GRAIN)
    for window in _windows(pieces_of(source, start, end), end, chunk):
        pace.before(sum(piece.end - piece.start for piece in window.pieces))
        data = os.pread(source, window.end - window.start, window.start)
        digest.add(window.start, data)
        view = memoryview(data)
        for piece in window.pieces:
            write_at(
                target, view[piece.start - window.start : piece.end - window.start], piece.start
            )
        if len(data) < window.end - window.start:
            return Copied(max(place, window.start + len(data)) - start, digest.digest())
        pace.after(window.end - place)
        place = window.end
    pace.after(end - place)
    return Copied(end - start, digest.digest())


def _windows(pieces: Iterator[Piece], end: int, size: int) -> Iterator[Window]:
    """Yield windows of at most `size` bytes, a multiple of GRAIN, in order and apart."""
    start = limit = 0
    found: list[Piece] = []
    for piece in pieces:
        place = piece.start
        while place < piece.end:
            if place >= limit:
                if found:
                    yield _window(start, found, end)
                    found = []
                start = place - place % GRAIN
                limit = start + size
            found.append(Piece(place, min(piece.end, limit)))
            place = found[-1].end
    if found:
        yield _window(start, found, end)


def _window(start: int, pieces: list[Piece], end: int) -> Window:
    whole = -(-pieces[-1].end // GRAIN) * GRAIN
    return Window(start, min(whole, end), tuple(pieces))


class SparseDigest:
    """Hashes content by what is not zero; grains are added in order."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._run = Piece(0, 0)

    def add(self, place: int, data: bytes) -> None:
        """Add bytes of the file from `place` on, a multiple of GRAIN; only the last may be part
        of a grain."""
        view = memoryview(data)
        begun = 0
        for offset in range(0, len(data), GRAIN):
            size = min(GRAIN, len(data) - offset)
            if data.startswith(_ZEROS[:size], offset):
                self._extend(place + begun, view[begun:offset])
                begun = offset + size
        self._extend(place + begun, view[begun:])

    def _extend(self, place: int, data: memoryview) -> None:
        if not data:
            return
        if place != self._run.end:
            self._close_run()
            self._run = Piece(place, place)
        self._hash.update(data)
        self._run = Piece(self._run.start, place + len(data))

    def _close_run(self) -> None:
        if self._run.end > self._run.start:
            self._hash.update(_RUN.pack(*self._run))

    def digest(self) -> bytes:
        """Return the hash of all that was added; ends the adding."""
        self._close_run()
        self._run = Piece(0, 0)
        return self._hash.digest()


def sparse_digest(fd: int, start: int, end: int, pace: Pace) -> bytes:
    """Return the hash of bytes `start` (a multiple of GRAIN) up to `end`; raises OSError."""
    digest = SparseDigest()
    for window in _windows(pieces_of(fd, start, end), end, _READ_BYTES):
        pace.check()
        digest.add(window.start, os.pread(fd, window.end - window.start, window.start))
    return digest.digest()


def sparse_digest_from_storage(fd: int, size: int, pace: Pace) -> bytes:
    """Return the hash of a file just written, as the storage holds it if that is affordable."""
    past_the_cache(fd, size, os.fstat(fd).st_blocks * 512, pace)
    return sparse_digest(fd, 0, size, pace)
