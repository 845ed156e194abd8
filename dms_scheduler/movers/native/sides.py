"""Walks two trees side by side and says how their entries differ, all but the contents of files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dms_scheduler.movers.contract import Compare, MoveOptions, Preserve, Symlinks
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.native.tree import Folder, Item, Opener, Visit, walk
from dms_scheduler.movers.paths import READ_DIRECTORY, status_at
from dms_scheduler.movers.patterns import Filters
from dms_scheduler.movers.results import Action


class Pair(NamedTuple):
    """A file at both ends whose contents decide; `reasons` are those to differ that are known."""

    item: Item
    target_fd: int
    reasons: tuple[str, ...]


class Teller(Protocol):
    """Takes what the walk finds."""

    def same(self) -> None:
        """Count an entry that is the same."""
        ...

    def note(self, action: Action, path: str, size: int | None, reason: str | None) -> None:
        """Take an entry that is not the same, or special."""
        ...

    def compare(self, pair: Pair) -> None:
        """Compare contents; called before the walk leaves the pair's folder."""
        ...

    def fail(self, path: str, error: OSError) -> None:
        """Take a path that could not be looked at."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """One walk over both trees."""

    options: MoveOptions
    filters: Filters
    guard: Guard
    teller: Teller

    def walk(self, source_fd: int, target_fd: int) -> None:
        """Compare what is in two directories; the descriptors stay the caller's."""
        opener = self._opener(self._counterpart, self._entered)
        top = opener.open_top(source_fd, target_fd)
        self._each(top, opener, self.entry)

    def _opener(
        self, counterpart: Callable[[Folder, str], int | None], entered: Callable[[Folder], None]
    ) -> Opener:
        return Opener(
            forbidden=None, counterpart=counterpart, fail=self.teller.fail, entered=entered
        )

    def _each(self, top: Folder, opener: Opener, handle: Callable[[Item], None]) -> None:
        visit = Visit(
            filters=self.filters, guard=self.guard, fail=self.teller.fail, enter=opener.enter
        )
        with closing(walk(top, visit)) as items:
            self._handle(items, handle)

    def _handle(self, items: Iterable[Item], handle: Callable[[Item], None]) -> None:
        for item in items:
            try:
                handle(item)
            except OSError as error:
                self.teller.fail(item.path, error)

    def entry(self, item: Item) -> None:
        """Compare a file, link or special file of the source with its counterpart.

        Raises:
            OSError: one of them cannot be looked at.

        """
        status = item.status
        if self._ignored(status.st_mode):
            return
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            self.teller.note(Action.SPECIAL, item.path, None, None)
            return
        fd = item.folder.target_fd
        target = None if fd is None else self._status(fd, item.target)
        if fd is None or target is None:
            self.teller.note(Action.MISSING_DST, item.path, _size(status), None)
        elif stat.S_IFMT(status.st_mode) != stat.S_IFMT(target.st_mode):
            self._differs(item.path, status, ("kind",))
        elif stat.S_ISLNK(status.st_mode):
            self._link(item, fd, target)
        else:
            self._file(item, fd, target)

    def _link(self, item: Item, fd: int, target: os.stat_result) -> None:
        points_to = os.readlink(item.name, dir_fd=item.folder.source_fd)
        same = points_to == os.readlink(item.target, dir_fd=fd)
        reasons = () if same else ("target",)
        self._settle(item.path, item.status, (*reasons, *self._attributes(item.status, target)))

    def _file(self, item: Item, fd: int, target: os.stat_result) -> None:
        compare = self.options.compare
        reasons = self._attributes(item.status, target)
        if compare is Compare.EXISTS:
            self._settle(item.path, item.status, reasons)
        elif item.status.st_size != target.st_size:
            self._differs(item.path, item.status, ("size", *reasons))
        elif compare is Compare.CHECKSUM:
            self.teller.compare(Pair(item, fd, reasons))
        else:
            if compare is Compare.SIZE_MTIME and item.status.st_mtime_ns != target.st_mtime_ns:
                reasons = ("mtime", *(each for each in reasons if each != "mtime"))
            self._settle(item.path, item.status, reasons)

    def _attributes(self, source: os.stat_result, target: os.stat_result) -> tuple[str, ...]:
        """Return which of the attributes that were asked for differ."""
        asked = self.options.preserve
        reasons: list[str] = []
        is_link = stat.S_ISLNK(source.st_mode)
        # Links have no mode of their own; set-id bits are never carried over.
        if Preserve.MODE in asked and not is_link and _bits(source) != _bits(target):
            reasons.append("mode")
        if Preserve.MTIME in asked and source.st_mtime_ns != target.st_mtime_ns:
            reasons.append("mtime")
        owners = (source.st_uid, source.st_gid) != (target.st_uid, target.st_gid)
        if Preserve.OWNER in asked and owners:
            reasons.append("owner")
        return tuple(reasons)

    def _settle(self, path: str, status: os.stat_result, reasons: tuple[str, ...]) -> None:
        if reasons:
            self._differs(path, status, reasons)
        else:
            self.teller.same()

    def _differs(self, path: str, status: os.stat_result, reasons: tuple[str, ...]) -> None:
        self.teller.note(Action.DIFFERS, path, _size(status), ", ".join(reasons))

    def _counterpart(self, parent: Folder, name: str) -> int | None:
        """Open the directory at the destination; say so if there is none."""
        fd, path = parent.target_fd, parent.child(name)
        status = None if fd is None else self._status(fd, name)
        if fd is None or status is None:
            if self.filters.selects(path):
                self.teller.note(Action.MISSING_DST, path, None, None)
            return None
        if not stat.S_ISDIR(status.st_mode):
            self.teller.note(Action.DIFFERS, path, None, "kind")
            return None
        return os.open(name, READ_DIRECTORY, dir_fd=fd)

    def _entered(self, folder: Folder) -> None:
        if folder.target_fd is None:
            return
        if folder.path:
            source, target = os.fstat(folder.source_fd), os.fstat(folder.target_fd)
            self._settle(folder.path, source, self._attributes(source, target))
        if not self.options.one_way:
            self._extras(folder, folder.target_fd)

    def _extras(self, folder: Folder, target_fd: int) -> None:
        """Tell what the destination alone has in this folder."""
        with os.scandir(target_fd) as entries:
            for entry in entries:
                self.guard.check()
                try:
                    self._extra(folder, target_fd, entry)
                except OSError as error:
                    self.teller.fail(folder.child(entry.name), error)

    def _extra(self, folder: Folder, target_fd: int, entry: os.DirEntry[str]) -> None:
        name, is_directory = entry.name, entry.is_dir(follow_symlinks=False)
        if not self.filters.wants(folder.path, name, is_directory=is_directory):
            return
        source = self._status(folder.source_fd, name)
        if is_directory and (source is None or not stat.S_ISDIR(source.st_mode)):
            self._extra_tree(folder, target_fd, name, alone=source is None)
        elif source is None and (status := self._status(target_fd, name)) is not None:
            self.teller.note(Action.MISSING_SRC, folder.child(name), _size(status), None)

    def _extra_tree(self, folder: Folder, target_fd: int, name: str, *, alone: bool) -> None:
        """Tell what is in a directory that the destination alone has, and it itself if `alone`."""
        top = Folder(
            path=folder.path,
            source_fd=os.dup(target_fd),
            target_fd=None,
            parent=folder,
            on_done=lambda _: None,
        )

        def entered(each: Folder) -> None:
            its_own = alone or each.parent is not top
            if its_own and self.filters.selects(each.path):
                self.teller.note(Action.MISSING_SRC, each.path, None, None)

        opener = self._opener(lambda _parent, _name: None, entered)
        try:
            below = opener.enter(top, name)
        finally:
            top.release()
        if below is not None:
            self._each(below, opener, self._lone)

    def _lone(self, item: Item) -> None:
        if not self._ignored(item.status.st_mode):
            self.teller.note(Action.MISSING_SRC, item.path, _size(item.status), None)

    def _status(self, fd: int, name: str) -> os.stat_result | None:
        """Return the status of an entry, None if there is none or it does not count."""
        try:
            status = status_at(fd, name)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # then the other side cannot have it
                raise
            return None
        return None if status is None or self._ignored(status.st_mode) else status

    def _ignored(self, mode: int) -> bool:
        return self.options.symlinks is Symlinks.SKIP and stat.S_ISLNK(mode)


def _size(status: os.stat_result) -> int | None:
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _bits(status: os.stat_result) -> int:
    return status.st_mode & 0o1777
