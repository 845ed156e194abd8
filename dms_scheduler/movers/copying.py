"""The pass that acts: makes directories and links, and feeds files to the copying threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from dms_scheduler.movers.compare import Verdict, mode_of, settled
from dms_scheduler.movers.contract import MoveOptions, Overwrite, Preserve
from dms_scheduler.movers.crew import Crew
from dms_scheduler.movers.durable import Devices
from dms_scheduler.movers.filecopy import FileCopier, FileProblem
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.meter import Meter, Tally
from dms_scheduler.movers.paths import READ_DIRECTORY
from dms_scheduler.movers.patterns import Filters
from dms_scheduler.movers.plan import conflict, look, may_replace_kind
from dms_scheduler.movers.removal import Removal
from dms_scheduler.movers.tree import Folder, Item, open_below

Fail = Callable[[str, OSError | FileProblem], None]


class FileJob(NamedTuple):
    """A file for the crew; its folder is retained until the job is done."""

    item: Item
    target_fd: int
    verdict: Verdict
    target: os.stat_result | None


class Copying:
    """Brings the destination to what the source is, deleting nothing but what is in the way."""

    def __init__(
        self,
        *,
        options: MoveOptions,
        filters: Filters,
        guard: Guard,
        meter: Meter,
        copier: FileCopier,
        removal: Removal,
        devices: Devices,
        fail: Fail,
    ) -> None:
        self._options = options
        self._filters = filters
        self._guard = guard
        self._meter = meter
        self._copier = copier
        self._removal = removal
        self._devices = devices
        self._fail = fail

    def run(self, items: Iterable[Item]) -> None:
        """Handle all items; returns when every file is done.

        Raises:
            MoverError, and whatever the control raises: the run must end.

        """
        with self.crew() as crew:
            for item in items:
                try:
                    self._handle(item, crew)
                except (OSError, FileProblem) as error:
                    self._fail(item.path, error)

    def crew(self) -> Crew[FileJob]:
        """Return threads for this pass's files."""
        return Crew(
            self._options.transfers, self._guard, self._work, lambda job: job.item.folder.release()
        )

    def _handle(self, item: Item, crew: Crew[FileJob]) -> None:
        verdict, target = look(item, self._options)
        if target is not None:
            self._meter.add(Tally.CHECKS)
        if verdict is Verdict.CONFLICT:
            verdict, target = self._make_place(item)
        if verdict is Verdict.SKIP:
            self._meter.add(Tally.SKIPPED)
        elif verdict is Verdict.SPECIAL:
            self._meter.add(Tally.SPECIAL)
        else:
            self._act(item, verdict, target, crew)

    def _act(
        self,
        item: Item,
        verdict: Verdict,
        target: os.stat_result | None,
        crew: Crew[FileJob],
    ) -> None:
        target_fd = self.ensure(item.folder)
        if verdict is Verdict.LINK:
            made = self._copier.link(item, target_fd)
            self._meter.add(Tally.LINKS if made else Tally.SKIPPED)
        elif verdict is Verdict.UPDATE:
            self._copier.update(item, target_fd)
            self._meter.add(Tally.UPDATED)
        else:
            item.folder.retain()
            crew.submit(FileJob(item, target_fd, verdict, target))

    def _make_place(self, item: Item) -> tuple[Verdict, os.stat_result | None]:
        fd = item.folder.target_fd
        if fd is None or not may_replace_kind(self._options):
            raise conflict()
        if not self._removal.delete(fd, item.target, item.folder.path):
            raise conflict()
        return look(item, self._options)

    def _work(self, job: FileJob) -> None:
        try:
            self._meter.working_on(job.item.path)
            self._transfer(job)
        except (OSError, FileProblem) as error:
            self._fail(job.item.path, error)
        finally:
            job.item.folder.release()

    def _transfer(self, job: FileJob) -> None:
        if job.verdict is Verdict.CHECK and job.target is not None:
            if self._settle(job.item, job.target_fd, job.target):
                return
            self._meter.expect_more(job.item.status.st_size, files=1)
        self._copier.copy(job.item, job.target_fd)
        self._meter.add(Tally.FILES)

    def _settle(self, item: Item, target_fd: int, target: os.stat_result) -> bool:
        """Compare by content; return whether nothing has to be copied."""
        if not self._copier.same_content(item, target_fd):
            return False
        verdict = settled(item.status, target, self._options)
        if verdict is Verdict.UPDATE:
            self._copier.update(item, target_fd)
            self._meter.add(Tally.UPDATED)
        elif verdict is Verdict.SKIP:
            self._meter.add(Tally.SKIPPED)
        return verdict is not Verdict.COPY

    def counterpart(self, parent: Folder, name: str) -> int | None:
        """Open a directory's counterpart; raises OSError."""
        try:
            return open_below(parent.target_fd, name)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP} or parent.target_fd is None:
                raise
            if not may_replace_kind(self._options):
                raise conflict() from error
            if not self._removal.delete(parent.target_fd, name, parent.path):
                raise conflict() from error
            return None

    def entered(self, folder: Folder) -> None:
        """See a folder before its content: make its counterpart if it is wanted for its own sake,
        and allow this user to write into one that is there; raises OSError."""
        if folder.target_fd is None:
            if self._filters.selects(folder.path):
                self.ensure(folder)
            return
        self._devices.add(folder.target_fd)
        status = os.fstat(folder.target_fd)
        if status.st_mode & 0o300 != 0o300 and status.st_uid == os.geteuid():
            folder.loosened = status.st_mode & 0o7777
            os.fchmod(folder.target_fd, folder.loosened | 0o700)

    def ensure(self, folder: Folder) -> int:
        """Return the counterpart of a folder, made with its parents if it is not there.

        Called by the walking thread alone; raises OSError.
        """
        if folder.target_fd is None:
            if folder.parent is None:
                message = "the top of the destination is always open"
                raise AssertionError(message)
            folder.target_fd = self._make(self.ensure(folder.parent), folder.name)
            folder.made = True
            self._devices.add(folder.target_fd)
        return folder.target_fd

    def _make(self, parent_fd: int, name: str) -> int:
        self._guard.check()
        # Nobody else may look in before the final mode is set.
        mode = 0o700 if Preserve.MODE in self._options.preserve else 0o777
        with suppress(FileExistsError):  # the open below refuses what is no directory
            os.mkdir(name, mode, dir_fd=parent_fd)
            self._meter.add(Tally.DIRS)
        return os.open(name, READ_DIRECTORY, dir_fd=parent_fd)

    def finish(self, folder: Folder) -> None:
        """Give a directory whose content is complete the attributes of its source."""
        if folder.target_fd is None:
            return
        try:
            self._guard.check()
            self._finish(folder, folder.target_fd)
        except BaseException as error:  # noqa: BLE001 - raised again by the run's own thread
            self._guard.stop(error)
            self.restore(folder)

    def restore(self, folder: Folder) -> None:
        """Give a counterpart the mode back that `entered` changed, and no other attribute."""
        if folder.loosened is not None and folder.target_fd is not None:
            with suppress(OSError):  # changed by its owner meanwhile; the run's outcome counts
                os.fchmod(folder.target_fd, folder.loosened)

    def _finish(self, folder: Folder, target_fd: int) -> None:
        try:
            self._set_attributes(folder, target_fd)
        except OSError as error:
            # A directory that was there and is somebody else's: they decide, its content is right.
            if folder.made or error.errno != errno.EPERM:
                self._fail(folder.path, error)

    def _set_attributes(self, folder: Folder, target_fd: int) -> None:
        source, target = os.fstat(folder.source_fd), os.fstat(target_fd)
        keep = self._options.overwrite is Overwrite.NEVER and not folder.made
        mode = folder.loosened
        if Preserve.MODE in self._options.preserve and not keep:
            mode = mode_of(source)
        if mode is not None and mode != target.st_mode & 0o7777:
            os.fchmod(target_fd, mode)
        wanted = Preserve.MTIME in self._options.preserve and not keep
        if wanted and source.st_mtime_ns != target.st_mtime_ns:
            os.utime(target_fd, ns=(source.st_atime_ns, source.st_mtime_ns))
