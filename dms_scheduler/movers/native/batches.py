"""Batches of planned files, the unit in which work is handed to an executor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.filecopy import Ends
from dms_scheduler.movers.native.handling import FileHandler, failure_of, is_fatal
from dms_scheduler.movers.native.records import (
    Done,
    Failure,
    FileFields,
    FilePlan,
    Identity,
    Outcome,
)
from dms_scheduler.movers.native.worklist import MOST_BYTES


class Folder(NamedTuple):
    """A directory that is there at both ends, as it was met."""

    path: str
    source: Identity
    target: Identity


@dataclass(slots=True)
class Batch:
    """Files of a few folders."""

    groups: list[tuple[Folder, list[FileFields]]] = field(default_factory=list)
    count: int = 0
    weight: int = 0

    @property
    def full(self) -> bool:
        """Whether it should be handed over: half of what a group may be, so that two executors
        seldom write into the same directory, where they would wait for each other."""
        return self.weight >= MOST_BYTES // 2

    def add(self, folder: Folder, files: list[FileFields], weight: int) -> None:
        """Add files of a folder."""
        self.groups.append((folder, files))
        self.count += len(files)
        self.weight += weight

    def message(self) -> list[Any]:
        """Return it as plain tuples."""
        return [(tuple(folder), files) for folder, files in self.groups]

    @classmethod
    def read(cls, message: list[Any]) -> Batch:
        """Return what `message` gave."""
        batch = cls()
        for folder, files in message:
            batch.add(Folder(*folder), files, 0)
        return batch


class BatchRunner:
    """Runs batches in this process."""

    def __init__(self, handler: FileHandler, source: Chain, target: Chain) -> None:
        self._handler = handler
        self._source = source
        self._target = target

    def run(self, batch: Batch, done: Done) -> None:
        """Handle all files, and note in `done` what became of them.

        Ends early after an error that nothing can follow; raises what stops the run.
        """
        try:
            for folder, files in batch.groups:
                if not self._run_group(folder, files, done):
                    return
        finally:
            self._handler.tell()

    def _run_group(self, folder: Folder, files: list[FileFields], done: Done) -> bool:
        """Return False if nothing can follow."""
        ends = self._opened(folder)
        if isinstance(ends, Failure):
            places = range(done.handled, done.handled + len(files))
            done.unusual += [(place, ends) for place in places]
            done.handled += len(files)
            return not _ends_all(ends)
        rest = iter(files)
        while file := self._handler.copy_usual(ends, rest, done):
            result = self._one(ends, FilePlan._make(file))
            if result is not None:
                done.unusual.append((done.handled, result))
            done.handled += 1
            if isinstance(result, Failure) and _ends_all(result):
                return False
        return True

    def _opened(self, folder: Folder) -> Ends | Failure:
        try:
            return Ends(
                folder.path,
                self._source.open_known(folder.path, folder.source),
                self._target.open_known(folder.path, folder.target),
            )
        except (OSError, FileProblem) as error:
            return failure_of(error)

    def _one(self, ends: Ends, plan: FilePlan) -> Outcome | Failure | None:
        try:
            return self._handler.handle(ends, plan)
        except (OSError, FileProblem) as error:
            return failure_of(error)


def _ends_all(failure: Failure) -> bool:
    return bool(failure.code) and is_fatal(OSError(failure.code, failure.reason))
