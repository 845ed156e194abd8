"""Gives directories whose content is complete the attributes of their sources, deepest first."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from dms_scheduler.movers.contract import Fsync, MoveOptions, Preserve
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native import attributes
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.compare import mode_of, owner_of
from dms_scheduler.movers.native.records import FinishPlan
from dms_scheduler.movers.native.session import Session


class Finisher:
    """Finishes what the plan lists, in its order: a directory comes after all below it."""

    def __init__(
        self, options: MoveOptions, session: Session, source: Chain, target: Chain
    ) -> None:
        self._options = options
        self._session = session
        self._source = source
        self._target = target

    def run(self, plans: Iterable[FinishPlan]) -> None:
        """Finish all; raises MoverError when the run must end."""
        for plan in plans:
            self._session.guard.check()
            try:
                self._finish(plan)
            except (OSError, FileProblem) as error:
                # One that was there and is somebody else's: they decide, its content is right.
                theirs = isinstance(error, OSError) and error.errno == errno.EPERM
                if plan.made or not theirs:
                    self._session.fail(plan.path, error)

    def _finish(self, plan: FinishPlan) -> None:
        try:
            target = self._target.open(plan.path)
        except FileNotFoundError:
            if plan.made:  # it could not be made, which was told then
                return
            raise
        if plan.mode is not None:
            os.fchmod(target, plan.mode)
        if plan.attributes:
            source = self._source.open_known(plan.path, plan.source)
            had = None if plan.made else os.fstat(target)
            attributes.carry(
                self._options.preserve,
                attributes.opened(source),
                os.fstat(source),
                attributes.opened(target),
                had,
            )
        if self._options.fsync is Fsync.EACH:
            os.fsync(target)

    def restore(self, plans: Iterable[FinishPlan]) -> None:
        """Give directories the mode back that this run loosened, and no other attribute."""
        for plan in plans:
            if plan.mode is not None:
                # Changed by its owner meanwhile, or not reached at all; the run's outcome counts.
                with suppress(OSError):
                    os.fchmod(self._target.open(plan.path), plan.mode)


def folder_differs(
    options: MoveOptions, ends: tuple[int, int], source: os.stat_result, target: os.stat_result
) -> bool:
    """Say whether a directory lacks an attribute of its source; `ends` are their descriptors.

    Raises:
        OSError: its extended attributes cannot be read.

    """
    preserve = options.preserve
    if Preserve.MODE in preserve and mode_of(source) != stat.S_IMODE(target.st_mode):
        return True
    if Preserve.MTIME in preserve and source.st_mtime_ns != target.st_mtime_ns:
        return True
    if Preserve.OWNER in preserve and owner_of(source) != owner_of(target):
        return True
    return Preserve.XATTRS in preserve and attributes.xattrs_differ(
        preserve, attributes.opened(ends[0]), attributes.opened(ends[1])
    )


def must_loosen(status: os.stat_result) -> bool:
    """Say whether this user has to allow itself to write into a directory of its own."""
    return status.st_mode & 0o300 != 0o300 and status.st_uid == os.geteuid()
