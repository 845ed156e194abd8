"""Cron expressions: which instants they mean. Pure time maths: no clock, no I/O.

Fields as Vixie cron reads them, with an optional second field in front and the extensions L, LW,
nW, L-n, nL and #. Searching works on whole epoch seconds and bit masks; datetimes are made at the
edges only.
"""

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from functools import lru_cache
from math import ceil, floor
from typing import Final, Literal, get_args

from app.scheduler.domain._cron_count import count
from app.scheduler.domain._cron_days import check_possible
from app.scheduler.domain._cron_fields import Fields, parse_fields
from app.scheduler.domain._cron_search import Memo, next_local, previous_local
from app.scheduler.domain._cron_words import describe
from app.scheduler.domain._zone_segments import Segment, segment_at
from app.scheduler.domain.errors import CronError

DstPolicy = Literal["once", "skip", "wall"]
"""What a clock change does to an expression whose minute and hour do not begin with `*`. "once": a
time that a forward jump (of up to 3 hours) leaves out fires once right after it, one that a
backward jump repeats fires the first time only. "skip": what is left out does not fire. "wall":
whatever the clock on the wall shows: left out not at all, repeated twice. Any other expression
follows the wall: `*/5 * * * *` goes on every five real minutes."""

_POLICIES: Final[tuple[str, ...]] = get_args(DstPolicy)
_FAR: Final = 2 * 86_400
_LAST_EPOCH: Final = 253_370_764_800  # the year 9999 begins
_FIRST_EPOCH: Final = -62_103_801_600  # the year 2 begins


@dataclass(frozen=True, slots=True)
class CronExpression:
    """One expression. Make it by `CronExpression.parse`, which raises CronError and is cached."""

    text: str
    dst_policy: DstPolicy
    _fields: Fields = field(repr=False)
    _follows_wall: bool = field(repr=False)
    _memo: Memo = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, *, dst_policy: DstPolicy = "once") -> "CronExpression":
        """Read 5 fields, 6 fields or a nickname such as `@daily`.

        Raises CronError, which names the field, the value and what is allowed, also for dates that
        never come.
        """
        if dst_policy not in _POLICIES:
            known = ", ".join(_POLICIES)
            raise CronError(f"dst_policy {dst_policy!r} is not one of {known}")
        return _parse(text, dst_policy)

    def next(self, after: datetime) -> datetime:
        """The first instant strictly after `after`, in its zone. Raises ValueError for a time
        without a zone, CronError beyond the year 9998."""
        zone = _zone_of(after)
        return datetime.fromtimestamp(self.next_epoch(after.timestamp(), zone), zone)

    def previous(self, before: datetime) -> datetime:
        """The last instant strictly before `before`, in its zone; errors as `next`."""
        zone = _zone_of(before)
        return datetime.fromtimestamp(self.previous_epoch(before.timestamp(), zone), zone)

    def preview(self, count: int, after: datetime) -> list[datetime]:
        """The next `count` instants after `after`."""
        found: list[datetime] = []
        for _ in range(count):
            after = self.next(after)
            found.append(after)
        return found

    def describe(self) -> str:
        """The expression in English words."""
        return describe(self._fields)

    def next_epoch(self, after: float, zone: tzinfo) -> int:
        """`next` in epoch seconds."""
        at = floor(after) + 1
        known, first, found = self._memo.found
        if known is zone and first <= at <= found:
            return found
        _check_range(at)
        found = self._search(at, zone)
        self._memo.found = (zone, at, found)
        return found

    def previous_epoch(self, before: float, zone: tzinfo) -> int:
        """`previous` in epoch seconds."""
        at = ceil(before) - 1
        _check_range(at)
        while True:
            segment = segment_at(zone, at)
            first = segment.start
            if not self._follows_wall:
                first = max(first, segment.fresh - segment.offset)
            found = at
            if at >= first:
                found = previous_local(self._fields, self._memo, at + segment.offset)
                found -= segment.offset
                if found >= first:
                    return found
            if not self._follows_wall and segment.skipped and self._made_up(segment):
                return segment.start
            near = at - segment.start < _FAR
            at = segment.start - 1 if near else min(segment.start - 1, found + _FAR)

    def count(self, after: float, upto: float, zone: tzinfo) -> int:
        """How many instants there are after `after` up to `upto` (epoch seconds); quick also where
        there are millions. Raises CronError beyond the year 9998."""
        return count(
            self._fields, lambda at: self.next_epoch(at, zone), zone, floor(after), floor(upto)
        )

    def _search(self, at: int, zone: tzinfo) -> int:
        """The first instant from `at` on."""
        while True:
            segment = segment_at(zone, at)
            if self._follows_wall:
                local = at + segment.offset
            elif at == segment.start and segment.skipped and self._made_up(segment):
                return at
            else:
                local = max(at + segment.offset, segment.fresh)
            found = next_local(self._fields, self._memo, local) - segment.offset
            if found < segment.end:
                return found
            # No zone has ever moved its clock by more than a day, so nothing lies in between, save
            # for what a clock that goes back shows again soon.
            near = segment.end - at < _FAR
            at = segment.end if near else max(segment.end, found - _FAR)

    def _made_up(self, segment: Segment) -> bool:
        """Whether a time that the clock left out is made up for as the segment begins."""
        if self.dst_policy == "skip":
            return False
        end = segment.start + segment.offset
        return next_local(self._fields, self._memo, end - segment.skipped) < end


# Parsing costs more than a search, and the same few expressions stand in most schedules.
@lru_cache(maxsize=8192)
def _parse(text: str, dst_policy: DstPolicy) -> CronExpression:
    fields = parse_fields(text)
    check_possible(fields, text)
    follows_wall = dst_policy == "wall" or fields.wildcard
    return CronExpression(text, dst_policy, fields, follows_wall, Memo())


def _zone_of(moment: datetime) -> tzinfo:
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment.isoformat()} names no time zone: pass an aware datetime, such as "
            "datetime.now(ZoneInfo('Asia/Seoul'))"
        )
    return moment.tzinfo


def _check_range(at: int) -> None:
    if not _FIRST_EPOCH < at < _LAST_EPOCH:
        raise CronError("cron times are computed for the years 2 to 9998")
