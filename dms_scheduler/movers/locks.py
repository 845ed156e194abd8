"""Keeps tasks apart whose trees hold each other: flags of the kernel on directories, gone at death.

How to use it, before anything is written and as long as anything may still write:

    locks = Locks(root_identities(request.roots), log)
    stack.callback(locks.close)
    locks.read(source_fd, at_rest=options.delete)  # raises SourceBusy
    locks.write_in(parent_fd)   # raises DestinationBusy: a name in this directory will be made,
                                # replaced or removed (a single file; a directory to be made)
    locks.write(target_fd)      # raises DestinationBusy: all below this directory may change

Each descriptor may be one with O_PATH. A flag is a shared record lock of the open file description
(`F_OFD_SETLK`) on one byte of a directory, which needs no right to write and never fails because
of another; who takes one sets it first and then asks who else has set what it cannot stand, so of
two that come at once at least one sees the other. Nobody ever waits while holding: no deadlock.
Flags are set on the directory and on those above it, from the highest allowed root down, by every
way that leads there (`above`). Forked processes share them: they fall with the last one. A process
that is executed needs `pass_fds=locks.fds` for that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from typing import cast

from dms_scheduler.movers.above import PLACE, Line, Mark, lines_above
from dms_scheduler.movers.errors import DestinationBusy, SourceBusy
from dms_scheduler.movers.oserrors import as_mover_error
from dms_scheduler.movers.paths import READ_DIRECTORY

# File systems that keep no locks, or none for a directory; a directory that may only be passed.
_NO_LOCKS = {errno.EACCES, errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, process (0 for these locks)


class _Flag(IntEnum):
    """The byte that says what a task does with a directory."""

    OWNS = 0  # may change everything below it
    CHANGES = 1  # changes something in it or below it
    READS = 2  # reads something in it or below it


@dataclass(frozen=True, slots=True)
class _Wish:
    """A flag for a directory, and how many flags, from the first, no other task may have there."""

    flag: _Flag
    alone: int
    busy: type[DestinationBusy | SourceBusy]


_READ = _Wish(_Flag.READS, 1, SourceBusy)
_READ_AT_REST = _Wish(_Flag.READS, 2, SourceBusy)
_CHANGE = _Wish(_Flag.CHANGES, 1, DestinationBusy)
_OWN = _Wish(_Flag.OWNS, 3, DestinationBusy)
_WORDS = {
    _Flag.OWNS: "another task writes to {where}",
    _Flag.CHANGES: "another task writes to something in {where}",
    _Flag.READS: "another task reads {where} or something in it",
}


class Locks:
    """The flags that one task has set; of one thread."""

    def __init__(self, roots: frozenset[Mark], log: Callable[[str], None]) -> None:
        """`roots` are the allowed roots; `log` hears once of a directory that takes no flags."""
        self._roots = roots
        self._log = log
        self._held: dict[Mark, int] = {}
        self._told = False

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that hold the flags, for a process to be executed."""
        return tuple(self._held.values())

    def read(self, fd: int, *, at_rest: bool = False) -> None:
        """Say that this task reads what lies in the directory `fd`, and in all below it.

        With `at_rest` nothing in it may be under way: for who takes what is not there as deleted.
        Raises SourceBusy, and MoverError where the directory cannot be asked.
        """
        self._set(fd, _READ_AT_REST if at_rest else _READ, _READ)

    def write_in(self, fd: int) -> None:
        """Say that this task makes, replaces or removes names in the directory `fd`.

        Several tasks may do that at once. Raises DestinationBusy, and MoverError.
        """
        self._set(fd, _CHANGE, _CHANGE)

    def write(self, fd: int) -> None:
        """Say that this task alone writes to the directory `fd` and to all below it.

        Raises DestinationBusy, and MoverError.
        """
        self._set(fd, _OWN, _CHANGE)

    def close(self) -> None:
        """Take all flags away, unless a forked process still holds them."""
        while self._held:
            os.close(self._held.popitem()[1])

    def _set(self, fd: int, wish: _Wish, above: _Wish) -> None:
        try:
            with ExitStack() as stack:
                lines = lines_above(fd, stack)
                for line in lines:
                    self._set_along(line, lines[0].marks[0], wish, above)
        except OSError as error:
            raise as_mover_error(error, "lock") from error

    def _set_along(self, line: Line, end: Mark, wish: _Wish, above: _Wish) -> None:
        inside = [index for index, mark in enumerate(line.marks) if mark in self._roots]
        marks = line.marks[: inside[-1] + 1] if inside else ()
        for mark, folder in zip(marks, _upwards(line.fd), strict=False):
            self._claim(mark, folder, wish if mark == end else above)

    def _claim(self, mark: Mark, folder: int, wish: _Wish) -> None:
        try:
            if mark not in self._held:
                self._held[mark] = os.open(".", READ_DIRECTORY, dir_fd=folder)
            fd = self._held[mark]
            _lock(fd, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, wish.flag, 1)
            other = _others(fd, wish.alone)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._tell(f"{_name(folder)} takes no locks ({error.strerror})")
            return
        if other is not None:
            what = _WORDS[other].format(where=_name(folder))
            message = f"{what}; wait until it is done, or cancel it"
            raise wish.busy(message)

    def _tell(self, message: str) -> None:
        if not self._told:
            self._told = True
            self._log(f"{message}: nothing keeps another task from writing there")


def _upwards(fd: int) -> Iterator[int]:
    """Yield a descriptor for the directory `fd` and for each above it, without end."""
    current = os.dup(fd)
    try:
        while True:
            yield current
            above = os.open("..", PLACE, dir_fd=current)
            os.close(current)
            current = above
    finally:
        os.close(current)


def _others(fd: int, flags: int) -> _Flag | None:
    """Return the first of that many flags that another task has set, None if there is none."""
    # Asked for as if to write: only that is in the way of what is locked to read.
    kind, start = _lock(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, 0, flags)
    return None if kind == fcntl.F_UNLCK else _Flag(start)


def _lock(fd: int, command: int, kind: int, start: int, length: int) -> tuple[int, int]:
    """Set or ask for a record lock; return the type and the start of what is there."""
    reply = fcntl.fcntl(fd, command, struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0))
    found = cast("tuple[int, ...]", struct.unpack(_FLOCK, reply))
    return found[0], found[2]


def _name(folder: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{folder}")
    except OSError:
        return "its directory"
