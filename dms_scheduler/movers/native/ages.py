"""Adds up the ages of files by class, by bucket and by folder, in bounded memory; pure."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from dms_scheduler.movers.results import readable

DAY_SECONDS = 86_400
BUCKET_DAYS = (1, 7, 30, 90, 180, 365, 730)
"""Where one bucket of the histogram ends and the next begins, in days."""
MOST_TOP_FOLDERS = 100
"""How many top-level folders a result names; the others are added up."""


class AgeClass(StrEnum):
    """How a file counts."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


@dataclass(slots=True)
class Sum:
    """A number of files and their bytes."""

    files: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one file."""
        self.files += 1
        self.bytes += size

    def merge(self, other: Sum) -> None:
        """Add another sum."""
        self.files += other.files
        self.bytes += other.bytes

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON-safe data."""
        return {"files": self.files, "bytes": self.bytes}


@dataclass(slots=True)
class Classes:
    """A sum for each class."""

    sums: dict[AgeClass, Sum] = field(default_factory=lambda: {each: Sum() for each in AgeClass})

    @property
    def whole(self) -> Sum:
        """All of them together."""
        total = Sum()
        for each in self.sums.values():
            total.merge(each)
        return total

    def merge(self, other: Classes) -> None:
        """Add those of another."""
        for name, each in other.sums.items():
            self.sums[name].merge(each)

    def to_dict(self) -> dict[str, object]:
        """Return them as JSON-safe data."""
        return {name.value: each.to_dict() for name, each in self.sums.items()}


@dataclass(frozen=True, slots=True, order=True)
class ColdFolder:
    """A folder with cold files: all below it if it is `whole`, else those directly in it."""

    bytes: int
    files: int
    path: str
    whole: bool

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON-safe data."""
        return {
            "path": readable(self.path) or ".",
            "files": self.files,
            "bytes": self.bytes,
            "whole": self.whole,
        }


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """A file and its time, in seconds since the epoch."""

    time: float
    path: str
    size: int

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON-safe data."""
        when = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="seconds")
        return {"path": readable(self.path), "size": self.size, "time": when}


@dataclass(slots=True)
class _Open:
    """A folder that is being walked: what is below it, and what lies directly in it."""

    below: Classes = field(default_factory=Classes)
    direct_cold: Sum = field(default_factory=Sum)
    coldest: list[ColdFolder] = field(default_factory=list[ColdFolder])


class Ages:
    """Takes files folder by folder; a folder is closed after all that lie in it."""

    def __init__(self, *, now: float, hot_days: int, cold_days: int, top: int) -> None:
        """`now` is in seconds since the epoch; `top` bounds the list of cold folders."""
        self._now = now
        self._hot_days = hot_days
        self._cold_days = cold_days
        self._top = top
        self._open: dict[str, _Open] = {}
        self._all = Classes()
        self._buckets = [Sum() for _ in range(len(BUCKET_DAYS) + 1)]
        self._folders: list[tuple[int, str, Classes]] = []
        self._others = Classes()
        self._other_folders = 0
        self._coldest: list[ColdFolder] = []
        self._oldest: Moment | None = None
        self._newest: Moment | None = None

    def enter(self, folder: str) -> None:
        """Begin a folder; '' is the top."""
        self._open[folder] = _Open()

    def add(self, folder: str, path: str, size: int, moment: float) -> tuple[AgeClass, int]:
        """Count a file of an open folder; return its class and its age in whole days.

        A time that lies in the future counts as now.
        """
        days = max(0.0, self._now - moment) / DAY_SECONDS
        age = self._class_of(days)
        place = self._open[folder]
        place.below.sums[age].add(size)
        if age is AgeClass.COLD:
            place.direct_cold.add(size)
        self._buckets[bisect_right(BUCKET_DAYS, days)].add(size)
        seen = Moment(moment, path, size)
        self._oldest = min(self._oldest or seen, seen)
        self._newest = max(self._newest or seen, seen)
        return age, int(days)

    def _class_of(self, days: float) -> AgeClass:
        if days >= self._cold_days:
            return AgeClass.COLD
        return AgeClass.HOT if days < self._hot_days else AgeClass.WARM

    def leave(self, folder: str, parent: str | None) -> None:
        """Close a folder; `parent` is None for the top, and '' for a folder directly in it."""
        place = self._open.pop(folder)
        cold = self._cold_folders(folder, place)
        if parent is None:
            self._all = place.below
            self._coldest = sorted(cold, reverse=True)
            return
        above = self._open[parent]
        if not parent:
            self._name(folder, place.below)
        above.below.merge(place.below)
        above.coldest = heapq.nlargest(self._top, [*above.coldest, *cold])

    def _cold_folders(self, folder: str, place: _Open) -> list[ColdFolder]:
        """Return the folder alone if all in it is cold, else what is cold in it and below."""
        cold, whole = place.below.sums[AgeClass.COLD], place.below.whole
        if cold.files and cold.files == whole.files:
            found = [ColdFolder(cold.bytes, cold.files, folder, whole=True)]
        else:
            found = place.coldest
            direct = place.direct_cold
            if direct.files:
                own = ColdFolder(direct.bytes, direct.files, folder, whole=False)
                found = [*found, own]
        return heapq.nlargest(self._top, found)

    def _name(self, folder: str, below: Classes) -> None:
        """Keep the largest top-level folders, and add up the others."""
        heapq.heappush(self._folders, (below.whole.bytes, folder, below))
        if len(self._folders) > MOST_TOP_FOLDERS:
            self._others.merge(heapq.heappop(self._folders)[2])
            self._other_folders += 1

    def to_dict(self) -> dict[str, object]:
        """Return all of it as JSON-safe data, once the top is closed."""
        named = sorted(self._folders, key=lambda each: (-each[0], each[1]))
        return {
            "classes": self._all.to_dict(),
            "histogram": self._histogram(),
            "folders": [_folder(path, classes) for _, path, classes in named],
            "other_folders": {"count": self._other_folders, **self._others.to_dict()},
            "cold_folders": [each.to_dict() for each in self._coldest],
            "oldest": self._oldest.to_dict() if self._oldest else None,
            "newest": self._newest.to_dict() if self._newest else None,
        }

    @property
    def whole(self) -> Sum:
        """All files together, once the top is closed."""
        return self._all.whole

    def _histogram(self) -> list[dict[str, object]]:
        edges = [0, *BUCKET_DAYS, None]
        return [
            {"from_days": edges[index], "to_days": edges[index + 1], **bucket.to_dict()}
            for index, bucket in enumerate(self._buckets)
        ]


def _folder(path: str, classes: Classes) -> dict[str, object]:
    return {"path": readable(path), **classes.whole.to_dict(), **classes.to_dict()}
