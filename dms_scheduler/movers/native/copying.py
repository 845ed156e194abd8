"""The pass that acts on a plan: makes directories and place, hands files out, joins hard links."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from dms_scheduler.movers.contract import MoveOptions, Preserve
from dms_scheduler.movers.durable import Devices
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.batches import Batch, BatchRunner, Folder
from dms_scheduler.movers.native.bigfiles import BigFile
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.compare import Verdict, judge
from dms_scheduler.movers.native.filecopy import Ends, FileCopier
from dms_scheduler.movers.native.finishing import must_loosen
from dms_scheduler.movers.native.handling import FileHandler, error_of
from dms_scheduler.movers.native.hardlinks import Joined, Name, join
from dms_scheduler.movers.native.meter import Tally
from dms_scheduler.movers.native.records import (
    Done,
    Failure,
    FilePlan,
    FolderPlan,
    GroupPlan,
    HardlinkPlan,
    Kind,
    Outcome,
    RemovalPlan,
    child,
)
from dms_scheduler.movers.native.removal import Remover
from dms_scheduler.movers.native.session import Session
from dms_scheduler.movers.native.spool import Record
from dms_scheduler.movers.paths import identity, status_at
from dms_scheduler.movers.results import Action, ReportEntry

_MOST_UNMADE = 100_000
_COPY = Verdict.COPY.value
_FOLDER, _GROUP, _BIG, _ = (kind.value for kind in Kind)
_ACTIONS = {action.value: action for action in Action}


class Hands(Protocol):
    """Who handles batches of files."""

    def submit(self, batch: Batch) -> None:
        """Have it handled, now or soon; raises to stop."""
        ...

    def submit_big(self, folder: Folder, plan: FilePlan) -> None:
        """Have a big file copied; raises to stop."""
        ...

    def finish(self) -> None:
        """Return when all of them are done; raises to stop."""
        ...

    def stop(self) -> None:
        """End, whatever is left undone."""
        ...


class OwnHands:
    """Handles them at once and in this process: quicker than to fork for a few small files."""

    def __init__(self, runner: BatchRunner, copying: Copying) -> None:
        self._runner = runner
        self._copying = copying

    def submit(self, batch: Batch) -> None:
        """Handle it; raises MoverError when the run must end."""
        done = Done()
        try:
            self._runner.run(batch, done)
        finally:
            self._copying.take(batch, done)

    def submit_big(self, folder: Folder, plan: FilePlan) -> None:
        """Copy a file that is big for this process."""
        batch = Batch()
        batch.add(folder, [plan], 0)
        self.submit(batch)

    def finish(self) -> None:
        """Nothing is under way here."""

    def stop(self) -> None:
        """Nothing is under way here."""


class Copying:
    """Brings the destination to what the source is, deleting nothing but what is in the way."""

    def __init__(
        self,
        options: MoveOptions,
        session: Session,
        tops: tuple[Chain, Chain],
        remover: Remover,
        devices: Devices,
        tools: tuple[FileHandler, FileCopier],
    ) -> None:
        """`tools` are this process's own."""
        self._options = options
        self._session = session
        self._source, self._target = tops
        self._remover = remover
        self._devices = devices
        self._handler, self._copier = tools
        self._folder: Folder | OSError | FileProblem | None = None
        self._broken: tuple[str, OSError | FileProblem] | None = None
        self._unmade: set[str] | None = set()  # what no hard link may be made to; None: anything
        self._batch = Batch()
        self._path = ""

    def run(self, work: Iterable[Record], hands: Hands) -> None:
        """Handle all records; returns when every file is done.

        Raises:
            MoverError, and whatever the control raises: the run must end.

        """
        for kind, *fields in work:
            if kind == _GROUP:
                self._group(GroupPlan._make(fields), hands)
            elif kind == _FOLDER:
                self._enter(FolderPlan._make(fields))
            elif kind == _BIG:
                self._big(FilePlan._make(fields), hands)
            else:
                self._remover.remove(RemovalPlan._make(fields))
        self._hand_over(hands)
        hands.finish()

    def _group(self, group: GroupPlan, hands: Hands) -> None:
        if isinstance(self._folder, Folder):
            self._batch.add(self._folder, group.files, group.weight)
            if self._batch.full:
                self._hand_over(hands)
        else:
            for file in group.files:
                self._fail_with_folder(FilePlan._make(file))

    def _big(self, plan: FilePlan, hands: Hands) -> None:
        if isinstance(self._folder, Folder):
            hands.submit_big(self._folder, plan)
        else:
            self._fail_with_folder(plan)

    def _fail_with_folder(self, plan: FilePlan) -> None:
        if isinstance(self._folder, (OSError, FileProblem)):
            self._note_unmade(child(self._path, plan.target))
            self._session.fail(child(self._path, plan.name), self._folder)

    def _hand_over(self, hands: Hands) -> None:
        batch, self._batch = self._batch, Batch()
        if batch.count:
            hands.submit(batch)

    def take(self, batch: Batch, done: Done) -> None:
        """Take what became of a batch; raises MoverError when the run must end."""
        unusual = dict(done.unusual)
        place = 0
        for folder, files in batch.groups:
            above = f"{folder.path}/" if folder.path else ""
            for file in files[: done.handled - place]:
                what = unusual.get(place) if unusual else None
                if what is None:
                    entry = ReportEntry(Action.COPY, above + file[0], file[3])
                    self._session.report(entry)
                else:
                    self._take_one(folder, FilePlan._make(file), what)
                place += 1

    def _take_one(self, folder: Folder, plan: FilePlan, what: Outcome | Failure) -> None:
        self._note(folder, plan, what)
        path = child(folder.path, plan.name)
        if isinstance(what, Failure):
            self._session.fail(path, error_of(what))
        elif what.action:
            action = _ACTIONS[what.action]
            self._session.report(ReportEntry(action=action, path=path, size=what.size))

    def take_big(self, file: BigFile, what: Outcome | Failure) -> None:
        """Take what became of a big file; raises MoverError when the run must end."""
        self._take_one(file.folder, file.plan, what)

    # ---- directories

    def _enter(self, plan: FolderPlan) -> None:
        """Make the directory, or allow this user to write into it."""
        self._path = plan.path
        if self._broken and not plan.path.startswith(f"{self._broken[0]}/"):
            self._broken = None
        if self._broken:
            self._folder = self._broken[1]
            self._session.fail(plan.path, self._folder)
            return
        try:
            self._folder = self._opened(plan)
        except (OSError, FileProblem) as error:
            self._folder, self._broken = error, (plan.path, error)
            self._session.fail(plan.path, error)

    def _opened(self, plan: FolderPlan) -> Folder:
        if plan.target is None:
            self._make(plan.path)
            fd = self._target.open(plan.path)
        else:
            fd = self._target.open_known(plan.path, plan.target)
        status = os.fstat(fd)
        self._devices.add(fd)
        if must_loosen(status):
            self._session.guard.check()
            os.fchmod(fd, status.st_mode & 0o7777 | 0o700)
        return Folder(plan.path, plan.source, identity(status))

    def _make(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        fd = self._target.open(above)
        self._session.guard.check()
        # Nobody else may look in before the final mode is set.
        mode = 0o700 if Preserve.MODE in self._options.preserve else 0o777
        with suppress(FileExistsError):  # opened next, which refuses what is no directory
            os.mkdir(name, mode, dir_fd=fd)
            self._session.meter.add(Tally.DIRS)
            self._session.report(ReportEntry(action=Action.MKDIR, path=path))

    # ---- hard links

    def _note(self, folder: Folder, plan: FilePlan, what: Outcome | Failure) -> None:
        kept = isinstance(what, Outcome) and not what.action and plan.verdict == _COPY
        if kept or isinstance(what, Failure):
            self._note_unmade(child(folder.path, plan.target))

    def _note_unmade(self, path: str) -> None:
        """Remember a file that failed, or gave way to what was there: not what its names are."""
        if Preserve.HARDLINKS not in self._options.preserve or self._unmade is None:
            return
        self._unmade.add(path)
        if len(self._unmade) > _MOST_UNMADE:
            self._unmade = None

    def join_all(self, plans: Iterable[HardlinkPlan]) -> None:
        """Make the hard links, once what they are links of is there."""
        for plan in plans:
            path = child(plan.folder, plan.name)
            try:
                self._join(plan, path)
            except (OSError, FileProblem) as error:
                self._session.fail(path, error)

    def _join(self, plan: HardlinkPlan, path: str) -> None:
        if self._unmade is None or plan.leader in self._unmade:
            message = f"it is to be a hard link to {plan.leader}, which was not copied; see there"
            raise FileProblem(message, error_class="hardlink_not_made", retryable=False)
        source_fd = self._source.open(plan.folder)
        status = os.stat(plan.name, dir_fd=source_fd, follow_symlinks=False)
        above, _, leader = plan.leader.rpartition("/")
        self._require_same_source(above, leader, status)
        source_fd = self._source.open(plan.folder)
        leader_fd = os.dup(self._target.open(above))
        try:
            target_fd = self._target.open(plan.folder)
            made = join(
                Name(leader_fd, leader),
                Name(target_fd, plan.target),
                self._copier.names.next()[1],
                status,
                self._options.overwrite,
                self._session.guard.check,
            )
        finally:
            os.close(leader_fd)
        if made is Joined.IMPOSSIBLE:
            self._copy_instead(plan, Ends(plan.folder, source_fd, target_fd), status)
            return
        self._session.meter.add(Tally.HARDLINKS if made is Joined.MADE else Tally.SKIPPED)
        if made is Joined.MADE:
            self._session.report(ReportEntry(action=Action.HARDLINK, path=path, size=plan.size))

    def _require_same_source(self, folder: str, leader: str, status: os.stat_result) -> None:
        """Refuse a name that is another file than its leader by now; the names of both ends are
        the same, as a single file has no leader but itself."""
        if identity(os.stat(leader, dir_fd=self._source.open(folder), follow_symlinks=False)) == (
            identity(status)
        ):
            return
        message = "the file changed since it was planned as a hard link; run it once more"
        raise FileProblem(message, error_class="changed_during_copy")

    def _copy_instead(self, plan: HardlinkPlan, ends: Ends, status: os.stat_result) -> None:
        verdict = judge(status, status_at(ends.target_fd, plan.target), self._options)
        if verdict is Verdict.SKIP:  # the copy that an earlier run had to make
            self._session.meter.add(Tally.SKIPPED)
            return
        if verdict is Verdict.CONFLICT:
            raise IsADirectoryError(errno.EISDIR, "a directory has this name at the destination")
        if verdict is Verdict.COPY:
            self._session.meter.expect_more(plan.size, files=1)
        file = FilePlan(plan.name, plan.target, verdict.value, plan.size)
        outcome = self._handler.handle(ends, file) or Outcome(Action.COPY.value, plan.size)
        self._handler.tell()
        if outcome.action:
            action = _ACTIONS[outcome.action]
            path = child(plan.folder, plan.name)
            self._session.report(ReportEntry(action=action, path=path, size=outcome.size))
