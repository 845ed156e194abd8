"""The first pass over both trees: writes down what a run will do, and refuses before it begins.

A dry run ends with it, so its report is made here; a run's is made by who acts. Both come from the
same decisions.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, closing
from typing import NamedTuple

from dms_scheduler.movers.contract import MoveOptions, MoveRequest, Overwrite
from dms_scheduler.movers.durable import Devices
from dms_scheduler.movers.errors import FileProblem, Refused, empty_source
from dms_scheduler.movers.native.compare import Verdict, judge, links_differ
from dms_scheduler.movers.native.endpoints import Source, Target
from dms_scheduler.movers.native.filecopy import Ends, link_at
from dms_scheduler.movers.native.finishing import folder_differs, must_loosen
from dms_scheduler.movers.native.handling import FileHandler, look_at_xattrs
from dms_scheduler.movers.native.hardlinks import Families
from dms_scheduler.movers.native.leftovers import Leftovers
from dms_scheduler.movers.native.meter import Tally
from dms_scheduler.movers.native.parts import BIG_BYTES
from dms_scheduler.movers.native.records import (
    FilePlan,
    FinishPlan,
    FolderPlan,
    HardlinkPlan,
    Identity,
    RemovalPlan,
    child,
)
from dms_scheduler.movers.native.removal import RemovalPlanner
from dms_scheduler.movers.native.session import Session
from dms_scheduler.movers.native.spool import Spool
from dms_scheduler.movers.native.tree import Folder, Item, Opener, Visit, open_below, walk
from dms_scheduler.movers.native.worklist import Worklist
from dms_scheduler.movers.paths import identity, status_at
from dms_scheduler.movers.patterns import Filters, journal_name, part_name
from dms_scheduler.movers.results import MAX_FAILED_PATHS, Action, ReportEntry, Totals

_EXPECT_EVERY = 64
_FILES, _BYTES = Tally.FILES, Tally.BYTES
_PASSED = (Tally.CHECKS, Tally.SKIPPED, Tally.SPECIAL)  # what is done with by being seen
_COPY, _CHECK = Verdict.COPY, Verdict.CHECK
_COPY_VALUE = _COPY.value


class Plan:
    """What a run has to do, in the order in which it is done."""

    def __init__(self) -> None:
        self.work = Worklist()
        self.hardlinks = Spool()
        self.removals = Spool()
        self.finish = Spool()
        self.files = 0  # of every kind that a handler takes
        self.bytes = 0  # of those that may have to be copied

    def close(self) -> None:
        """Forget all."""
        for spool in (self.work, self.hardlinks, self.removals, self.finish):
            spool.close()


class _State(NamedTuple):
    """What is known of a folder that is being planned."""

    source: os.stat_result
    target: os.stat_result | None
    parts: set[str]  # copies of big files that an earlier attempt began there


class Planner:
    """Walks both trees once; of one call."""

    def __init__(
        self,
        request: MoveRequest,
        session: Session,
        filters: Filters,
        handler: FileHandler,
        devices: Devices,
        roots: frozenset[Identity],
    ) -> None:
        self.counts = dict.fromkeys(Tally, 0)
        self.sample: list[ReportEntry] = []
        self.doomed_failures = 0  # of what is only to be deleted: no reason to keep the rest
        self._options: MoveOptions = request.options
        self._task_id = request.task_id
        self._dry = request.options.dry_run
        self._session = session
        self._filters = filters
        self._handler = handler
        self._devices = devices
        self._leftovers = Leftovers(request, session.guard)
        self._removals = RemovalPlanner(
            request,
            filters,
            session,
            roots,
            self._remove,
            self._leftovers.sweep_doomed,
            self._fail_doomed,
        )
        self._families = Families(request.options)
        self._plan = Plan()
        self._states: dict[Folder, _State] = {}
        self._written: set[Folder] = set()  # of those in _states
        self._current: Folder | None = None
        self._extras_in: Folder | None = None
        self._told = dict.fromkeys(_PASSED, 0)  # of the counts, to the meter
        self._seen = 0
        self._holds_data = False
        self._refusal: Refused | None = None
        self._keeps_top = False

    def plan(self, source: Source, target: Target, stack: ExitStack) -> Plan:
        """Return the plan; `stack` closes it.

        Raises:
            Refused: too much would be deleted, or the source is empty or holds the destination.

        """
        stack.callback(self._plan.close)
        stack.callback(self._families.close)
        # A root, and the directory that a single file goes to, are not what the task is about.
        self._keeps_top = source.name is not None or target.is_root
        opener = Opener(
            forbidden=None if target.fd is None else identity(os.fstat(target.fd)),
            counterpart=self._counterpart,
            fail=self._session.fail,
            entered=self._entered if source.name is None else self._entered_for_file,
            on_done=self._done,
        )
        top = opener.open_top(source.fd, target.fd)
        try:
            if source.name is None:
                self._take_all(top, opener)
            else:
                self._take_one(Item(top, source.name, target.name or source.name, source.status))
        finally:
            self._tell_passed()
        self._refuse()
        self._expect(known=not self._undecided)
        return self._plan

    @property
    def totals(self) -> Totals:
        """What the run will do, as far as it is known without reading files."""
        return Totals(**{tally.value: count for tally, count in self.counts.items()})

    @property
    def _undecided(self) -> bool:
        return self._plan.bytes > self.counts[_BYTES]

    def _take_all(self, top: Folder, opener: Opener) -> None:
        visit = Visit(
            filters=self._filters,
            guard=self._session.guard,
            fail=self._session.fail,
            enter=opener.enter,
        )
        with closing(walk(top, visit)) as items:
            for item in items:
                self._take(item)

    def _take_one(self, item: Item) -> None:
        try:
            self._take(item)
        finally:
            item.folder.release()

    def _take(self, item: Item) -> None:
        self._seen += 1
        mode = item.status.st_mode
        # A FIFO or a socket is left out, so it does not say that the source is mounted.
        self._holds_data = self._holds_data or stat.S_ISREG(mode) or stat.S_ISLNK(mode)
        try:
            self._decide(item)
        except (OSError, FileProblem) as error:
            self._session.fail(item.path, error)
        if self._seen % _EXPECT_EVERY == 0:
            self._session.meter.working_on(item.path)
            self._expect(known=False)
            self._tell_passed()

    def _expect(self, *, known: bool) -> None:
        self._session.meter.expect(self.counts[_FILES], self.counts[_BYTES], known=known)

    def _tell_passed(self) -> None:
        for tally in _PASSED:
            self._session.meter.add(tally, self.counts[tally] - self._told[tally])
            self._told[tally] = self.counts[tally]

    def _refuse(self) -> None:
        options = self._options
        if options.delete and not self._holds_data and not options.allow_empty_src:
            raise empty_source()
        if self._refusal:
            raise self._refusal

    # ---- files

    def _decide(self, item: Item) -> None:
        fd = item.folder.target_fd
        target = None if fd is None else status_at(fd, item.target)
        verdict = judge(item.status, target, self._options)
        if target is not None and fd is not None:
            self.counts[Tally.CHECKS] += 1
            verdict, target = self._look_closer(item, fd, target, verdict)
        if self._families.concerns(item.status):
            leader = self._families.leader_for(item.status, target, verdict, self._placed(item))
            if leader is not None:
                self._join(item, leader)
                return
        if verdict is Verdict.SKIP:
            self.counts[Tally.SKIPPED] += 1
        elif verdict is Verdict.SPECIAL:
            self.counts[Tally.SPECIAL] += 1
            self._session.report(ReportEntry(action=Action.SPECIAL, path=item.path))
        else:
            self._do(item, verdict)

    def _look_closer(
        self, item: Item, fd: int, target: os.stat_result, verdict: Verdict
    ) -> tuple[Verdict, os.stat_result | None]:
        """Settle what statuses alone cannot say; return the verdict and what stays there."""
        if verdict is Verdict.CONFLICT:
            self._make_place(item.folder, item.target)
            return judge(item.status, None, self._options), None
        if verdict is Verdict.LINK:
            return self._look_at_link(item, fd, target), target
        if verdict is Verdict.CHECK and self._dry:
            ends = Ends(item.folder.path, item.folder.source_fd, fd)
            return self._handler.verdict_by_content(ends, _file_plan(item, verdict)), target
        if verdict is Verdict.SKIP:
            ends = Ends(item.folder.path, item.folder.source_fd, fd)
            names = (item.name, item.target)
            return look_at_xattrs(self._options, ends, names, item.status, target), target
        return verdict, target

    def _look_at_link(self, item: Item, fd: int, target: os.stat_result) -> Verdict:
        points_to = os.readlink(item.name, dir_fd=item.folder.source_fd)
        if link_at(fd, item.target) != points_to:
            return Verdict.LINK
        if not links_differ(item.status, target, self._options):
            return Verdict.SKIP
        # As with files: what has other names too is replaced, not changed.
        return Verdict.UPDATE if target.st_nlink == 1 else Verdict.LINK

    def _do(self, item: Item, verdict: Verdict) -> None:
        folder, size = item.folder, item.status.st_size
        if self._current is not folder:
            self._ensure(folder)
        self._plan.files += 1
        if verdict is _COPY:
            if size >= BIG_BYTES:
                self._keep_parts(item)
            self._plan.bytes += size
            self.counts[_FILES] += 1
            self.counts[_BYTES] += size
        elif verdict is _CHECK:
            self._plan.bytes += size
        else:
            self.counts[Tally.LINKS if verdict is Verdict.LINK else Tally.UPDATED] += 1
        if self._dry:
            self._note_file(item, verdict)
            return
        if self._current is not folder:
            self._write_folder(folder)
        if verdict is not _COPY:
            self._plan.work.add_file((item.name, item.target, verdict.value, size))
        elif size < BIG_BYTES:
            self._plan.work.add_file((item.name, item.target, _COPY_VALUE, size))
        else:
            self._plan.work.add_big((item.name, item.target, _COPY_VALUE, size))

    def _keep_parts(self, item: Item) -> None:
        task_id = self._task_id
        kept = (part_name(task_id, item.target), journal_name(task_id, item.target))
        self._states[item.folder].parts.difference_update(kept)

    def _note_file(self, item: Item, verdict: Verdict) -> None:
        if verdict is Verdict.COPY:
            self._note(Action.COPY, item.path, item.status.st_size)
        else:
            self._note(Action.LINK if verdict is Verdict.LINK else Action.UPDATE, item.path)

    def _join(self, item: Item, leader: str) -> None:
        self._ensure(item.folder)
        self.counts[Tally.HARDLINKS] += 1
        size = item.status.st_size
        self._note(Action.HARDLINK, item.path, size)
        if not self._dry:
            record = HardlinkPlan(item.folder.path, item.name, item.target, leader, size)
            self._plan.hardlinks.write(tuple(record))

    def _placed(self, item: Item) -> str:
        return child(item.folder.path, item.target)

    def _note(self, action: Action, path: str, size: int | None = None) -> None:
        """Report in a dry run what a run would do."""
        if not self._dry:
            return
        entry = ReportEntry(action=action, path=path, size=size)
        self._session.report(entry)
        if len(self.sample) < MAX_FAILED_PATHS:
            self.sample.append(entry)

    # ---- folders

    def _counterpart(self, parent: Folder, name: str) -> int | None:
        """Open a directory's counterpart; what is in its place is removed if that is allowed."""
        try:
            return open_below(parent.target_fd, name)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP} or parent.target_fd is None:
                raise
            self._make_place(parent, name)
            return None

    def _make_place(self, folder: Folder, name: str) -> None:
        allowed = self._options.delete and self._options.overwrite is not Overwrite.NEVER
        if folder.target_fd is None or not allowed:
            raise _conflict()
        self._ensure(folder)
        try:
            made = self._removals.in_the_way(folder.target_fd, name, folder.path)
        except Refused as refusal:
            self._refusal = self._refusal or refusal
            return
        if not made:
            raise _conflict()

    def _entered_for_file(self, folder: Folder) -> None:
        """See the directory that a single file goes to: nothing else in it is looked at."""
        fd = folder.target_fd
        parts = set[str]() if fd is None else self._leftovers.sweep(fd)
        target = None if fd is None else os.fstat(fd)
        self._states[folder] = _State(os.fstat(folder.source_fd), target, parts)
        if folder.target_fd is not None:
            self._devices.add(folder.target_fd)

    def _entered(self, folder: Folder) -> None:
        """See a folder before its content; raises OSError."""
        fd = folder.target_fd
        if fd is None:
            self._states[folder] = _State(os.fstat(folder.source_fd), None, set())
            if self._filters.selects(folder.path):
                self._ensure(folder)
            return
        parts = self._leftovers.sweep(fd)
        self._leftovers.sweep_below(folder.source_fd, fd, folder.path)
        self._states[folder] = _State(os.fstat(folder.source_fd), os.fstat(fd), parts)
        if not self._dry:
            self._devices.add(fd)
        if self._options.delete and self._refusal is None:
            self._plan_extras(folder, fd)

    def _plan_extras(self, folder: Folder, fd: int) -> None:
        self._extras_in = folder
        try:
            self._removals.extras(folder.source_fd, fd, folder.path)
        except Refused as refusal:
            self._refusal = refusal

    def _fail_doomed(self, path: str, error: OSError) -> None:
        self.doomed_failures += 1
        self._session.fail(path, error)

    def _remove(self, plan: RemovalPlan) -> None:
        self.counts[Tally.DELETED] += 1
        path = child(plan.folder, plan.name)
        self._note(Action.DELETE, path)
        if self._dry:
            return
        if plan.lacked is None:
            self._plan.work.add_removal(plan)
            return
        if plan.lacked == path and self._extras_in:
            self._ensure(self._extras_in)
        self._plan.removals.write(tuple(plan))

    def _ensure(self, folder: Folder) -> None:
        """Plan that a folder is there and may be written into, those above it first."""
        if folder in self._written:
            return
        if folder.parent and folder.target_fd is None:
            self._ensure(folder.parent)
        self._written.add(folder)
        if folder.target_fd is None and folder.parent:  # a run has made the top before it plans
            self.counts[Tally.DIRS] += 1
            self._note(Action.MKDIR, folder.path)
        if not self._dry:
            self._write_folder(folder)

    def _write_folder(self, folder: Folder) -> None:
        state = self._states[folder]
        target = None if state.target is None else identity(state.target)
        self._plan.work.add_folder(FolderPlan(folder.path, identity(state.source), target))
        self._current = folder

    def _done(self, folder: Folder) -> None:
        """Plan how a folder is finished; all below it has been."""
        state = self._states.pop(folder, None)
        written = folder in self._written
        self._written.discard(folder)
        if state is None or self._dry or self._session.guard.cause is not None:
            return
        try:
            if folder.target_fd is not None:
                self._leftovers.remove(folder.target_fd, state.parts)
            plan = self._finish_plan(folder, state, written=written)
        except OSError as error:
            self._session.fail(folder.path, error)
            return
        if plan is not None:
            self._plan.finish.write(tuple(plan))

    def _finish_plan(self, folder: Folder, state: _State, *, written: bool) -> FinishPlan | None:
        there = state.target
        kept = (not folder.path and self._keeps_top) or (
            there is not None and self._options.overwrite is Overwrite.NEVER
        )
        source = identity(state.source)
        if there is None or folder.target_fd is None:
            return FinishPlan(folder.path, source, True, None, not kept) if written else None
        ends = (folder.source_fd, folder.target_fd)
        differs = not kept and folder_differs(self._options, ends, state.source, there)
        if not differs and not written:
            return None
        mode = there.st_mode & 0o7777 if written and must_loosen(there) else None
        return FinishPlan(folder.path, source, False, mode, not kept)


def _conflict() -> OSError:
    return OSError(errno.EISDIR, "another kind of file has this name at the destination")


def _file_plan(item: Item, verdict: Verdict) -> FilePlan:
    return FilePlan(item.name, item.target, verdict.value, item.status.st_size)
