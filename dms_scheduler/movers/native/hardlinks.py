"""Hard links: which names of the source are one file, and making them one at the destination.

The first name of a file that the destination has, or will have after this run, is its leader; each
later one becomes another name of the leader. Names outside of the tree, or left out by patterns,
are never met and matter to nobody.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from enum import Enum, auto
from tempfile import gettempdir
from typing import NamedTuple

from dms_scheduler.movers.contract import Compare, MoveOptions, Overwrite, Preserve, Symlinks
from dms_scheduler.movers.errors import FileProblem, MoverError
from dms_scheduler.movers.native.compare import Verdict, judge
from dms_scheduler.movers.paths import identity, status_at

_IN_MEMORY = 20_000
_UNLINKABLE = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384;
CREATE TABLE leaders (
    dev BLOB, ino BLOB, path BLOB, kept_dev BLOB, kept_ino BLOB, left INTEGER,
    PRIMARY KEY (dev, ino)
) WITHOUT ROWID;
BEGIN
"""

Identity = tuple[int, int]


class Leader(NamedTuple):
    """The name that the others become names of: its path below the top of the destination.

    `kept` is what is there now if it stays, None if the run replaces it; `left` counts the names
    of the file that are still to be met.
    """

    path: str
    kept: Identity | None
    left: int


class Leaders:
    """Finds the leader of a file by its inode.

    A leader leaves when all names of its file were met. More than 20,000 at once (names of them
    lie outside of the tree, or far apart) go to a temporary file of the system's, so that memory
    stays bounded. Not for several threads.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        """`in_memory` is how many may be held before the others go to the file."""
        self._in_memory = in_memory
        self._near: dict[Identity, Leader] = {}
        self._far: sqlite3.Connection | None = None

    def meet(self, file: Identity) -> Leader | None:
        """Return the leader of a further name of a file, None if it has none.

        Raises:
            MoverError: the temporary file cannot be read.

        """
        leader = self._near.get(file)
        if leader is None:
            with _told():
                return self._meet_far(file)
        if leader.left <= 1:
            del self._near[file]
        else:
            self._near[file] = leader._replace(left=leader.left - 1)
        return leader

    def lead(self, file: Identity, leader: Leader) -> None:
        """Remember the leader of a file of which it leaves names to be met.

        Raises:
            MoverError: there is no room for the temporary file.

        """
        if leader.left < 1:
            return
        if len(self._near) < self._in_memory:
            self._near[file] = leader
        else:
            with _told():
                self._lead_far(file, leader)

    def close(self) -> None:
        """Forget all, and remove the temporary file."""
        self._near.clear()
        if self._far is not None:
            self._far.close()
            self._far = None

    def _lead_far(self, file: Identity, leader: Leader) -> None:
        if self._far is None:
            # No name: a file of its own that sqlite unlinks at once.
            self._far = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._far.executescript(_SCHEMA)
        kept = (None, None) if leader.kept is None else _packed(leader.kept)
        row = (*_packed(file), os.fsencode(leader.path), *kept, leader.left)
        self._far.execute("INSERT OR REPLACE INTO leaders VALUES (?, ?, ?, ?, ?, ?)", row).close()

    def _meet_far(self, file: Identity) -> Leader | None:
        if self._far is None:
            return None
        key = _packed(file)
        query = "SELECT path, kept_dev, kept_ino, left FROM leaders WHERE dev = ? AND ino = ?"
        with closing(self._far.execute(query, key)) as rows:
            row = rows.fetchone()
        if row is None:
            return None
        path, kept_dev, kept_ino, left = row
        if left <= 1:
            change = "DELETE FROM leaders WHERE dev = ? AND ino = ?"
        else:
            change = "UPDATE leaders SET left = left - 1 WHERE dev = ? AND ino = ?"
        self._far.execute(change, key).close()
        kept = None if kept_dev is None else _unpacked(kept_dev, kept_ino)
        return Leader(os.fsdecode(path), kept, left)


@contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        message = (
            f"hard links cannot be kept in mind in {gettempdir()}: {error}. Make space there, or "
            "start the worker with TMPDIR on a larger disk"
        )
        raise MoverError(message, error_class="no_temporary_space", retryable=True) from error


def _packed(file: Identity) -> tuple[bytes, bytes]:
    # sqlite's integers have a sign, an inode's number has 64 bits without.
    return (file[0].to_bytes(8, "big"), file[1].to_bytes(8, "big"))


def _unpacked(device: bytes, inode: bytes) -> Identity:
    return (int.from_bytes(device, "big"), int.from_bytes(inode, "big"))


class Families:
    """Decides which names become hard links, in the order in which the source is walked."""

    def __init__(self, options: MoveOptions, leaders: Leaders | None = None) -> None:
        """`leaders` is for tests."""
        self._options = options
        self._leaders = leaders or Leaders()

    def concerns(self, source: os.stat_result) -> bool:
        """Say whether the entry may be one of several names that are to be kept together."""
        if Preserve.HARDLINKS not in self._options.preserve or source.st_nlink < 2:
            return False
        if stat.S_ISLNK(source.st_mode):
            return self._options.symlinks is Symlinks.KEEP
        return stat.S_ISREG(source.st_mode)

    def leader_for(
        self, source: os.stat_result, target: os.stat_result | None, verdict: Verdict, path: str
    ) -> str | None:
        """Return the path of the leader that this name has to become a link of.

        None means that `verdict` holds: the name is the leader itself, is its link already, keeps
        what it has by the task's options, or lies on another file system. `target` is what is at
        `path` now. Call it once for each name that `concerns` this, with a verdict that is no
        CONFLICT.
        """
        leader = self._leaders.meet(identity(source))
        if not self._gets_it(source, target, verdict):
            return None
        if leader is None:
            stays = target is not None and verdict in {Verdict.SKIP, Verdict.UPDATE}
            kept = identity(target) if stays and target is not None else None
            self._leaders.lead(identity(source), Leader(path, kept, source.st_nlink - 1))
            return None
        return None if target and self._stays(leader, target, verdict) else leader.path

    def _gets_it(
        self, source: os.stat_result, target: os.stat_result | None, verdict: Verdict
    ) -> bool:
        """Say whether the name has, or will have, what the source has: not so where the options
        keep another version."""
        if verdict is not Verdict.SKIP or target is None:
            return True
        if stat.S_ISLNK(source.st_mode):
            return self._options.overwrite is Overwrite.ALWAYS
        if judge(source, target, self._options) is Verdict.CHECK:
            return True  # skipped because its content was read, and is the same
        always = replace(self._options, overwrite=Overwrite.ALWAYS)
        return judge(source, target, always) is Verdict.SKIP

    def _stays(self, leader: Leader, target: os.stat_result, verdict: Verdict) -> bool:
        """Say whether what is there is the leader's already, or must not or cannot be replaced."""
        if leader.kept is not None and leader.kept[0] != target.st_dev:
            return True
        untouched = (
            self._options.overwrite is Overwrite.NEVER or self._options.compare is Compare.EXISTS
        )
        return leader.kept == identity(target) or (untouched and verdict is Verdict.SKIP)

    def close(self) -> None:
        """Forget all."""
        self._leaders.close()


class Joined(Enum):
    """How making a hard link went."""

    MADE = auto()
    THERE = auto()  # the name was the leader's already, or keeps what appeared there meanwhile
    IMPOSSIBLE = auto()  # other file system, too many names, none at all: copy it instead


class Name(NamedTuple):
    """A name in an open directory."""

    fd: int
    name: str


def join(
    leader: Name,
    follower: Name,
    temporary: str,
    source: os.stat_result,
    overwrite: Overwrite,
    check: Callable[[], None],
) -> Joined:
    """Make `follower` another name of what `leader` is, in one step as its readers see it.

    `source` is the status of the source of both; `check` raises to stop, and is asked right before
    each change.

    Raises:
        OSError: it could not be made.
        FileProblem: the leader is not there, or is not what it was when it was planned.

    """
    held = _hold(leader, source)
    try:
        try:
            return _join(held, follower, temporary, source, overwrite, check)
        except OSError as error:
            if error.errno in _UNLINKABLE:
                return Joined.IMPOSSIBLE
            raise
    finally:
        os.close(held)


def _hold(leader: Name, source: os.stat_result) -> int:
    """Open the leader as a mere place: what is linked is what was looked at."""
    held = -1
    try:
        held = os.open(leader.name, os.O_PATH | os.O_NOFOLLOW, dir_fd=leader.fd)
        status = os.fstat(held)
    except FileNotFoundError:
        status = None
    kind = stat.S_IFMT(source.st_mode)
    if status and stat.S_IFMT(status.st_mode) == kind and status.st_size == source.st_size:
        return held
    if held >= 0:
        os.close(held)
    message = "the file that this is another name of is not at the destination; run it once more"
    raise FileProblem(message, error_class="changed_during_copy")


def _join(
    held: int,
    follower: Name,
    temporary: str,
    source: os.stat_result,
    overwrite: Overwrite,
    check: Callable[[], None],
) -> Joined:
    check()
    try:
        _link(held, follower)
        return Joined.MADE
    except FileExistsError:
        there = status_at(*follower)
    if there is not None and (
        identity(there) == identity(os.fstat(held)) or _keeps(there, source, overwrite)
    ):
        return Joined.THERE
    _link(held, Name(follower.fd, temporary))
    try:
        check()
        os.rename(temporary, follower.name, src_dir_fd=follower.fd, dst_dir_fd=follower.fd)
    finally:
        # A failure, or a rename of two names of one file, which does nothing and leaves both.
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=follower.fd)
    return Joined.MADE


def _link(held: int, name: Name) -> None:
    # /proc leads to the very inode that is held; following it is what this flag is for.
    os.link(f"/proc/self/fd/{held}", name.name, dst_dir_fd=name.fd, follow_symlinks=True)


def _keeps(there: os.stat_result, source: os.stat_result, overwrite: Overwrite) -> bool:
    if overwrite is Overwrite.NEWER:
        return there.st_mtime_ns > source.st_mtime_ns
    return overwrite is Overwrite.NEVER
