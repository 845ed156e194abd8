"""Walks what is to be removed, from the bottom up, and never into what must not be removed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from dms_scheduler.movers.above import mount_id
from dms_scheduler.movers.errors import Refused
from dms_scheduler.movers.native.tree import MAX_DEPTH
from dms_scheduler.movers.paths import READ_DIRECTORY, identity, status_at
from dms_scheduler.movers.patterns import Filters

Mark = tuple[int, int]
Fail = Callable[[str, OSError], None]


class Doomed(NamedTuple):
    """An entry to remove: `name` in the directory `fd`, whose own path is `folder`."""

    fd: int
    name: str
    folder: str
    status: os.stat_result

    @property
    def path(self) -> str:
        """The path relative to what holds the entry that the task names."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory, empty by the time it comes."""
        return stat.S_ISDIR(self.status.st_mode)


class Protected:
    """What is never removed: the allowed roots, by whatever name, and other mounts."""

    def __init__(self, roots: frozenset[Mark]) -> None:
        """`roots` are the identities of the roots, and of the links that lead to them."""
        self._roots = roots

    def check_entry(self, status: os.stat_result, path: str) -> None:
        """Raise Refused if the entry is a root."""
        if identity(status) in self._roots:
            message = (
                f"{path} is an allowed root and is never removed; name what is in it instead, "
                "or exclude it"
            )
            raise Refused(message, error_class="root_refused")

    def check_opened(self, above: int, fd: int, path: str) -> None:
        """Raise Refused if the directory `fd` is a root or the top of a mount in `above`."""
        self.check_entry(os.fstat(fd), path)
        if mount_id(above) != mount_id(fd) or os.fstat(above).st_dev != os.fstat(fd).st_dev:
            message = f"{path}: another file system is mounted here; unmount it, or exclude it"
            raise Refused(message, error_class="other_file_system")


class _Listing(Protocol):
    """What `os.scandir` returns."""

    def __iter__(self) -> Self: ...

    def __next__(self) -> os.DirEntry[str]: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Level:
    """A directory that is being emptied, and how that goes."""

    doomed: Doomed
    fd: int
    entries: _Listing
    failures: int
    stays: bool = False
    removed: bool = False

    def settle(self, *, gone: bool) -> None:
        """Note what became of an entry."""
        self.stays = self.stays or not gone
        self.removed = self.removed or gone


class Walk:
    """Finds what is to go, streamed: only the open directories are held, two descriptors each."""

    def __init__(
        self,
        *,
        filters: Filters,
        protected: Protected,
        check: Callable[[], None],
        fail: Fail,
        remove: Callable[[Doomed], None],
        repeats: bool,
    ) -> None:
        """`remove` takes each entry, a directory after what is in it, and may raise OSError.

        With `repeats` a directory is listed again until nothing more goes: a listing may pass
        over entries of a directory that shrinks meanwhile.
        """
        self._filters = filters
        self._protected = protected
        self._check = check
        self._fail = fail
        self._remove = remove
        self._repeats = repeats
        self._failures = 0
        self._levels: list[_Level] = []
        self._gone = False

    def run(self, top: Doomed) -> bool:
        """Remove an entry, after all that is in it; say if it is gone.

        Raises:
            Refused: something in it must not be removed; and whatever `check` and `remove` raise.

        """
        try:
            self._begin(top)
            while self._levels:
                self._step(self._levels[-1])
        finally:
            while self._levels:
                self._close()
        return self._gone

    def _begin(self, doomed: Doomed) -> None:
        self._check()
        self._protected.check_entry(doomed.status, doomed.path)
        try:
            if doomed.is_directory:
                self._open(doomed)
            else:
                self._remove(doomed)
                self._settle(gone=True)
        except OSError as error:
            self._failed(doomed, error)

    def _open(self, doomed: Doomed) -> None:
        path = doomed.path
        if path.count("/") >= MAX_DEPTH:
            message = f"{path}: more than {MAX_DEPTH} directories below each other are not removed"
            raise Refused(message, error_class="too_deep")
        fd = open_same(doomed)
        try:
            self._protected.check_opened(doomed.fd, fd, path)
            self._levels.append(_Level(doomed, fd, os.scandir(fd), self._failures))
        except BaseException:
            os.close(fd)
            raise

    def _step(self, level: _Level) -> None:
        """Take the next entry of a directory, or the directory itself if there is none left."""
        try:
            entry = next(level.entries, None)
        except OSError as error:
            self._close()
            self._failed(level.doomed, error)
            return
        if entry is None:
            self._leave(level)
        elif child := self._child(level, entry.name):
            self._begin(child)

    def _child(self, level: _Level, name: str) -> Doomed | None:
        """Return an entry that is to go; what stays is noted, what is gone needs nothing."""
        path = level.doomed.path
        try:
            status = status_at(level.fd, name)
        except OSError as error:
            self._failed(Doomed(level.fd, name, path, level.doomed.status), error)
            return None
        if status is None:
            return None
        doomed = Doomed(level.fd, name, path, status)
        if self._filters.picks(_below_top(path), name, is_directory=doomed.is_directory):
            return doomed
        level.stays = True
        return None

    def _leave(self, level: _Level) -> None:
        if self._repeats and level.removed and level.failures == self._failures:
            level.stays = level.removed = False
            level.entries.close()
            level.entries = os.scandir(level.fd)
            return
        self._close()
        doomed = level.doomed
        if level.stays or not self._filters.selects(_below_top(doomed.path)):
            self._settle(gone=False)
            return
        try:
            self._remove(doomed)
        except OSError as error:
            self._failed(doomed, error)
        else:
            self._settle(gone=True)

    def _failed(self, doomed: Doomed, error: OSError) -> None:
        self._failures += 1
        self._settle(gone=False)
        self._fail(doomed.path, error)

    def _settle(self, *, gone: bool) -> None:
        if self._levels:
            self._levels[-1].settle(gone=gone)
        else:
            self._gone = gone

    def _close(self) -> None:
        level = self._levels.pop()
        level.entries.close()
        os.close(level.fd)


def open_same(doomed: Doomed) -> int:
    """Open the directory that was looked at; raises OSError if another one has its name now."""
    fd = os.open(doomed.name, READ_DIRECTORY, dir_fd=doomed.fd)
    if identity(os.fstat(fd)) != identity(doomed.status):
        os.close(fd)
        raise FileNotFoundError(2, "the directory was replaced while it was looked at")
    return fd


def _below_top(path: str) -> str:
    """Return the path as patterns see it: relative to the directory that the task names."""
    return path.partition("/")[2]
