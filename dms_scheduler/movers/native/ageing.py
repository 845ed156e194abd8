"""Tells how old the files of a tree of this machine are; looks at entries, never into a file."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from dms_scheduler.movers.contract import Control
from dms_scheduler.movers.errors import Refused
from dms_scheduler.movers.native.ages import AgeClass, Ages
from dms_scheduler.movers.native.endpoints import Source, open_source
from dms_scheduler.movers.native.meter import Reporter, Tally
from dms_scheduler.movers.native.session import ENGINE, VERSION, Session
from dms_scheduler.movers.native.tree import Folder, Item, Opener, Visit, walk
from dms_scheduler.movers.paths import locate
from dms_scheduler.movers.patterns import Filters
from dms_scheduler.movers.results import Action, AgeResult, ReportEntry


class AgeBy(StrEnum):
    """Which time of a file says how old it is."""

    MTIME = "mtime"
    ATIME = "atime"
    NEWEST = "newest"


_TIMES: dict[AgeBy, Callable[[os.stat_result], float]] = {
    AgeBy.MTIME: lambda status: status.st_mtime,
    AgeBy.ATIME: lambda status: status.st_atime,
    AgeBy.NEWEST: lambda status: max(status.st_mtime, status.st_atime),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeRequest:
    """One look at the directory `path`, below one of `roots`: from `cold_days` on files are cold,
    before `hot_days` hot. `top` is how many folders with the most cold bytes are named."""

    path: str
    roots: tuple[str, ...]
    by: AgeBy = AgeBy.MTIME
    hot_days: int = 30
    cold_days: int = 180
    top: int = 20
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def age(request: AgeRequest, control: Control, *, now: float | None = None) -> AgeResult:
    """Count the ages of all files; `now` is in seconds since the epoch.

    Raises:
        MoverError: the directory cannot be read, or a part of it (PartialFailure, with `result`).

    """
    return _Ageing(request, control, time.time() if now is None else now).run()


class _Ageing(Session):
    """One look."""

    def __init__(self, request: AgeRequest, control: Control, now: float) -> None:
        super().__init__(control)
        self._request = request
        self._now = now
        self._time = _TIMES[request.by]
        self._filters = Filters.compiled(request.include, request.exclude)
        self._ages = Ages(
            now=now, hot_days=request.hot_days, cold_days=request.cold_days, top=request.top
        )

    def run(self) -> AgeResult:
        with self.errors_told(self._result), ExitStack() as stack:
            self.guard.check()
            source = open_source(locate(self._request.path, self._request.roots), stack)
            if source.name is not None:
                message = f"{self._request.path!r} is a file; give a directory"
                raise Refused(message, error_class="bad_source")
            with Reporter(self.meter, self.control, self.guard):
                self._walk(source)
            self.refuse_partial("the others were counted")
            return self._result(None)

    def _walk(self, source: Source) -> None:
        opener = Opener(
            forbidden=None,
            counterpart=lambda _parent, _name: None,
            fail=self.fail,
            entered=self._enter,
            on_done=self._leave,
        )
        top = opener.open_top(source.fd, None)
        visit = Visit(filters=self._filters, guard=self.guard, fail=self.fail, enter=opener.enter)
        with closing(walk(top, visit)) as items:
            for item in items:
                self._count(item)

    def _enter(self, folder: Folder) -> None:
        self._ages.enter(folder.path)
        if folder.parent is not None and self._filters.selects(folder.path):
            self.meter.add(Tally.DIRS)

    def _leave(self, folder: Folder) -> None:
        self._ages.leave(folder.path, folder.parent.path if folder.parent else None)

    def _count(self, item: Item) -> None:
        mode = item.status.st_mode
        self.meter.add(Tally.CHECKS)
        if stat.S_ISLNK(mode):
            self.meter.add(Tally.LINKS)
        elif not stat.S_ISREG(mode):
            self.meter.add(Tally.SPECIAL)
        else:
            self._file(item)

    def _file(self, item: Item) -> None:
        size, path = item.status.st_size, item.path
        self.meter.add(Tally.FILES)
        self.meter.working_on(path)
        found, days = self._ages.add(item.folder.path, path, size, self._time(item.status))
        if found is AgeClass.COLD:
            reason = f"{days} days"
            self.report(ReportEntry(action=Action.AGED, path=path, size=size, reason=reason))

    def _result(self, error_class: str | None) -> AgeResult:
        totals, whole = self.meter.totals, self._ages.whole
        ages: dict[str, object] = {
            "by": self._request.by.value,
            "hot_days": self._request.hot_days,
            "cold_days": self._request.cold_days,
            "at": datetime.fromtimestamp(self._now, UTC).isoformat(timespec="seconds"),
            "totals": {
                **whole.to_dict(),
                "dirs": totals.dirs,
                "links": totals.links,
                "special": totals.special,
            },
            **self._ages.to_dict(),
        }
        return AgeResult(
            engine=ENGINE,
            version=VERSION,
            ages=ages,
            seconds=self.meter.seconds,
            error_class=error_class,
            failed=self.meter.failed,
            failed_count=self.meter.failed_count,
        )
