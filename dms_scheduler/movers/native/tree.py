"""Walks a source tree and its counterpart side by side, holding each directory open once.

Memory and open descriptors grow with the depth, not with the number of files: a directory's
entries are streamed, and only the names of its subdirectories wait.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dms_scheduler.movers.errors import overlap
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.paths import READ_DIRECTORY, identity
from dms_scheduler.movers.patterns import Filters

_CHECK_EVERY = 4
MAX_DEPTH = 300
"""Directories below each other. Two descriptors a level must stay below the usual 1024."""


class Folder:
    """A source directory and its counterpart (None while there is none), shared by threads.

    It is closed when its last user lets go: then `on_done` sees it with all its content in place.
    """

    def __init__(
        self,
        *,
        path: str,
        source_fd: int,
        target_fd: int | None,
        parent: Folder | None,
        on_done: Callable[[Folder], None],
    ) -> None:
        """Take over both descriptors; `path` is relative to the top, which is ''."""
        self.path = path
        self.source_fd = source_fd
        self.target_fd = target_fd
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self._on_done = on_done
        self._users = 1
        self._lock = threading.Lock()
        if parent:
            parent.retain()

    def child(self, name: str) -> str:
        """Return the path of an entry."""
        return f"{self.path}/{name}" if self.path else name

    def retain(self) -> Folder:
        """Keep the folder open until `release`."""
        with self._lock:
            self._users += 1
        return self

    def release(self) -> None:
        """Let go; the last one closes the folder, and lets go of its parent."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        try:
            self._on_done(self)
        finally:
            os.close(self.source_fd)
            if self.target_fd is not None:
                os.close(self.target_fd)
            if self.parent:
                self.parent.release()


class Item(NamedTuple):
    """An entry of the source that is no directory; `target` is its name at the destination."""

    folder: Folder
    name: str
    target: str
    status: os.stat_result

    @property
    def path(self) -> str:
        """The path relative to the top of the source."""
        return self.folder.child(self.name)


@dataclass(slots=True, kw_only=True)
class Visit:
    """How to walk: what is meant, when to stop, where failures go, how a folder is opened."""

    filters: Filters
    guard: Guard
    fail: Callable[[str, OSError], None]
    enter: Callable[[Folder, str], Folder | None]


def walk(top: Folder, visit: Visit) -> Generator[Item]:
    """Yield every entry below `top` that is meant and no directory; take over the top's user.

    Directories are entered after the files beside them. Close the iterator when leaving early.
    """
    waiting: list[tuple[Folder, str]] = []
    folder: Folder | None = top
    try:
        while True:
            if folder is not None:
                yield from _entries(folder, waiting, visit)
                folder.release()
                folder = None
            if not waiting:
                return
            parent, name = waiting.pop()
            try:
                folder = visit.enter(parent, name)
            finally:
                parent.release()
    except BaseException as error:
        # Before any folder is released: what is unfinished must not be marked as done.
        visit.guard.stop(error)
        raise
    finally:
        for parent in ([folder] if folder else []) + [pair[0] for pair in waiting]:
            parent.release()


def _entries(folder: Folder, waiting: list[tuple[Folder, str]], visit: Visit) -> Iterator[Item]:
    fd, wants = folder.source_fd, visit.filters.wants
    try:
        with os.scandir(fd) as entries:
            for number, entry in enumerate(entries):
                if number % _CHECK_EVERY == 0:
                    visit.guard.check()
                name = entry.name
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except OSError as error:
                    visit.fail(folder.child(name), error)
                    continue
                is_directory = stat.S_ISDIR(status.st_mode)
                if not wants(folder.path, name, is_directory=is_directory):
                    continue
                if is_directory:
                    waiting.append((folder.retain(), name))
                else:
                    yield Item(folder, name, name, status)
    except OSError as error:
        visit.fail(folder.path, error)


class Opener:
    """Opens a directory below one that is open, and its counterpart by a given rule."""

    def __init__(
        self,
        *,
        forbidden: tuple[int, int] | None,
        counterpart: Callable[[Folder, str], int | None],
        fail: Callable[[str, OSError], None],
        entered: Callable[[Folder], None] = lambda _: None,
        on_done: Callable[[Folder], None] = lambda _: None,
    ) -> None:
        """`forbidden` is the top of the destination, which a bind mount may show in the source."""
        self._forbidden = forbidden
        self._counterpart = counterpart
        self._fail = fail
        self._entered = entered
        self._on_done = on_done

    def open_top(self, source_fd: int, target_fd: int | None) -> Folder:
        """Return the tops of both trees as a folder with descriptors of its own; raises OSError."""
        folder = Folder(
            path="",
            source_fd=os.dup(source_fd),
            target_fd=None if target_fd is None else os.dup(target_fd),
            parent=None,
            on_done=self._on_done,
        )
        try:
            self._entered(folder)
        except BaseException:
            folder.release()
            raise
        return folder

    def enter(self, parent: Folder, name: str) -> Folder | None:
        """Open the directory, or report why not and return None.

        Raises:
            Refused: the source leads into the destination.

        """
        try:
            folder = self._open(parent, name)
        except OSError as error:
            self._fail(parent.child(name), error)
            return None
        try:
            self._entered(folder)
        except BaseException as error:
            folder.release()
            if not isinstance(error, OSError):
                raise
            self._fail(folder.path, error)
            return None
        return folder

    def _open(self, parent: Folder, name: str) -> Folder:
        if parent.depth >= MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        source_fd = os.open(name, READ_DIRECTORY, dir_fd=parent.source_fd)
        try:
            if identity(os.fstat(source_fd)) == self._forbidden:
                raise overlap()
            target_fd = self._counterpart(parent, name)
        except BaseException:
            os.close(source_fd)
            raise
        return Folder(
            path=parent.child(name),
            source_fd=source_fd,
            target_fd=target_fd,
            parent=parent,
            on_done=self._on_done,
        )


def open_below(fd: int | None, name: str) -> int | None:
    """Open the directory `name` of the directory `fd`; None if there is none to open.

    Raises:
        OSError: it is not permitted, or another kind of file (also a link) has that name.

    """
    if fd is None:
        return None
    try:
        return os.open(name, READ_DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        return None
