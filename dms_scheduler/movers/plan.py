"""The first pass over both trees: counts what a run will do, and refuses before it begins."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from dms_scheduler.movers.compare import Verdict, judge, settled
from dms_scheduler.movers.contract import MoveOptions, Overwrite
from dms_scheduler.movers.filecopy import FileCopier, FileProblem, link_at
from dms_scheduler.movers.meter import Meter, Tally
from dms_scheduler.movers.paths import status_at
from dms_scheduler.movers.removal import Removal
from dms_scheduler.movers.results import MAX_FAILED_PATHS, Action, ReportEntry
from dms_scheduler.movers.tree import Folder, Item, open_below

_EXPECT_EVERY = 256
_ACTIONS = {
    Verdict.COPY: ("copy", Tally.FILES),
    Verdict.CHECK: (None, Tally.CHECKS),
    Verdict.LINK: ("link", Tally.LINKS),
    Verdict.UPDATE: ("update", Tally.UPDATED),
    Verdict.SKIP: (None, Tally.SKIPPED),
    Verdict.SPECIAL: (None, Tally.SPECIAL),
}


def look(item: Item, options: MoveOptions) -> tuple[Verdict, os.stat_result | None]:
    """Say what to do with an entry, and what is at its place now; raises OSError."""
    fd = item.folder.target_fd
    target = None if fd is None else status_at(fd, item.target)
    verdict = judge(item.status, target, options)
    if verdict is Verdict.LINK and fd is not None and target is not None:
        points_to = os.readlink(item.name, dir_fd=item.folder.source_fd)
        if link_at(fd, item.target) == points_to:
            return Verdict.SKIP, target
    return verdict, target


def may_replace_kind(options: MoveOptions) -> bool:
    """Say whether an entry of another kind at the destination may be deleted to make place."""
    return options.delete and options.overwrite is not Overwrite.NEVER


def conflict() -> OSError:
    """Return the error for a directory or file that is in the way."""
    return OSError(errno.EISDIR, "another kind of file has this name at the destination")


class Survey:
    """Counts, in a meter of its own: the run's meter only learns what to expect.

    Failures are reported only by the pass that acts, or by a plan that nothing follows; so `fail`
    is the caller's.
    """

    def __init__(
        self,
        options: MoveOptions,
        meter: Meter,
        copier: FileCopier,
        removal: Removal,
        fail: Callable[[str, OSError | FileProblem], None],
    ) -> None:
        self.counts = Meter()
        self.sample: list[ReportEntry] = []
        self.seen = 0
        self._options = options
        self._meter = meter
        self._copier = copier
        self._removal = removal
        self._fail = fail

    def count(self, items: Iterable[Item]) -> None:
        """Count all items."""
        for item in items:
            self.seen += 1
            try:
                self._count(item)
            except (OSError, FileProblem) as error:
                self._fail(item.path, error)
            if self.seen % _EXPECT_EVERY == 0:
                self._meter.working_on(item.path)
                self._expect(known=False)
        self._expect(known=not self.counts.count(Tally.CHECKS))

    def _expect(self, *, known: bool) -> None:
        counts = self.counts
        self._meter.expect(counts.count(Tally.FILES), counts.count(Tally.BYTES), known=known)

    def _count(self, item: Item) -> None:
        verdict, target = look(item, self._options)
        if verdict is Verdict.CONFLICT:
            verdict = self._make_place(item)
        if verdict is Verdict.CHECK and self._options.dry_run and target is not None:
            verdict = self._checked(item, target)
        action, tally = _ACTIONS[verdict]
        self.counts.add(tally)
        if verdict is Verdict.COPY:
            self.counts.add(Tally.BYTES, item.status.st_size)
        if action:
            self.note(action, item.path)

    def _make_place(self, item: Item) -> Verdict:
        fd = item.folder.target_fd
        if fd is None or not may_replace_kind(self._options):
            raise conflict()
        self._removal.plan_entry(fd, item.target, item.folder.path, self.note_delete)
        return judge(item.status, None, self._options)

    def _checked(self, item: Item, target: os.stat_result) -> Verdict:
        fd = item.folder.target_fd
        if fd is not None and self._copier.same_content(item, fd):
            return settled(item.status, target, self._options)
        return Verdict.COPY

    def counterpart(self, parent: Folder, name: str) -> int | None:
        """Open a directory's counterpart; one that is missing is counted."""
        try:
            fd = open_below(parent.target_fd, name)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP} or parent.target_fd is None:
                raise
            if not may_replace_kind(self._options):
                raise conflict() from error
            self._removal.plan_entry(parent.target_fd, name, parent.path, self.note_delete)
            fd = None
        if fd is None:
            self.counts.add(Tally.DIRS)
            self.note("mkdir", parent.child(name))
        return fd

    def note_delete(self, path: str) -> None:
        """Count a deletion."""
        self.counts.add(Tally.DELETED)
        self.note("delete", path)

    def note(self, action: str, path: str) -> None:
        """Keep the first actions for people to read."""
        if len(self.sample) < MAX_FAILED_PATHS:
            self.sample.append(ReportEntry(action=Action(action), path=path))
