"""Handles one planned file: copies, links, updates or compares it. The same in every process."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace

from dms_scheduler.movers.contract import Compare, MoveOptions, MoveRequest, Overwrite, Preserve
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.guard import Brake
from dms_scheduler.movers.native import attributes
from dms_scheduler.movers.native.compare import Verdict, judge, settled
from dms_scheduler.movers.native.filecopy import Ends, FileCopier, TemporaryNames
from dms_scheduler.movers.native.meter import Ledger, Tally
from dms_scheduler.movers.native.quickcopy import QuickCopier
from dms_scheduler.movers.native.records import Done, Failure, FileFields, FilePlan, Outcome, child
from dms_scheduler.movers.native.throttle import TokenBucket
from dms_scheduler.movers.oserrors import classify, reason_of
from dms_scheduler.movers.paths import status_at
from dms_scheduler.movers.results import Action

_COPY, _LINK, _UPDATE = Verdict.COPY.value, Verdict.LINK.value, Verdict.UPDATE.value
_NOTHING = Outcome("", None)
_UPDATED = Outcome(Action.UPDATE.value, None)
_LINKED = Outcome(Action.LINK.value, None)


class FileHandler:
    """Does with a file what the plan says; counts go to the ledger."""

    def __init__(
        self, options: MoveOptions, copier: FileCopier, quick: QuickCopier, ledger: Ledger
    ) -> None:
        self._options = options
        self._copier = copier
        self._quick = quick
        self._ledger = ledger

    def tell(self) -> None:
        """Hand all counts to the ledger."""
        self._quick.tell()

    def copy_usual(self, ends: Ends, files: Iterator[FileFields], done: Done) -> FileFields | None:
        """Copy small files up to one that is to be handled as below; return that one, None at the
        end. Raises what stops."""
        return self._quick.copy(ends, files, done)

    def handle(self, ends: Ends, plan: FilePlan) -> Outcome | None:
        """Do what is planned; return what was done, None for a copy just as it was planned.

        Raises:
            OSError, FileProblem: this file failed.

        """
        self.tell()
        self._ledger.begin(child(ends.path, plan.name), plan.size)
        try:
            if plan.verdict == _COPY:
                return self._copy(ends, plan)
            if plan.verdict == _LINK:
                return self._link(ends, plan)
            if plan.verdict == _UPDATE:
                return self._update(ends, plan)
            return self._settle(ends, plan)
        finally:
            self._ledger.end()

    def _copy(self, ends: Ends, plan: FilePlan) -> Outcome | None:
        size = self._copier.copy(ends, plan.name, plan.target)
        if size is None:
            return self._kept()
        self._ledger.add(Tally.FILES)
        self._ledger.add(Tally.BYTES, size)
        as_planned = plan.verdict == _COPY and size == plan.size
        return None if as_planned else Outcome(Action.COPY.value, size)

    def _kept(self) -> Outcome:
        self._ledger.add(Tally.SKIPPED)
        return _NOTHING

    def _link(self, ends: Ends, plan: FilePlan) -> Outcome:
        if not self._copier.link(ends, plan.name, plan.target):
            return self._kept()
        self._ledger.add(Tally.LINKS)
        return _LINKED

    def _update(
        self, ends: Ends, plan: FilePlan, compared: os.stat_result | None = None
    ) -> Outcome:
        self._copier.update(ends, plan.name, plan.target, compared)
        self._ledger.add(Tally.UPDATED)
        return _UPDATED

    def _settle(self, ends: Ends, plan: FilePlan) -> Outcome | None:
        """Compare by content, and do what that asks for."""
        compared = os.stat(plan.name, dir_fd=ends.source_fd, follow_symlinks=False)
        verdict = self.verdict_by_content(ends, plan)
        if verdict is Verdict.SKIP:
            return self._kept()
        if verdict is Verdict.UPDATE:
            return self._update(ends, plan, compared)
        self._ledger.expect_more(plan.size, files=1)
        return self._copy(ends, plan)

    def verdict_by_content(self, ends: Ends, plan: FilePlan) -> Verdict:
        """Say what a file that may be the same needs: SKIP, UPDATE or COPY; raises as `handle`."""
        source = os.stat(plan.name, dir_fd=ends.source_fd, follow_symlinks=False)
        target = status_at(ends.target_fd, plan.target)
        if target is None or not stat.S_ISREG(target.st_mode):
            return Verdict.COPY
        if not self._copier.equal(ends.source_fd, plan.name, ends.target_fd, plan.target):
            return Verdict.COPY
        verdict = settled(source, target, self._options)
        names = (plan.name, plan.target)
        return look_at_xattrs(self._options, ends, names, source, target, verdict)


def look_at_xattrs(
    options: MoveOptions,
    ends: Ends,
    names: tuple[str, str],
    source: os.stat_result,
    target: os.stat_result,
    verdict: Verdict = Verdict.SKIP,
) -> Verdict:
    """Return the verdict on a regular file once its extended attributes are seen too.

    `names` are those at both ends. Only a file that is left alone because it is the same can turn
    out to differ. Raises OSError.
    """
    if verdict is not Verdict.SKIP or Preserve.XATTRS not in options.preserve:
        return verdict
    kept = options.overwrite is Overwrite.NEVER or options.compare is Compare.EXISTS
    if kept or not (stat.S_ISREG(source.st_mode) and stat.S_ISREG(target.st_mode)):
        return verdict
    if options.compare is not Compare.CHECKSUM:
        always = replace(options, overwrite=Overwrite.ALWAYS)
        if judge(source, target, always) is not Verdict.SKIP:
            return verdict  # it differs, and is kept for being newer
    here = attributes.entry(ends.source_fd, names[0])
    there = attributes.entry(ends.target_fd, names[1])
    if not attributes.xattrs_differ(options.preserve, here, there):
        return verdict
    return Verdict.UPDATE if target.st_nlink == 1 else Verdict.COPY


def make_handler(
    request: MoveRequest,
    brake: Brake,
    ledger: Ledger,
    bucket: TokenBucket,
    names: TemporaryNames,
    *,
    exact_modes: bool,
) -> tuple[FileHandler, FileCopier]:
    """Return a handler and the copier that it uses; `exact_modes` as for `QuickCopier`."""
    copier = FileCopier(request, brake, ledger, bucket, names)
    quick = QuickCopier(request, brake, ledger, bucket, names, exact_modes=exact_modes)
    return FileHandler(request.options, copier, quick, ledger), copier


def failure_of(error: OSError | FileProblem) -> Failure:
    """Return an error as data that a pipe can carry."""
    if isinstance(error, OSError):
        return Failure(error.errno or 0, "os_error", reason_of(error), retryable=False)
    return Failure(0, error.error_class, str(error), error.retryable)


def error_of(failure: Failure) -> OSError | FileProblem:
    """Return the error that `failure_of` was given."""
    if failure.code or failure.error_class == "os_error":
        return OSError(failure.code, failure.reason)
    return FileProblem(failure.reason, error_class=failure.error_class, retryable=failure.retryable)


def is_fatal(error: OSError | FileProblem) -> bool:
    """Say whether nothing more can be done once this has happened."""
    return isinstance(error, OSError) and classify(error).fatal
