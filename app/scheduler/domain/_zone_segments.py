"""The times of a zone as stretches of one UTC offset, in whole epoch seconds; pure time maths."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

_DAY: Final = 86_400
# A local time in a gap as long as this or shorter is made up for: longer ones are no clock change
# of a season, but a zone that moved over the date line.
LONGEST_GAP: Final = 3 * 3600
_MOST_ZONES: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Segment:
    """From `start` up to `end` (UTC epoch seconds) local time is UTC + `offset`.

    `fresh` is the first local second that was not shown before the segment: beyond the local start
    only after a clock went back. `skipped` is how many local seconds a clock that went forward left
    out right before it, and 0 where that is too many to be a clock change.
    """

    start: int
    end: int
    offset: int
    fresh: int
    skipped: int


_recent: Final[dict[tzinfo, Segment]] = {}


def segment_at(zone: tzinfo, epoch: int) -> Segment:
    """The segment that holds the instant."""
    segment = _recent.get(zone)
    if segment is None or not segment.start <= epoch < segment.end:
        segment = _find(zone, epoch)
        if len(_recent) > _MOST_ZONES:
            _recent.clear()
        _recent[zone] = segment
    return segment


def _find(zone: tzinfo, epoch: int) -> Segment:
    year = (_EPOCH + timedelta(seconds=epoch)).year
    for segment in _year(zone, year):
        if epoch < segment.end:
            return segment
    raise AssertionError("a year's segments cover the year")


@lru_cache(maxsize=4096)
def _year(zone: tzinfo, year: int) -> tuple[Segment, ...]:
    """The segments of one UTC year. Those of two days before are looked at too: a clock that went
    back then may show its last times again in this year."""
    first = _epoch(year)
    end = _epoch(year + 1) if year < 9999 else 253_402_300_800
    start = max(first - 2 * _DAY, _epoch(1) + _DAY)
    offset = _offset(zone, start)
    segments: list[Segment] = []
    fresh, skipped, at = start + offset, 0, start
    for change in _changes(zone, start, end):
        segments.append(Segment(at, change, offset, fresh, skipped))
        new = _offset(zone, change)
        skipped = new - offset if 0 < new - offset <= LONGEST_GAP else 0
        fresh = max(fresh, change + offset, change + new)
        at, offset = change, new
    segments.append(Segment(at, end, offset, fresh, skipped))
    return tuple(segment for segment in segments if segment.end > first)


def _changes(zone: tzinfo, start: int, end: int) -> list[int]:
    """The instants at which the offset changes, found by looking at each day."""
    changes: list[int] = []
    seen, before = start, _offset(zone, start)
    while seen < end - 1:
        at = min(seen + _DAY, end - 1)
        now = _offset(zone, at)
        if now != before:
            changes.append(_first_change(zone, seen, at, before))
        seen, before = at, now
    return changes


def _first_change(zone: tzinfo, low: int, high: int, before: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


def _offset(zone: tzinfo, epoch: int) -> int:
    offset = (_EPOCH + timedelta(seconds=epoch)).astimezone(zone).utcoffset()
    return int(offset.total_seconds()) if offset else 0


def _epoch(year: int) -> int:
    return int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
