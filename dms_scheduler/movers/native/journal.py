"""What a big file's copy remembers of itself beside it, so that the next attempt can go on.

Line by line: first what the source was, then each part that is complete. A line counts once its
end is there, and is written when its part is on storage (without `fsync` it counts only as long as
the machine stays up).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import NamedTuple

_MAGIC = "dms-part-1"
_MOST_BYTES = 1 << 20
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_FLAGS = os.O_NOFOLLOW | os.O_APPEND | os.O_NONBLOCK

NO_DIGEST = "-"


class SourceId(NamedTuple):
    """A source and its version."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> SourceId:
        """Return that of an open file."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


def may_be_ours(fd: int, folder: int) -> bool:
    """Say whether the open file `fd` in the directory `folder` can be one that a mover made.

    Whoever may write to the directory can put files of known names there. Where nobody can replace
    those of others (sticky, as /tmp), it has to be this user's: else what they put there would get
    the name of the copy, and stay theirs. Elsewhere a storage may give our files to another user.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        return False
    sticky = os.fstat(folder).st_mode & stat.S_ISVTX
    return not sticky or status.st_uid == os.geteuid()


def header(source: SourceId, part_size: int, *, hashed: bool, synced: bool) -> str:
    """Return the first line: parts of a journal with any other one are of no use."""
    boot = "synced" if synced else _boot_id()
    return " ".join([_MAGIC, *map(str, source), str(part_size), str(int(hashed)), boot])


def _boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return f"process-{os.getpid()}"


def begin(fd: int, name: str, first: str) -> None:
    """Begin a new journal in the directory `fd`; raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=fd)
    _write(fd, name, first, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def add(fd: int, name: str, index: int, digest: str) -> None:
    """Add a part that is complete; raises OSError."""
    _write(fd, name, f"{index} {digest}", os.O_WRONLY)


def _write(fd: int, name: str, line: str, how: int) -> None:
    journal = os.open(name, how | _FLAGS, 0o600, dir_fd=fd)
    try:
        if not may_be_ours(journal, fd):
            raise FileExistsError(errno.EEXIST, "somebody else's file has the name of a journal")
        os.write(journal, f"{line}\n".encode("ascii"))  # in one call: whole, or its end is missing
    finally:
        os.close(journal)


def read(fd: int, name: str, first: str) -> dict[int, str]:
    """Return the digests of the parts that are complete; none if the journal does not fit."""
    try:
        journal = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
    except OSError:
        return {}
    try:
        if not may_be_ours(journal, fd):
            return {}
        text = os.read(journal, _MOST_BYTES).decode("ascii", "replace")
    finally:
        os.close(journal)
    lines = text.split("\n")[:-1]  # what follows the last end of a line is no line
    if not lines or lines[0] != first:
        return {}
    found: dict[int, str] = {}
    for line in lines[1:]:
        index, _, digest = line.partition(" ")
        if index.isascii() and index.isdigit() and digest:
            found[int(index)] = digest
    return found
