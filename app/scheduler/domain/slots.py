"""Which slots of a cron trigger fire, and when: misfires, jitter, start and end. Pure time maths.

A *slot* is an instant that the expression means, in whole seconds since 1970 UTC. It is *due* at
the slot itself, or a little later where there is jitter.
"""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from hashlib import blake2b
from math import ceil, floor, isfinite
from typing import Final, Literal, NamedTuple, get_args

from app.scheduler.domain.cron_expression import CronExpression
from app.scheduler.domain.errors import CronError, TriggerConfigError

Coalesce = Literal["latest", "earliest", "all", "none"]
"""What becomes of slots of which one was missed: the newest fires, or the oldest, or each (at most
`max_catchup`, the newest), or only those that are not later than `grace`."""

MAX_JITTER: Final = 86_400.0
_HASHES: Final = 2.0**64


@dataclass(frozen=True, slots=True, kw_only=True)
class FirePolicy:
    """How a cron trigger treats its slots. Raises TriggerConfigError.

    grace: by how many seconds a slot may be late and still be in time. When a look at the clock
    finds the oldest slot that is due later than that (the process slept, the clock was set, events
    could not be published), slots were missed, and `coalesce` says what fires.
    max_catchup: how many slots fire after one look at most; older ones do not.
    jitter: a slot fires up to so many seconds after its time, but before the next slot; by how
    many depends on the trigger's id and the slot alone.
    start, end: there are no slots before `start`, nor from `end` on. Aware times.
    """

    grace: float = 60.0
    coalesce: Coalesce = "latest"
    max_catchup: int = 100
    jitter: float = 0.0
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        if not (isfinite(self.grace) and self.grace >= 0):
            raise TriggerConfigError(f"grace is {self.grace}: give seconds from 0 on")
        if self.coalesce not in get_args(Coalesce):
            known = ", ".join(get_args(Coalesce))
            raise TriggerConfigError(f"coalesce is {self.coalesce!r}: give one of {known}")
        if self.max_catchup < 1:
            raise TriggerConfigError(f"max_catchup is {self.max_catchup}: give 1 or more")
        if not 0 <= self.jitter <= MAX_JITTER:
            raise TriggerConfigError(f"jitter is {self.jitter}: give 0 to {MAX_JITTER:g} seconds")
        for name, moment in (("start", self.start), ("end", self.end)):
            if moment is not None and moment.tzinfo is None:
                raise TriggerConfigError(
                    f"{name} is {moment.isoformat()}, without a time zone: give an aware datetime"
                )
        if self.start and self.end and self.start >= self.end:
            raise TriggerConfigError(f"start {self.start} is not before end {self.end}")


DEFAULT_POLICY: Final = FirePolicy()


class Look(NamedTuple):
    """What a look at the clock found: the slots that fire, oldest first; the slot to wait for, None
    when there is none any more; whether some slot that is due does not fire."""

    fires: list[int]
    following: int | None
    skipped: bool


def first_slot(
    expression: CronExpression, zone: tzinfo, policy: FirePolicy, after: float
) -> int | None:
    """The first slot strictly after `after`; None if there is none any more."""
    if policy.start is not None:
        after = max(after, ceil(policy.start.timestamp()) - 1)
    try:
        slot = expression.next_epoch(after, zone)
    except CronError:  # beyond the last year that is computed
        return None
    if policy.end is not None and slot >= policy.end.timestamp():
        return None
    return slot


def due_at(
    expression: CronExpression, zone: tzinfo, policy: FirePolicy, key: str, slot: int
) -> float:
    """When the slot is to fire."""
    if not policy.jitter:
        return slot
    # Not beyond the next slot: so slots stay in order, and all but the newest are due.
    gap = expression.next_epoch(slot, zone) - slot
    digest = blake2b(f"{slot} {key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return slot + int.from_bytes(digest) / _HASHES * min(policy.jitter, gap)


def look(
    expression: CronExpression, zone: tzinfo, policy: FirePolicy, key: str, slot: int, now: float
) -> Look:
    """What fires at `now`, when `slot` is the oldest that has not been looked at and is due."""
    following = first_slot(expression, zone, policy, slot)
    late = now - (due_at(expression, zone, policy, key, slot) if policy.jitter else slot)
    if following is None or now < following:  # this one alone, as nearly always
        fires = [] if late > policy.grace and policy.coalesce == "none" else [slot]
        return Look(fires, following, not fires)
    return _several(expression, zone, policy, key, slot, now)


def _several(
    expression: CronExpression, zone: tzinfo, policy: FirePolicy, key: str, slot: int, now: float
) -> Look:
    def due(one: int) -> float:
        return due_at(expression, zone, policy, key, one)

    newest = _newest(expression, zone, policy, now)
    if newest > slot and due(newest) > now:
        newest = expression.previous_epoch(newest, zone)
    following = first_slot(expression, zone, policy, newest)
    missed = now - due(slot) > policy.grace
    if missed and policy.coalesce == "latest":
        return Look([newest], following, newest != slot)
    if missed and policy.coalesce == "earliest":
        return Look([slot], following, newest != slot)
    only_in_time = missed and policy.coalesce == "none"
    fires: list[int] = []
    at = newest
    while at >= slot and len(fires) < policy.max_catchup:
        if only_in_time and now - due(at) > policy.grace:
            break
        fires.append(at)
        at = expression.previous_epoch(at, zone)
    return Look(fires[::-1], following, at >= slot)


def _newest(expression: CronExpression, zone: tzinfo, policy: FirePolicy, now: float) -> int:
    """The last slot up to `now`."""
    before = floor(now) + 1
    if policy.end is not None:
        before = min(before, ceil(policy.end.timestamp()))
    return expression.previous_epoch(before, zone)
