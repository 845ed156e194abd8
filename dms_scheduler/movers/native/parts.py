"""Copies a big file in parts, which several executors share and the next attempt goes on with.

The copy lies beside its final name as `.dms-part.<task>.<hash of the name>`, with its journal. A
part is copied, read back if that is asked for, written to storage, and noted in the journal.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from dms_scheduler.movers.contract import Fsync, MoveOptions, MoveRequest, Preserve, Verify
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.guard import Brake
from dms_scheduler.movers.native import journal
from dms_scheduler.movers.native.content import clone
from dms_scheduler.movers.native.filecopy import (
    NEW_FILE,
    Ends,
    FileCopier,
    FilePace,
    changed_while_read,
    mismatch,
    open_with_status,
)
from dms_scheduler.movers.native.journal import NO_DIGEST, SourceId, may_be_ours
from dms_scheduler.movers.native.meter import Ledger, Tally
from dms_scheduler.movers.native.records import FilePlan, Outcome, child
from dms_scheduler.movers.native.spans import (
    Copied,
    EarlyPace,
    copy_and_reread,
    copy_range,
    digest_range,
    is_memory,
    write_back,
)
from dms_scheduler.movers.native.sparse import copy_sparse, has_holes, sparse_digest
from dms_scheduler.movers.patterns import journal_name, part_name
from dms_scheduler.movers.results import Action

BIG_BYTES = 128 << 20
"""From this size on a file is copied in parts."""

_PART_BYTES = 64 << 20
_MOST_PARTS = 1024
_MIB = 1 << 20
_OPEN_PART = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
_KEPT = Outcome("", None)


class Layout(NamedTuple):
    """How a file is cut, and what it was when that was decided."""

    source: SourceId
    part_size: int
    cloned: bool  # it shares the source's blocks: nothing to copy, only to read back

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.source.size // self.part_size)

    def size_of(self, index: int) -> int:
        """Return the bytes of a part."""
        return min(self.part_size, self.source.size - index * self.part_size)


class Begun(NamedTuple):
    """A file that was begun: its layout, and the parts that have still to be copied."""

    layout: Layout
    todo: list[int]


class PartCopier:
    """Does the steps of big files that it is asked for, in one process."""

    def __init__(
        self, request: MoveRequest, copier: FileCopier, brake: Brake, ledger: Ledger
    ) -> None:
        self._task_id = request.task_id
        self._options: MoveOptions = request.options
        self._copier = copier
        self._brake = brake
        self._ledger = ledger
        self._hashed = request.options.verify is Verify.TRANSFERRED
        self._synced = request.options.fsync is not Fsync.NONE

    def begin(self, ends: Ends, plan: FilePlan, accounted: int, pause: float) -> Begun:
        """Open or make the copy of a file; wait `pause` seconds before.

        `accounted` is what this run has copied or kept of it already. Raises OSError, FileProblem.
        """
        self._brake.pause(pause)
        source, status = open_with_status(ends.source_fd, plan.name)
        try:
            layout = Layout(SourceId.of(status), _part_size(status.st_size), cloned=False)
            todo = self._todo_of_kept(ends, plan, status, layout)
            if todo is None:
                layout = layout._replace(cloned=self._make(ends, plan, source, layout))
                todo = list(range(layout.parts))
        finally:
            os.close(source)
        if layout.cloned and not self._hashed:
            self._ledger.moved(status.st_size)
            todo = []
            left = status.st_size
        else:
            left = sum(map(layout.size_of, todo))
        self._ledger.expect_more(left - (plan.size - accounted))
        return Begun(layout, todo)

    def _make(self, ends: Ends, plan: FilePlan, source: int, layout: Layout) -> bool:
        """Make an empty copy; return whether it is a clone already."""
        name = part_name(self._task_id, plan.target)
        discard(ends.target_fd, self._task_id, plan.target)
        fd = os.open(name, NEW_FILE, self._copier.new_mode, dir_fd=ends.target_fd)
        try:
            if clone(source, fd):
                return True
            os.ftruncate(fd, layout.source.size)
        finally:
            os.close(fd)
        first = self._header(layout)
        journal.begin(ends.target_fd, journal_name(self._task_id, plan.target), first)
        return False

    def _header(self, layout: Layout) -> str:
        return journal.header(
            layout.source, layout.part_size, hashed=self._hashed, synced=self._synced
        )

    def _todo_of_kept(
        self, ends: Ends, plan: FilePlan, status: os.stat_result, layout: Layout
    ) -> list[int] | None:
        """Return what is left to do of a copy that an earlier attempt began, None without one."""
        name = journal_name(self._task_id, plan.target)
        done = journal.read(ends.target_fd, name, self._header(layout))
        if not done:
            return None
        try:
            with self._opened(ends, plan) as fd:
                there = os.fstat(fd)
                if there.st_size != status.st_size:
                    return None
                self._ledger.begin(child(ends.path, plan.name), status.st_size)
                return [
                    index
                    for index in range(layout.parts)
                    if index not in done or not self._holds(fd, status, layout, index, done[index])
                ]
        except OSError:
            return None
        finally:
            self._ledger.end()

    def _holds(
        self, fd: int, status: os.stat_result, layout: Layout, index: int, digest: str
    ) -> bool:
        """Say whether a part that was kept is still what it was."""
        if not self._hashed:
            return digest == NO_DIGEST
        return self._digest(fd, status, layout, index) == digest

    def _digest(self, fd: int, status: os.stat_result, layout: Layout, index: int) -> str:
        start = index * layout.part_size
        end = start + layout.size_of(index)
        pace = self._copier.pace()
        if self._sparse(status):
            return sparse_digest(fd, start, end, pace).hex()
        return digest_range(fd, start, end, pace).hex()

    def part(self, ends: Ends, plan: FilePlan, layout: Layout, index: int) -> int:
        """Copy a part; return its bytes. Raises OSError, FileProblem."""
        self._ledger.begin(child(ends.path, plan.name), layout.size_of(index))
        pace = self._copier.pace()
        try:
            self._part(ends, plan, layout, index, pace)
        except (OSError, FileProblem):
            self._ledger.expect_more(pace.moved)
            raise
        finally:
            self._ledger.end()
        return layout.size_of(index)

    def _part(self, ends: Ends, plan: FilePlan, layout: Layout, index: int, pace: FilePace) -> None:
        source, status = open_with_status(ends.source_fd, plan.name)
        try:
            _require_same(status, layout.source)
            with self._opened(ends, plan) as fd:
                digest = self._fill(source, status, fd, layout, index, pace)
                _require_same(os.fstat(source), layout.source)
        finally:
            os.close(source)
        if not layout.cloned:
            name = journal_name(self._task_id, plan.target)
            journal.add(ends.target_fd, name, index, digest)

    def _fill(
        self,
        source: int,
        status: os.stat_result,
        fd: int,
        layout: Layout,
        index: int,
        pace: FilePace,
    ) -> str:
        if layout.cloned:
            pace.after(layout.size_of(index))
            digest = bytes.fromhex(self._digest(source, status, layout, index))
            copied = Copied(layout.size_of(index), digest)
        else:
            copied = self._copy(source, status, fd, layout, index, pace)
        if copied.digest is None:
            return NO_DIGEST
        reread = copied.reread or bytes.fromhex(self._digest(fd, status, layout, index))
        if reread != copied.digest:
            raise mismatch()
        return copied.digest.hex()

    def _copy(
        self,
        source: int,
        status: os.stat_result,
        fd: int,
        layout: Layout,
        index: int,
        pace: FilePace,
    ) -> Copied:
        """Copy a part and have it on storage, as far as that is asked for."""
        start = index * layout.part_size
        end = start + layout.size_of(index)
        in_memory = is_memory(fd)
        synced = self._synced and not in_memory
        early = EarlyPace(pace, fd, start) if synced else pace
        if self._sparse(status):
            copied = copy_sparse(source, fd, start, end, early, hashed=self._hashed)
        elif self._hashed and in_memory:
            copied = copy_and_reread(source, fd, start, end, pace)
        else:
            copied = copy_range(source, fd, start, end, early, hashed=self._hashed)
        if copied.size != end - start:
            raise changed_while_read()
        if synced:
            write_back(fd, start, end, pace, drop=self._hashed)
        return copied

    def _sparse(self, status: os.stat_result) -> bool:
        return Preserve.SPARSE in self._options.preserve and has_holes(status)

    def end(self, ends: Ends, plan: FilePlan, layout: Layout, copied: int) -> Outcome:
        """Give a complete copy its attributes and its name; `copied` bytes are this run's.

        Raises OSError, FileProblem.
        """
        temporary = part_name(self._task_id, plan.target)
        source, status = open_with_status(ends.source_fd, plan.name)
        try:
            _require_same(status, layout.source)
            with self._opened(ends, plan) as fd:
                self._copier.complete(source, status, fd, status.st_size)
                placed = self._copier.place(ends.target_fd, temporary, plan.target, status)
        finally:
            os.close(source)
        discard(ends.target_fd, self._task_id, plan.target)
        if not placed:
            self._ledger.add(Tally.SKIPPED)
            return _KEPT
        self._ledger.add(Tally.FILES)
        self._ledger.add(Tally.BYTES, copied)
        return Outcome(Action.COPY.value, status.st_size)

    @contextmanager
    def _opened(self, ends: Ends, plan: FilePlan) -> Generator[int]:
        name = part_name(self._task_id, plan.target)
        fd = os.open(name, _OPEN_PART, dir_fd=ends.target_fd)
        try:
            if not may_be_ours(fd, ends.target_fd):
                message = "something else lies where its copy was begun"
                raise FileProblem(message, error_class="changed_during_copy")
            yield fd
        finally:
            os.close(fd)


def discard(fd: int, task_id: str, target: str) -> None:
    """Remove what there is of a copy in parts, in the directory `fd`."""
    for name in (part_name(task_id, target), journal_name(task_id, target)):
        with suppress(OSError):  # what stays is swept by a later task
            os.unlink(name, dir_fd=fd)


def _part_size(size: int) -> int:
    """Return a multiple of a MiB: 64 MiB, more where that would make too many parts."""
    return max(_PART_BYTES, -(-size // (_MOST_PARTS * _MIB)) * _MIB)


def _require_same(status: os.stat_result, source: SourceId) -> None:
    if SourceId.of(status) != source:
        raise changed_while_read()
