"""Batches of planned files, the unit in which work is handed to an executor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.filecopy import Ends
from dms_scheduler.movers.native.handling import FileHandler, failure_of, is_fatal
from dms_scheduler.movers.native.records import Failure, FilePlan, Identity, Outcome

_MOST_FILES = 128
_MOST_BYTES = 8 << 20
_FILE_COST = 16 << 10  # a file takes as long as that many bytes, however small it is


class Folder(NamedTuple):
    """A directory that is there at both ends, as it was met."""

    path: str
    source: Identity
    target: Identity


@dataclass(slots=True)
class Batch:
    """Files of a few folders."""

    folders: list[tuple[Folder, list[FilePlan]]] = field(default_factory=list)
    files: list[tuple[Folder, FilePlan]] = field(default_factory=list)
    weight: int = 0

    @property
    def full(self) -> bool:
        """Whether it should be handed over."""
        return len(self.files) >= _MOST_FILES or self.weight >= _MOST_BYTES

    def add(self, folder: Folder, plan: FilePlan) -> None:
        """Add a file."""
        if not self.folders or self.folders[-1][0] is not folder:
            self.folders.append((folder, []))
        self.folders[-1][1].append(plan)
        self.files.append((folder, plan))
        self.weight += plan.size + _FILE_COST

    def message(self) -> list[Any]:
        """Return it as plain tuples."""
        return [(tuple(folder), [tuple(plan) for plan in plans]) for folder, plans in self.folders]

    @classmethod
    def read(cls, message: list[Any]) -> Batch:
        """Return what `message` gave."""
        batch = cls()
        for folder, plans in message:
            batch.folders.append((Folder(*folder), [FilePlan(*plan) for plan in plans]))
        return batch


@dataclass(slots=True)
class Done:
    """What became of a batch: the first `handled` files are done, each copied as it was planned
    but for the `unusual` ones, by their place."""

    handled: int = 0
    unusual: list[tuple[int, Outcome | Failure]] = field(default_factory=list)


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
            for folder, plans in batch.folders:
                ends = self._opened(folder)
                for plan in plans:
                    result = ends if isinstance(ends, Failure) else self._one(ends, plan)
                    if result is not None:
                        done.unusual.append((done.handled, result))
                    done.handled += 1
                    if isinstance(result, Failure) and _ends_all(result):
                        return
        finally:
            self._handler.tell()

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
