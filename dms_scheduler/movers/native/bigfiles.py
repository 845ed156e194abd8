"""Leads big files through their steps: begun, copied in parts by all executors, ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.batches import Folder
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.filecopy import Ends, may_pass, retry_pause
from dms_scheduler.movers.native.handling import error_of, failure_of
from dms_scheduler.movers.native.journal import SourceId
from dms_scheduler.movers.native.parts import Begun, Layout, PartCopier
from dms_scheduler.movers.native.records import Failure, FilePlan, Outcome

_BEGIN, _PART, _END = "begin", "part", "end"
_FAILED = "failed"


@dataclass(slots=True)
class BigFile:
    """A file on its way, as the process that leads sees it."""

    folder: Folder
    plan: FilePlan
    layout: Layout | None = None
    todo: list[int] = field(default_factory=list)
    busy: int = 0  # steps that an executor has
    accounted: int = 0  # bytes copied or kept
    copied: int = 0  # bytes copied by this run
    attempt: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a file, for an executor."""

    file: BigFile
    kind: str
    number: int  # of the part; in the beginning: how often it was begun before

    def message(self) -> list[Any]:
        """Return it as plain tuples."""
        file, layout = self.file, self.file.layout
        packed = None if layout is None else (tuple(layout.source), *layout[1:])
        counts = (file.accounted, file.copied)
        return [self.kind, tuple(file.folder), tuple(file.plan), packed, self.number, *counts]


class StepRunner:
    """Runs steps in an executor."""

    def __init__(self, copier: PartCopier, source: Chain, target: Chain) -> None:
        self._copier = copier
        self._source = source
        self._target = target

    def run(self, message: list[Any]) -> list[Any]:
        """Return what became of it, as plain tuples; raises what stops the run."""
        try:
            return self._run(message)
        except (OSError, FileProblem) as error:
            return [_FAILED, *failure_of(error)]

    def _run(self, message: list[Any]) -> list[Any]:
        kind, folder_data, plan_data, packed, number, accounted, copied = message
        folder, plan = Folder(*folder_data), FilePlan(*plan_data)
        ends = Ends(
            folder.path,
            self._source.open_known(folder.path, folder.source),
            self._target.open_known(folder.path, folder.target),
        )
        if kind == _BEGIN:
            pause = retry_pause(number - 1) if number else 0.0
            begun = self._copier.begin(ends, plan, accounted, pause)
            return [_BEGIN, _packed(begun.layout), begun.todo]
        layout = _unpacked(packed)
        if kind == _PART:
            return [_PART, self._copier.part(ends, plan, layout, number)]
        return [_END, *self._copier.end(ends, plan, layout, copied)]


def _packed(layout: Layout) -> tuple[Any, ...]:
    return (tuple(layout.source), *layout[1:])


def _unpacked(packed: tuple[Any, ...]) -> Layout:
    return Layout(SourceId(*packed[0]), *packed[1:])


class BigFiles:
    """The big files of a move that are on their way."""

    def __init__(
        self,
        retries: int,
        width: int,
        issue: Callable[[Step], None],
        told: Callable[[BigFile, Outcome | Failure], None],
        discard: Callable[[Folder, str], None],
    ) -> None:
        """`width` is how many parts of a file may be with executors at once; `issue` has a step
        done, soon; `told` hears how a file ended; `discard` removes what there is of a copy."""
        self._retries = retries
        self._width = width
        self._issue_step = issue
        self._told = told
        self._discard = discard
        self._files: list[BigFile] = []

    @property
    def full(self) -> bool:
        """Whether as many files are on their way as parts may be with executors."""
        return len(self._files) >= self._width

    def start(self, folder: Folder, plan: FilePlan) -> None:
        """Begin a file."""
        file = BigFile(folder, plan)
        self._files.append(file)
        self._issue(file, _BEGIN, 0)

    def _issue(self, file: BigFile, kind: str, number: int) -> None:
        file.busy += 1
        self._issue_step(Step(file, kind, number))

    def take(self, step: Step, answer: list[Any]) -> None:
        """Take what became of a step; raises MoverError when the run must end."""
        file = step.file
        file.busy -= 1
        kind, *data = answer
        if kind == _FAILED:
            file.failure = file.failure or Failure(*data)
        elif kind == _BEGIN:
            self._begun(file, Begun(_unpacked(data[0]), data[1]))
        elif kind == _PART:
            file.accounted += data[0]
            file.copied += data[0]
        else:
            self._close(file, Outcome(*data))
            return
        self._go_on(file)

    def _begun(self, file: BigFile, begun: Begun) -> None:
        file.layout, file.todo = begun
        left = sum(map(begun.layout.size_of, begun.todo))
        file.accounted = begun.layout.source.size - left
        if begun.layout.cloned and not left:
            file.copied = begun.layout.source.size
        file.todo.reverse()

    def _go_on(self, file: BigFile) -> None:
        if file.failure is not None:
            if not file.busy:
                self._fail(file, file.failure)
            return
        # Writers of one inode wait for each other in the kernel: first files, then their parts.
        while file.todo and file.busy < max(1, self._width // len(self._files)):
            self._issue(file, _PART, file.todo.pop())
        if not file.busy:
            self._issue(file, _END, 0)

    def _fail(self, file: BigFile, failure: Failure) -> None:
        error = error_of(failure)
        if file.attempt < self._retries and may_pass(error):
            file.attempt += 1
            file.failure = None
            self._issue(file, _BEGIN, file.attempt)
            return
        self._close(file, failure)

    def _close(self, file: BigFile, result: Outcome | Failure) -> None:
        self._files.remove(file)
        if isinstance(result, Failure) and not _is_of_use(error_of(result)):
            self._discard(file.folder, file.plan.target)
        self._told(file, result)

    def abandon(self) -> None:
        """Remove what there is of the files that did not end."""
        for file in self._files:
            self._discard(file.folder, file.plan.target)


def _is_of_use(error: OSError | FileProblem) -> bool:
    """Say whether the next attempt can go on with what is there."""
    return isinstance(error, OSError) and may_pass(error)
