"""Removes an entry of this machine with all that is in it: the `remove` of the native engine."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

from dms_scheduler.movers.contract import Control, RemoveRequest
from dms_scheduler.movers.errors import Refused, not_found
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.native.doomed import Doomed, Fail, Mark, Protected, Walk, open_same
from dms_scheduler.movers.native.meter import Reporter, Tally
from dms_scheduler.movers.native.removal import Backup
from dms_scheduler.movers.native.session import Session
from dms_scheduler.movers.oserrors import as_mover_error
from dms_scheduler.movers.paths import (
    PATH_FLAGS,
    Location,
    descend,
    identity,
    kind_of,
    locate,
    root_identities,
    status_at,
)
from dms_scheduler.movers.patterns import BACKUP_NAME, Filters
from dms_scheduler.movers.results import (
    MAX_FAILED_PATHS,
    Action,
    MovePlan,
    MoveResult,
    Phase,
    ReportEntry,
    Totals,
)


def remove(request: RemoveRequest, control: Control) -> MoveResult | MovePlan:
    """Remove what the request names, or say what would be removed; see `Mover.remove`."""
    return _Removing(request, control).run()


class _Removing(Session):
    """One removal: a first walk counts and refuses, a second one acts."""

    def __init__(self, request: RemoveRequest, control: Control) -> None:
        super().__init__(control)
        self._request = request
        self._filters = Filters.compiled(request.include, request.exclude)
        self._protected = Protected(_identities(request.roots))
        self._planned = Totals()
        self._sample: list[ReportEntry] = []

    def run(self) -> MoveResult | MovePlan:
        with self.errors_told(self.move_result), ExitStack() as stack:
            self.guard.check()
            location = locate(self._request.path, self._request.roots)
            top = self._find(location, stack)
            if top is None:
                self.log("nothing is there any more: it was removed meanwhile")
                return self.move_result(None)
            self._refuse_kind(location, top)
            if not self._request.dry_run:
                self._lock(top, stack)
            with Reporter(self.meter, self.control, self.guard):
                goes = self._plan(top)
                if not self._request.dry_run:
                    self._act(top, goes=goes)
            if self._request.dry_run:
                return self.move_plan(self._planned, self._sample)
            self.refuse_partial("the others are removed")
            self.log(f"done: {self.meter.count(Tally.DELETED)} entries removed")
            return self.move_result(None)

    def _find(self, location: Location, stack: ExitStack) -> Doomed | None:
        """Return the entry, None if an earlier attempt of this task has removed it."""
        if not location.parts:
            message = f"{location.text!r} is an allowed root and is never removed"
            raise Refused(message, error_class="root_refused")
        parent = Location(location.text, location.root, location.parts[:-1], wants_directory=True)
        name = location.parts[-1]
        try:
            fd, rest = descend(parent)
            stack.callback(os.close, fd)
            status = None if rest else status_at(fd, name)
        except OSError as error:
            raise as_mover_error(error, location.text) from error
        if status is not None:
            return Doomed(fd, name, "", status)
        # A first attempt that finds nothing ends the task, so there was something once.
        if self._request.epoch > 1:
            return None
        raise not_found(repr(location.text))

    def _refuse_kind(self, location: Location, top: Doomed) -> None:
        """Raise Refused if the entry is not of the kind that the request is for."""
        request = self._request
        if request.backup and top.name == BACKUP_NAME:
            message = f"{location.text!r} is where backups are kept; set backup_deleted=false"
            raise Refused(message, error_class="bad_source")
        if top.is_directory:
            if not request.recursive and _holds_any(top):
                message = f"{location.text!r} is a directory that is not empty; set recursive=true"
                raise Refused(message, error_class="not_empty")
        elif location.wants_directory or request.include or request.exclude:
            what = kind_of(top.status)
            message = f"{location.text!r} is {what}; '/' behind it and patterns mean a directory"
            raise Refused(message, error_class="bad_source")

    def _lock(self, top: Doomed, stack: ExitStack) -> None:
        locks = Locks(root_identities(self._request.roots), self.log)
        stack.callback(locks.close)
        locks.write_in(top.fd)
        if top.is_directory:
            fd = os.open(top.name, PATH_FLAGS, dir_fd=top.fd)
            stack.callback(os.close, fd)
            locks.write(fd)

    def _plan(self, top: Doomed) -> bool:
        """Count everything and refuse before anything is removed; say if the whole entry goes."""
        found = size = 0

        def count(doomed: Doomed) -> None:
            nonlocal found, size
            found += 1
            size += _size(doomed) or 0
            if found > self._request.max_delete:
                raise self._too_many()
            self.meter.working_on(doomed.path)
            if self._request.dry_run:
                self._note(doomed)

        # What cannot be looked at is told once: by a plan, or by the walk that acts.
        fail = self.fail if self._request.dry_run else _leave_to_later
        goes = self._walk(count, fail, repeats=False).run(top)
        self._planned = Totals(deleted=found, bytes=size)
        return goes

    def _walk(self, remove: Callable[[Doomed], None], fail: Fail, *, repeats: bool) -> Walk:
        return Walk(
            filters=self._filters,
            protected=self._protected,
            check=self.guard.check,
            fail=fail,
            remove=remove,
            repeats=repeats,
        )

    def _act(self, top: Doomed, *, goes: bool) -> None:
        self.meter.enter(Phase.DELETE)
        if not self._request.backup:
            self._walk(self._unlink, self.fail, repeats=True).run(top)
            return
        backup = Backup(top.fd, self._request)
        if goes:
            self._move_whole(top, backup)
        else:
            self._walk(partial(self._keep, backup), self.fail, repeats=True).run(top)

    def _unlink(self, doomed: Doomed) -> None:
        self._before_change()
        if doomed.is_directory:
            os.rmdir(doomed.name, dir_fd=doomed.fd)
        else:
            os.unlink(doomed.name, dir_fd=doomed.fd)
        self._done(doomed)

    def _keep(self, backup: Backup, doomed: Doomed) -> None:
        self._before_change()
        if doomed.is_directory:
            backup.keep_directory(doomed.path)
            os.rmdir(doomed.name, dir_fd=doomed.fd)
        else:
            backup.keep(doomed.fd, doomed.name, doomed.folder)
        self._done(doomed)

    def _move_whole(self, top: Doomed, backup: Backup) -> None:
        """Move the entry with all that is in it in one step, then tell what that was."""
        try:
            with backup.opened("") as place:
                self.guard.check()
                os.rename(top.name, top.name, src_dir_fd=top.fd, dst_dir_fd=place)
                self._walk(self._done, self.fail, repeats=False).run(top._replace(fd=place))
        except OSError as error:
            self.fail(top.path, error)

    def _before_change(self) -> None:
        self.guard.check()
        if self.meter.count(Tally.DELETED) >= self._request.max_delete:
            raise self._too_many()

    def _done(self, doomed: Doomed) -> None:
        self.meter.add(Tally.DELETED)
        self.meter.add(Tally.BYTES, _size(doomed) or 0)
        self._note(doomed)

    def _note(self, doomed: Doomed) -> None:
        entry = ReportEntry(action=Action.DELETE, path=doomed.path, size=_size(doomed))
        if len(self._sample) < MAX_FAILED_PATHS:
            self._sample.append(entry)
        self.report(entry)

    def _too_many(self) -> Refused:
        message = (
            f"more than {self._request.max_delete} entries would be removed; check the path, or "
            "raise max_delete"
        )
        return Refused(message, error_class="max_delete")


def _leave_to_later(path: str, error: OSError) -> None:
    """Take a failure of the first walk: the second one meets it again."""


def _holds_any(top: Doomed) -> bool:
    fd = open_same(top)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is not None
    finally:
        os.close(fd)


def _size(doomed: Doomed) -> int | None:
    return doomed.status.st_size if stat.S_ISREG(doomed.status.st_mode) else None


def _identities(roots: tuple[str, ...]) -> frozenset[Mark]:
    """Return what the roots are, and the links that some of them are spelled by."""
    found = set(root_identities(roots))
    for root in roots:
        with suppress(OSError):
            found.add(identity(os.lstat(root)))
    return frozenset(found)
