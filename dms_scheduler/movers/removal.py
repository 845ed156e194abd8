"""Deletes what the source does not have: counted first, bounded, kept aside if asked for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from dms_scheduler.movers.contract import MoveRequest, Preserve
from dms_scheduler.movers.errors import Refused
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.meter import Meter, Tally
from dms_scheduler.movers.paths import READ_DIRECTORY, identity, status_at
from dms_scheduler.movers.patterns import BACKUP_NAME, Filters
from dms_scheduler.movers.tree import MAX_DEPTH

Fail = Callable[[str, OSError], None]


class Backup:
    """Moves what is deleted to `.dms-deleted/<task>.<epoch>/` at the top of the destination."""

    def __init__(self, top_fd: int, request: MoveRequest) -> None:
        """`top_fd` stays the caller's."""
        self._top_fd = top_fd
        self._base = (BACKUP_NAME, f"{request.task_id}.{request.epoch}")

    def keep(self, fd: int, name: str, folder: str) -> None:
        """Move the entry `name` of the directory `fd`, whose path is `folder`; raises OSError."""
        with self._opened(folder) as place:
            os.rename(name, name, src_dir_fd=fd, dst_dir_fd=place)

    def keep_directory(self, path: str) -> None:
        """Keep the directory itself, for one that was empty; raises OSError."""
        with self._opened(path):
            pass

    @contextmanager
    def _opened(self, folder: str) -> Generator[int]:
        fd = os.dup(self._top_fd)
        try:
            for part in (*self._base, *(folder.split("/") if folder else ())):
                fd = _step_into(fd, part)
            yield fd
        finally:
            os.close(fd)


def _step_into(fd: int, part: str) -> int:
    """Open, and make if needed, a directory that only this user may look into; close `fd`."""
    # Of an earlier deletion; the open below refuses anything but a real directory.
    with suppress(FileExistsError):
        os.mkdir(part, 0o700, dir_fd=fd)
    below = os.open(part, READ_DIRECTORY, dir_fd=fd)
    os.close(fd)
    return below


class Removal:
    """Finds and deletes the entries of a destination that the source lacks.

    What the filters leave out, and DMS's own files, stay; so does a directory that holds any.
    """

    def __init__(
        self, request: MoveRequest, filters: Filters, guard: Guard, meter: Meter, fail: Fail
    ) -> None:
        """`fail` takes a path and the error that kept it from being deleted."""
        self._request = request
        self._limit = request.options.max_delete
        self._filters = filters
        self._guard = guard
        self._meter = meter
        self._fail = fail
        self._found = 0
        self.backup: Backup | None = None
        self.roots: frozenset[tuple[int, int]] = frozenset()  # never deleted, nor deleted from

    def plan(
        self, source_fd: int, target_fd: int, noted: Callable[[str], None], fail: Fail
    ) -> None:
        """Count what `extras` would delete; `noted` gets each path, `fail` what cannot be seen.

        Raises:
            Refused: it is more than `max_delete`.

        """
        for fd, name, folder in self._extras_below(source_fd, target_fd, "", fail):
            try:
                self.plan_entry(fd, name, folder, noted)
            except OSError as error:
                fail(_join(folder, name), error)

    def plan_entry(self, fd: int, name: str, folder: str, noted: Callable[[str], None]) -> bool:
        """Count one entry with all below it; say if all of it would go."""
        path = _join(folder, name)
        self._guard.check()
        gone = True
        if _is_directory(fd, name):
            with self._doomed(fd, name, path) as below:
                for entry in os.listdir(below):
                    wanted = self._wants(below, path, entry)
                    gone = (wanted and self.plan_entry(below, entry, path, noted)) and gone
        if gone:
            self._found += 1
            noted(path)
        if self._found > self._limit:
            raise self._too_many()
        return gone

    def extras(self, source_fd: int, target_fd: int) -> None:
        """Delete everything below `target_fd` that `source_fd` lacks."""
        for fd, name, folder in self._extras_below(
            source_fd, target_fd, "", self._fail, restore=True
        ):
            self.delete(fd, name, folder)

    def delete(self, fd: int, name: str, folder: str) -> bool:
        """Delete the entry `name` of the directory `fd` with all below it; say if it is gone.

        Failures are reported, not raised.

        Raises:
            Refused: more than `max_delete` would be deleted (the trees changed since the plan).

        """
        path = _join(folder, name)
        try:
            if _is_directory(fd, name):
                return self._delete_directory(fd, name, path)
            self._before_delete()
            if self.backup:
                self.backup.keep(fd, name, folder)
            else:
                os.unlink(name, dir_fd=fd)
        except OSError as error:
            self._fail(path, error)
            return False
        self._meter.add(Tally.DELETED)
        return True

    def _delete_directory(self, fd: int, name: str, path: str) -> bool:
        gone = True
        with self._doomed(fd, name, path) as below:
            entries = os.listdir(below)
            for entry in entries:
                wanted = self._wants(below, path, entry)
                gone = (wanted and self.delete(below, entry, path)) and gone
        if not gone:
            return False
        self._before_delete()
        if self.backup and not entries:
            self.backup.keep_directory(path)
        os.rmdir(name, dir_fd=fd)
        self._meter.add(Tally.DELETED)
        return True

    @contextmanager
    def _doomed(self, fd: int, name: str, path: str) -> Generator[int]:
        """Open a directory that is to be deleted.

        Raises:
            Refused: it is an allowed root, or too deep.
            OSError: it is the top of another file system, which is not this task's to empty.

        """
        if path.count("/") >= MAX_DEPTH:
            message = f"{path}: more than {MAX_DEPTH} directories below each other are not deleted"
            raise Refused(message, error_class="too_deep")
        with _opened(fd, name) as below:
            status = os.fstat(below)
            if identity(status) in self.roots:
                message = f"{path} is an allowed root and is never deleted; exclude it"
                raise Refused(message, error_class="root_refused")
            if status.st_dev != os.fstat(fd).st_dev:
                raise OSError(errno.EXDEV, "another file system is mounted here; exclude it")
            yield below

    def _before_delete(self) -> None:
        self._guard.check()
        if self._meter.count(Tally.DELETED) >= self._limit:
            raise self._too_many()

    def _extras_below(
        self, source_fd: int, target_fd: int, folder: str, fail: Fail, *, restore: bool = False
    ) -> Generator[tuple[int, str, str]]:
        """Yield (directory, name, path of the directory) of each entry the source lacks.

        With `restore` a directory gets back the time that its deleted entries changed.
        """
        extras, shared = self._compare(source_fd, target_fd, folder)
        for name in extras:
            yield target_fd, name, folder
        for name in shared:
            path = _join(folder, name)
            try:
                with _opened(source_fd, name) as source, _opened(target_fd, name) as target:
                    yield from self._extras_below(source, target, path, fail, restore=restore)
            except OSError as error:
                fail(path, error)
        if restore and (extras or not folder) and Preserve.MTIME in self._request.options.preserve:
            status = os.fstat(source_fd)
            with suppress(PermissionError):  # somebody else's directory: they decide
                os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _compare(self, source_fd: int, target_fd: int, folder: str) -> tuple[list[str], list[str]]:
        """Return the names that the source lacks, and those that are directories at both ends."""
        extras: list[str] = []
        shared: list[str] = []
        with os.scandir(target_fd) as entries:
            for entry in entries:
                self._guard.check()
                is_directory = entry.is_dir(follow_symlinks=False)
                if not self._filters.wants(folder, entry.name, is_directory=is_directory):
                    continue
                status = status_at(source_fd, entry.name)
                if status is None:
                    extras.append(entry.name)
                elif is_directory and stat.S_ISDIR(status.st_mode):
                    shared.append(entry.name)
        return extras, shared

    def _wants(self, fd: int, folder: str, name: str) -> bool:
        return self._filters.wants(folder, name, is_directory=_is_directory(fd, name))

    def _too_many(self) -> Refused:
        message = (
            f"more than {self._limit} entries of the destination would be deleted; "
            "check the source, or raise max_delete"
        )
        return Refused(message, error_class="max_delete")


@contextmanager
def _opened(fd: int, name: str) -> Generator[int]:
    below = os.open(name, READ_DIRECTORY, dir_fd=fd)
    try:
        yield below
    finally:
        os.close(below)


def _is_directory(fd: int, name: str) -> bool:
    status = status_at(fd, name)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
