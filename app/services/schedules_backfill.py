"""Making up slots of the past: which ones a range has, and what becomes of them."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from math import ceil
from typing import Final, TypeVar

from app.core.errors import BadInputError
from app.services.deadline import store_deadline
from app.services.schedules_plan import SchedulePlan
from task_state import MAX_PAGE
from task_state.redis import RedisRepositoryProvider
from task_state.schedules import MAX_BUFFERED, MAX_SLOT_TASKS, Fire, Overlap
from task_state.timezone import from_microseconds

MAX_BACKFILL: Final = 1000
_T = TypeVar("_T")


class Range:
    """The slots of a schedule from a time to before another one. Raises BadInputError for more than
    1000 of them, and for an end in the future: `moment` is now, in seconds since 1970."""

    def __init__(self, plan: SchedulePlan, start: datetime, end: datetime, moment: float) -> None:
        self.plan = plan
        self.moment = moment
        self.slots = _slots(plan, plan.aware(start), plan.aware(end), moment)

    async def preview(self, provider: RedisRepositoryProvider, timeout: float) -> list[Fire]:
        """What would become of them: "existing" or "fired"."""
        existing = await self._existing(provider, timeout)
        at = from_microseconds(int(self.moment * 1_000_000), self.plan.zone)
        return [
            Fire(
                slot=slot,
                at=at,
                kind="backfill",
                outcome="existing" if task_id in existing else "fired",
                task_id=task_id,
            )
            for slot, task_id in zip(self.slots, self._ids(), strict=True)
        ]

    async def make_up(
        self, provider: RedisRepositoryProvider, timeout: float, overlap: Overlap
    ) -> list[Fire]:
        """Hand them to the store, oldest first. Repeating it is safe: what exists is left alone."""
        if overlap is Overlap.BUFFER_ALL:
            new = len(self.slots) - len(await self._existing(provider, timeout))
            if new > MAX_BUFFERED:
                raise BadInputError(
                    f"{new} slots would have to wait for each other, and {MAX_BUFFERED} may: give "
                    "a shorter range, or overlap 'allow' if they may run at the same time"
                )
        schedules = await provider.get_schedules()
        fires: list[Fire] = []
        for some in _pieces(self.slots, MAX_SLOT_TASKS):
            async with store_deadline(timeout):
                tasks = self.plan.tasks(some)
                fires += await schedules.backfill(self.plan.schedule_id, tasks, overlap=overlap)
        return fires

    async def _existing(self, provider: RedisRepositoryProvider, timeout: float) -> set[str]:
        repository = await provider.get_repository()
        found: set[str] = set()
        for some in _pieces(self._ids(), MAX_PAGE):
            async with store_deadline(timeout):
                found |= {task.task_id for task in await repository.list_by_ids(some)}
        return found

    def _ids(self) -> list[str]:
        return [f"s.{self.plan.schedule_id}.{slot}" for slot in self.slots]


def _slots(plan: SchedulePlan, start: datetime, end: datetime, moment: float) -> list[int]:
    if start >= end:
        raise BadInputError(f"start {start.isoformat()} is not before end {end.isoformat()}")
    if start.timestamp() < 0:
        raise BadInputError(f"start {start.isoformat()} is before 1970: nothing was scheduled then")
    if end.timestamp() > moment:
        raise BadInputError(
            f"end {end.isoformat()} is in the future: those slots will fire by themselves"
        )
    first, last = ceil(start.timestamp()) - 1, ceil(end.timestamp()) - 1
    count = plan.count(first, last)
    if count > MAX_BACKFILL:
        raise BadInputError(
            f"the range has {count} slots, and {MAX_BACKFILL} may be made up at once: give a "
            "shorter one, and then the next"
        )
    return plan.following(first, count)


def _pieces(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
