"""The last pass of `verify=all`: reads both trees again and compares them by hash."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from dms_scheduler.movers.contract import Compare, MoveOptions, Overwrite
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.native.compare import Verdict, judge
from dms_scheduler.movers.native.crew import Crew
from dms_scheduler.movers.native.filecopy import FileCopier
from dms_scheduler.movers.native.meter import Meter, Tally
from dms_scheduler.movers.native.tree import Folder, Item, open_below
from dms_scheduler.movers.paths import status_at

_MISMATCH = (
    "the destination differs from the source although the copy is complete; "
    "run with compare=checksum to replace it"
)


class _Check(NamedTuple):
    item: Item
    target_fd: int


class Recheck:
    """Compares every file that has to be the same at both ends.

    With overwrite never or newer the destination may rightly keep another version: then only files
    that look the same by size and time are read.
    """

    def __init__(
        self,
        options: MoveOptions,
        guard: Guard,
        meter: Meter,
        copier: FileCopier,
        fail: Callable[[str, OSError | FileProblem], None],
    ) -> None:
        self._options = options
        self._guard = guard
        self._meter = meter
        self._copier = copier
        self._fail = fail

    def run(self, items: Iterable[Item]) -> None:
        """Read all of them; raises MoverError when the run must end."""
        crew = Crew(
            self._options.transfers,
            self._guard,
            self._work,
            lambda check: check.item.folder.release(),
        )
        with crew:
            for item in items:
                try:
                    self._submit(item, crew)
                except (OSError, FileProblem) as error:
                    self._fail(item.path, error)

    def _submit(self, item: Item, crew: Crew[_Check]) -> None:
        fd = item.folder.target_fd
        if not stat.S_ISREG(item.status.st_mode):
            return
        if fd is None or not self._must_match(item, fd):
            return
        item.folder.retain()
        crew.submit(_Check(item, fd))

    def _must_match(self, item: Item, fd: int) -> bool:
        if self._options.overwrite is Overwrite.ALWAYS:
            return True
        target = status_at(fd, item.target)
        strict = replace(self._options, compare=Compare.SIZE_MTIME, overwrite=Overwrite.ALWAYS)
        return judge(item.status, target, strict) in {Verdict.SKIP, Verdict.UPDATE}

    def _work(self, check: _Check) -> None:
        item = check.item
        try:
            self._meter.working_on(item.path)
            self._meter.add(Tally.CHECKS)
            if not self._copier.same_content(item, check.target_fd):
                raise FileProblem(_MISMATCH, error_class="verify_mismatch")
        except (OSError, FileProblem) as error:
            self._fail(item.path, error)
        finally:
            item.folder.release()

    def counterpart(self, parent: Folder, name: str) -> int | None:
        """Open a directory's counterpart; raises OSError."""
        return open_below(parent.target_fd, name)
