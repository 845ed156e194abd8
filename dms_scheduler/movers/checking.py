"""Compares two trees of this machine and changes nothing: the `check` of the native engine."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from dms_scheduler.movers.contract import Compare, Control, MoveOptions, MoveRequest
from dms_scheduler.movers.crew import Crew
from dms_scheduler.movers.endpoints import Source, Target, open_source, open_target
from dms_scheduler.movers.errors import FileProblem, Refused
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.meter import Reporter, Tally
from dms_scheduler.movers.paths import locate, root_identities
from dms_scheduler.movers.patterns import Filters
from dms_scheduler.movers.ranges import ReadLimit, fingerprint, open_pair, same_range
from dms_scheduler.movers.results import (
    MAX_FAILED_PATHS,
    Action,
    CheckResult,
    CheckTotals,
    Phase,
    ReportEntry,
)
from dms_scheduler.movers.session import Session
from dms_scheduler.movers.sides import Pair, Sides, Teller
from dms_scheduler.movers.throttle import LiveBucket
from dms_scheduler.movers.tree import Folder, Item

ENGINE = "native"
VERSION = "1"
PART_BYTES = 64 << 20
"""A larger file is compared in parts of this size, by all threads at once."""
_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
_LONGEST_PAUSE = 2.0
_CHANGED = "the file changed while it was read; check again when nobody writes to it"
Job = Callable[[], None]


def check(request: MoveRequest, control: Control) -> CheckResult:
    """Compare source and destination by `options.compare`; see `Mover.check`."""
    return _Checking(request, control).run()


@dataclass
class _Expectation(Teller):
    """The first walk: counts the bytes that the second will read."""

    files: int = 0
    size: int = 0

    def same(self) -> None:
        """Nothing to read."""

    def note(self, action: Action, path: str, size: int | None, reason: str | None) -> None:
        """Nothing to read."""

    def compare(self, pair: Pair) -> None:
        """Count both ends."""
        self.files += 1
        self.size += 2 * pair.item.status.st_size

    def fail(self, path: str, error: OSError) -> None:
        """Leave it to the second walk, which meets it again."""


@dataclass
class _Counts:
    """What was found so far; shared by threads."""

    found: dict[Action, int] = field(
        default_factory=lambda: dict.fromkeys(
            (Action.DIFFERS, Action.MISSING_SRC, Action.MISSING_DST, Action.SPECIAL), 0
        )
    )
    same: int = 0
    read: int = 0
    sample: list[ReportEntry] = field(default_factory=list[ReportEntry])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def totals(self) -> CheckTotals:
        counts = {action.value: count for action, count in self.found.items()}
        return CheckTotals(same=self.same, bytes=self.read, **counts)


class _Checking(Session):
    """One comparison; it is the teller of its own second walk."""

    def __init__(self, request: MoveRequest, control: Control) -> None:
        super().__init__(control)
        self._request = request
        self._options: MoveOptions = request.options
        self._filters = Filters.compiled(request.options.include, request.options.exclude)
        bucket = LiveBucket(request.options.bandwidth or 0, lambda: control.bandwidth)
        self._limit = ReadLimit(self.guard, bucket)
        self._counts = _Counts()
        self._batch: list[Pair] = []
        self._batch_bytes = 0
        self._crew: Crew[_Work] | None = None

    def run(self) -> CheckResult:
        with self.errors_told(self._result), ExitStack() as stack:
            source, target = self._open(stack)
            with Reporter(self.meter, self.control, self.guard):
                self._expect(source, target)
                self.meter.enter(Phase.VERIFY)
                self._compare_all(source, target)
            self.refuse_partial("the others were compared")
            return self._result(None)

    def _open(self, stack: ExitStack) -> tuple[Source, Target]:
        self.guard.check()
        request = self._request
        src, dst = locate(request.src, request.roots), locate(request.dst, request.roots)
        source = open_source(src, stack)
        roots = root_identities(request.roots)
        target = open_target(dst, source, roots, stack, create=False)
        if target.fd is None:
            message = f"destination {dst.text!r} does not exist; check the path"
            raise Refused(message, error_class="not_found")
        locks = Locks(roots, self.log)
        stack.callback(locks.close)
        locks.read(source.fd, at_rest=True)
        locks.read(target.fd, at_rest=True)
        return source, target

    def _expect(self, source: Source, target: Target) -> None:
        """Find out how much there is to read, where that is what takes the time."""
        if self._options.compare is not Compare.CHECKSUM:
            return
        expected = _Expectation()
        self._walk(source, target, expected)
        self.meter.expect(expected.files, expected.size, known=True)

    def _compare_all(self, source: Source, target: Target) -> None:
        crew: Crew[_Work] = Crew(
            self._options.transfers, self.guard, lambda work: work.run(), lambda work: work.drop()
        )
        with crew:
            self._crew = crew
            self._walk(source, target, self)
            self._flush()

    def _walk(self, source: Source, target: Target, teller: Teller) -> None:
        sides = Sides(options=self._options, filters=self._filters, guard=self.guard, teller=teller)
        if target.fd is None:
            return
        if source.name is None:
            sides.walk(source.fd, target.fd)
        else:
            _single(sides, source, source.name, target)

    def same(self) -> None:
        """Count an entry that is the same."""
        with self._counts.lock:
            self._counts.same += 1
        self.meter.add(Tally.CHECKS)

    def note(self, action: Action, path: str, size: int | None, reason: str | None) -> None:
        """Count and report an entry that is not the same, or special."""
        entry = ReportEntry(action=action, path=path, size=size, reason=reason)
        with self._counts.lock:
            self._counts.found[action] += 1
            if action is not Action.SPECIAL and len(self._counts.sample) < MAX_FAILED_PATHS:
                self._counts.sample.append(entry)
        self.meter.add(Tally.CHECKS)
        self.report(entry)

    def compare(self, pair: Pair) -> None:
        """Hand the contents to the crew: small files together, large ones in parts."""
        size = pair.item.status.st_size
        self.meter.working_on(pair.item.path)
        if size > PART_BYTES:
            self._submit_parts(pair)
            return
        if self._batch and self._batch[0].item.folder is not pair.item.folder:
            self._flush()
        self._batch.append(pair)
        pair.item.folder.retain()
        self._batch_bytes += size
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            folders = [pair.item.folder for pair in batch]
            self._submit(_Work(lambda: self._settle_all(batch), folders))

    def _submit_parts(self, pair: Pair) -> None:
        large = _Large(self, pair)
        for part in range(large.parts):
            folder = pair.item.folder.retain()
            self._submit(_Work(lambda part=part: large.compare(part), [folder], large.drop))

    def _submit(self, work: _Work) -> None:
        if self._crew is None:
            message = "files are compared by the second walk alone"
            raise AssertionError(message)
        self._crew.submit(work)

    def _settle_all(self, batch: list[Pair]) -> None:
        for pair in batch:
            self.settle(pair)

    def settle(self, pair: Pair, *, attempt: int = 0) -> None:
        """Compare a file from its beginning to its end, again if it changes, and tell."""
        path = pair.item.path
        self.meter.working_on(path)
        try:
            while (same := self._same(pair)) is None:
                if attempt >= self._options.retries:
                    raise FileProblem(_CHANGED, error_class="changed_during_copy")
                self.guard.pause(min(_LONGEST_PAUSE, 0.1 * 2**attempt))
                attempt += 1
        except (OSError, FileProblem) as error:
            self.fail(path, error)
        else:
            self.tell(pair, same=same)

    def tell(self, pair: Pair, *, same: bool) -> None:
        """Tell how a pair compares."""
        self.meter.add(Tally.FILES)
        reasons = pair.reasons if same else ("content", *pair.reasons)
        if reasons:
            size = pair.item.status.st_size
            self.note(Action.DIFFERS, pair.item.path, size, ", ".join(reasons))
        else:
            self.same()

    def _same(self, pair: Pair) -> bool | None:
        """Compare once; None if one of the files changed meanwhile, or is not the one looked at."""
        with ExitStack() as stack:
            ends = open_pair(pair.item, pair.target_fd, stack)
            before = [fingerprint(end) for end in ends]
            size = os.fstat(ends[0]).st_size
            same = size == os.fstat(ends[1]).st_size and self.same_part(ends, 0, size)
            return same if [fingerprint(end) for end in ends] == before else None

    def same_part(self, ends: tuple[int, int], start: int, size: int) -> bool:
        """Compare a range of two open files, and count what was read."""
        same, read = same_range(ends, start, size, self._limit.wait, self.meter.moved)
        with self._counts.lock:
            self._counts.read += read
        self.meter.expect_more(read - 2 * size)
        return same

    def _result(self, error_class: str | None) -> CheckResult:
        return CheckResult(
            engine=ENGINE,
            version=VERSION,
            totals=self._counts.totals(),
            seconds=self.meter.seconds,
            error_class=error_class,
            sample=tuple(self._counts.sample),
            failed=self.meter.failed,
            failed_count=self.meter.failed_count,
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """Something for the crew; its folders are retained until it is done or dropped."""

    job: Job
    folders: list[Folder]
    dropped: Job = lambda: None

    def run(self) -> None:
        try:
            self.job()
        finally:
            self._release()

    def drop(self) -> None:
        self.dropped()
        self._release()

    def _release(self) -> None:
        for folder in self.folders:
            folder.release()


class _Large:
    """A file that several threads compare; the last one tells."""

    def __init__(self, checking: _Checking, pair: Pair) -> None:
        self._checking = checking
        self._pair = pair
        self._size = pair.item.status.st_size
        self.parts = -(-self._size // PART_BYTES)
        self._left = self.parts
        self._same = True
        self._error: OSError | FileProblem | None = None
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._ends: tuple[int, int] | None = None
        self._before: list[tuple[int, ...]] = []

    def compare(self, part: int) -> None:
        """Compare one part, unless another one differs already; after the last one tell."""
        try:
            self._compare(part)
        except (OSError, FileProblem) as error:
            self._error = error
        except BaseException:
            self.drop()
            raise
        if self._is_last():
            self._tell()

    def drop(self) -> None:
        """Give up a part."""
        if self._is_last():
            self._stack.close()

    def _compare(self, part: int) -> None:
        ends = self._opened()
        start = part * PART_BYTES
        size = min(PART_BYTES, self._size - start)
        if self._same and not self._checking.same_part(ends, start, size):
            self._same = False

    def _opened(self) -> tuple[int, int]:
        with self._lock:
            if self._ends is None:
                self._ends = open_pair(self._pair.item, self._pair.target_fd, self._stack)
                self._before = [fingerprint(end) for end in self._ends]
            return self._ends

    def _is_last(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0

    def _tell(self) -> None:
        with self._stack:
            steady = self._is_steady()
        if self._error is not None:
            self._checking.fail(self._pair.item.path, self._error)
        elif steady:
            self._checking.tell(self._pair, same=self._same)
        else:
            self._checking.settle(self._pair, attempt=1)

    def _is_steady(self) -> bool:
        """Say whether both files are what they were, and of the size that was expected."""
        if self._ends is None:
            return False
        after = [fingerprint(end) for end in self._ends]
        return after == self._before and {size for size, *_ in after} == {self._size}


def _single(sides: Sides, source: Source, name: str, target: Target) -> None:
    """Compare a single file, which both ends name."""
    if target.fd is None or not stat.S_ISREG(source.status.st_mode):
        return
    top = Folder(
        path="",
        source_fd=os.dup(source.fd),
        target_fd=os.dup(target.fd),
        parent=None,
        on_done=lambda _: None,
    )
    try:
        sides.entry(Item(top, name, target.name or name, source.status))
    finally:
        top.release()
