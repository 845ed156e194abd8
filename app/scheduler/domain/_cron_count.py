"""How many instants a cron expression has in a stretch of time, without visiting each; pure."""

from collections.abc import Callable
from datetime import tzinfo
from typing import Final

from app.scheduler.domain._cron_fields import Fields
from app.scheduler.domain._zone_segments import segment_at

_SIZES: Final = (86_400, 3600, 60)


def count(
    fields: Fields, find_next: Callable[[int], int], zone: tzinfo, after: int, upto: int
) -> int:
    """How many there are after `after` up to `upto`. Days, hours and minutes that lie in the
    stretch as a whole, and in which no clock changes, are counted at once."""
    in_minute = fields.seconds.bit_count()
    in_hour = fields.minutes.bit_count() * in_minute
    counts = (fields.hours.bit_count() * in_hour, in_hour, in_minute)
    total = 0
    while (at := find_next(after)) <= upto:
        for size, within in zip(_SIZES, counts, strict=True):
            start = _block(zone, at, size)
            if start is not None and after < start and start + size - 1 <= upto:
                total += within
                after = start + size - 1
                break
        else:
            total += 1
            after = at
    return total


def _block(zone: tzinfo, at: int, size: int) -> int | None:
    """The first second of the day, hour or minute of `at`, unless a clock changes in it."""
    segment = segment_at(zone, at)
    start = at - (at + segment.offset) % size
    whole = segment.start < start and start + size <= segment.end
    return start if whole and segment.fresh <= start + segment.offset else None
