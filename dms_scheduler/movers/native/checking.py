"""Compares two trees of this machine and changes nothing: the `check` of the native engine."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from dms_scheduler.movers.contract import Compare, Control, MoveOptions, MoveRequest
from dms_scheduler.movers.errors import not_found
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.native.endpoints import Source, Target, open_source, open_target
from dms_scheduler.movers.native.matching import Matcher
from dms_scheduler.movers.native.meter import Reporter, Tally
from dms_scheduler.movers.native.ranges import ReadLimit
from dms_scheduler.movers.native.session import ENGINE, VERSION, Session
from dms_scheduler.movers.native.sides import Pair, Sides, Teller
from dms_scheduler.movers.native.throttle import LiveBucket
from dms_scheduler.movers.native.tree import Folder, Item
from dms_scheduler.movers.paths import locate, root_identities
from dms_scheduler.movers.patterns import Filters
from dms_scheduler.movers.results import (
    MAX_FAILED_PATHS,
    Action,
    CheckResult,
    CheckTotals,
    Phase,
    ReportEntry,
)


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
    sample: list[ReportEntry] = field(default_factory=list[ReportEntry])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def totals(self, read: int) -> CheckTotals:
        counts = {action.value: count for action, count in self.found.items()}
        return CheckTotals(same=self.same, bytes=read, **counts)


class _Checking(Session):
    """One comparison; it is the teller of its own second walk."""

    def __init__(self, request: MoveRequest, control: Control) -> None:
        super().__init__(control)
        self._request = request
        self._options: MoveOptions = request.options
        self._filters = Filters.compiled(request.options.include, request.options.exclude)
        bucket = LiveBucket(request.options.bandwidth or 0, lambda: control.bandwidth)
        self._matcher = Matcher(self, self._options, ReadLimit(self.guard, bucket), self._tell)
        self._counts = _Counts()

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
            raise not_found(f"destination {dst.text!r}")
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
        # What the destination alone has is not read.
        self._walk(source, target, replace(self._options, one_way=True), expected)
        self.meter.expect(expected.files, expected.size, known=True)

    def _compare_all(self, source: Source, target: Target) -> None:
        with self._matcher.running():
            self._walk(source, target, self._options, self)

    def _walk(self, source: Source, target: Target, options: MoveOptions, teller: Teller) -> None:
        sides = Sides(options=options, filters=self._filters, guard=self.guard, teller=teller)
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
        """Have the contents compared."""
        self._matcher.compare(pair)

    def _tell(self, pair: Pair, same: bool) -> None:
        """Tell how the contents of a pair compare."""
        self.meter.add(Tally.FILES)
        reasons = pair.reasons if same else ("content", *pair.reasons)
        if reasons:
            size = pair.item.status.st_size
            self.note(Action.DIFFERS, pair.item.path, size, ", ".join(reasons))
        else:
            self.same()

    def _result(self, error_class: str | None) -> CheckResult:
        return CheckResult(
            engine=ENGINE,
            version=VERSION,
            totals=self._counts.totals(self._matcher.read),
            seconds=self.meter.seconds,
            error_class=error_class,
            sample=tuple(self._counts.sample),
            failed=self.meter.failed,
            failed_count=self.meter.failed_count,
        )


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
