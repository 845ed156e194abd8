"""Deletes what the source does not have: counted first, bounded, kept aside if asked for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from dms_scheduler.movers.above import mount_id
from dms_scheduler.movers.contract import MoveRequest, RemoveRequest
from dms_scheduler.movers.errors import Refused
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.meter import Tally
from dms_scheduler.movers.native.records import Identity, RemovalPlan, child
from dms_scheduler.movers.native.session import Session
from dms_scheduler.movers.native.tree import MAX_DEPTH
from dms_scheduler.movers.paths import READ_DIRECTORY, identity, status_at
from dms_scheduler.movers.patterns import BACKUP_NAME, Filters
from dms_scheduler.movers.results import Action, ReportEntry

Fail = Callable[[str, OSError], None]


class Backup:
    """Moves what is deleted to `.dms-deleted/<task>.<epoch>/` at the top of the destination."""

    def __init__(self, top_fd: int, request: MoveRequest | RemoveRequest) -> None:
        """`top_fd` stays the caller's."""
        self._top_fd = top_fd
        self._base = (BACKUP_NAME, f"{request.task_id}.{request.epoch}")

    def keep(self, fd: int, name: str, folder: str) -> None:
        """Move the entry `name` of the directory `fd`, whose path is `folder`; raises OSError."""
        with self.opened(folder) as place:
            os.rename(name, name, src_dir_fd=fd, dst_dir_fd=place)

    def keep_directory(self, path: str) -> None:
        """Keep the directory itself, for one that was empty; raises OSError."""
        with self.opened(path):
            pass

    @contextmanager
    def opened(self, folder: str) -> Generator[int]:
        """Open the directory that keeps what was in `folder`; raises OSError."""
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


class RemovalPlanner:
    """Finds the entries of a destination that the source lacks, or that are in the way.

    What the filters leave out, and DMS's own files, stay; so does a directory that holds any.
    """

    def __init__(
        self,
        request: MoveRequest,
        filters: Filters,
        session: Session,
        roots: frozenset[Identity],
        noted: Callable[[RemovalPlan], None],
        entered: Callable[[int], None],
        fail: Fail,
    ) -> None:
        """`roots` are never deleted, nor deleted from. `noted` gets each entry after all that lies
        below it; `entered` sees each directory that may go, before it is listed; `fail` takes what
        cannot be seen."""
        self._limit = request.options.max_delete
        self._filters = filters
        self._guard = session.guard
        self._roots = roots
        self._fail = fail
        self._noted = noted
        self._entered = entered
        self._found = 0

    def extras(self, source_fd: int, target_fd: int, folder: str) -> None:
        """Plan what lies in `folder` at the destination alone.

        Raises:
            Refused: it is more than `max_delete`, or an allowed root.

        """
        with os.scandir(target_fd) as entries:
            for entry in entries:
                self._guard.check()
                if not self._wants(entry, folder) or status_at(source_fd, entry.name) is not None:
                    continue
                path = child(folder, entry.name)
                try:
                    self.entry(target_fd, entry.name, folder, lacked=path)
                except OSError as error:
                    self._fail(path, error)

    def in_the_way(self, fd: int, name: str, folder: str) -> bool:
        """Plan an entry whose place is needed; False, with nothing planned, if any of it stays.

        Raises:
            Refused, OSError: as `entry`.

        """
        return self._all_meant(fd, name, folder) and self.entry(fd, name, folder, None)

    def _all_meant(self, fd: int, name: str, folder: str) -> bool:
        self._guard.check()
        is_directory = _is_directory(fd, name)
        if not self._filters.wants(folder, name, is_directory=is_directory):
            return False
        if not is_directory:
            return True
        path = child(folder, name)
        with self._doomed(fd, name, path) as below:
            return all(self._all_meant(below, entry, path) for entry in os.listdir(below))

    def entry(self, fd: int, name: str, folder: str, lacked: str | None) -> bool:
        """Plan one entry with all below it; say if all of it would go.

        Raises:
            Refused: as above.
            OSError: it cannot be seen, or is the top of another file system.

        """
        path = child(folder, name)
        self._guard.check()
        is_directory = _is_directory(fd, name)
        if is_directory and not self._content(fd, name, path, lacked):
            return False
        self._found += 1
        if self._found > self._limit:
            raise self._too_many()
        self._noted(RemovalPlan(folder, name, is_directory, lacked))
        return True

    def _content(self, fd: int, name: str, path: str, lacked: str | None) -> bool:
        gone = True
        with self._doomed(fd, name, path) as below:
            self._entered(below)
            with os.scandir(below) as entries:
                for entry in entries:
                    try:  # not in a function of its own: trees are deep, and the stack is not
                        wanted = self._wants(entry, path)
                        gone = (wanted and self.entry(below, entry.name, path, lacked)) and gone
                    except OSError as error:
                        self._fail(child(path, entry.name), error)
                        gone = False
        return gone

    def _wants(self, entry: os.DirEntry[str], folder: str) -> bool:
        is_directory = entry.is_dir(follow_symlinks=False)
        return self._filters.wants(folder, entry.name, is_directory=is_directory)

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
        below = os.open(name, READ_DIRECTORY, dir_fd=fd)
        try:
            status = os.fstat(below)
            if identity(status) in self._roots:
                message = f"{path} is an allowed root and is never deleted; exclude it"
                raise Refused(message, error_class="root_refused")
            # A bind mount of the same file system has the same device.
            if status.st_dev != os.fstat(fd).st_dev or mount_id(below) != mount_id(fd):
                raise OSError(errno.EXDEV, "another file system is mounted here; exclude it")
            yield below
        finally:
            os.close(below)

    def _too_many(self) -> Refused:
        message = (
            f"more than {self._limit} entries of the destination would be deleted; "
            "check the source, or raise max_delete"
        )
        return Refused(message, error_class="max_delete")


class Remover:
    """Deletes exactly what was planned, entry by entry."""

    def __init__(self, session: Session, source: Chain, target: Chain) -> None:
        self._session = session
        self._source = source
        self._target = target
        self._spared: tuple[str, bool] = ("", False)
        self.backup: Backup | None = None

    def remove(self, plan: RemovalPlan) -> bool:
        """Delete one entry; say if it is gone. Failures are recorded.

        Raises:
            MoverError: the run must end.

        """
        path = child(plan.folder, plan.name)
        self._session.guard.check()
        try:
            if plan.lacked is not None and self._has_come(plan.lacked):
                return False
            self._remove(plan, path)
        except OSError as error:
            self._session.fail(path, error)
            return False
        self._session.meter.add(Tally.DELETED)
        self._session.report(ReportEntry(action=Action.DELETE, path=path))
        return True

    def _remove(self, plan: RemovalPlan, path: str) -> None:
        fd = self._target.open(plan.folder)
        self._session.guard.check()
        if not plan.is_directory:
            if self.backup:
                self.backup.keep(fd, plan.name, plan.folder)
            else:
                os.unlink(plan.name, dir_fd=fd)
            return
        if self.backup:
            self.backup.keep_directory(path)
        os.rmdir(plan.name, dir_fd=fd)

    def _has_come(self, path: str) -> bool:
        """Say whether the source has by now what it lacked when it was planned."""
        if self._spared[0] != path:
            folder, _, name = path.rpartition("/")
            come = status_at(self._source.open(folder), name) is not None
            if come:
                self._session.log(f"not deleted, the source has it by now: {path}")
            self._spared = (path, come)
        return self._spared[1]


def _is_directory(fd: int, name: str) -> bool:
    status = status_at(fd, name)
    return status is not None and stat.S_ISDIR(status.st_mode)
