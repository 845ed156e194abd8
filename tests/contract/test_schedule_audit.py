"""The audit of schedules: whatever is broken by hand is found, and mended."""

from collections.abc import Callable

import pytest
import pytest_asyncio

from app.core.events import DISPATCH_GROUP
from task_state import keys
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.redis import RedisRepositoryProvider
from task_state.schedules import Schedules
from tests.contract.schedule_store import NAME, START, Old, end, spec, task_of
from tests.contract.store import Keyspace
from tests.contract.test_audit import walk


@pytest_asyncio.fixture
async def old(
    schedules: Schedules, keyspace: Keyspace, outbox: Outbox, managed: ManagedTasks
) -> Old:
    """One task ended, one is active, one waits; by its side one that was made anew."""
    await outbox.ensure_group(DISPATCH_GROUP)
    again = await Old(schedules, keyspace, "again").made()
    await again.settle(1)
    await schedules.delete("again")
    await schedules.create("again", spec())
    made = await Old(schedules, keyspace).made(overlap="buffer_all")
    await made.settle(1, 2, 3)
    await end(managed, made.task(1))
    await schedules.release()
    await schedules.run(NAME, {})
    return made


async def test_whole_schedules_have_no_findings(
    provider: RedisRepositoryProvider, old: Old
) -> None:
    assert (await old.now()).active_count == 2
    assert await walk(provider) == []


Break = Callable[[Keyspace], object]
BROKEN: list[tuple[str, Break]] = [
    ("is not listed", lambda space: space.client.zrem(keys.SCHEDULES, NAME)),
    ("no scheduler is told", lambda space: space.client.zrem(keys.SCHEDULE_CHANGES, NAME)),
    ("nothing looks after", lambda space: space.client.zrem(keys.SCHEDULE_WAITING, NAME)),
    ("is listed, and does not exist", lambda space: space.client.zadd(keys.SCHEDULES, {"x": 0})),
    (
        "something left of schedule x",
        lambda space: space.client.hset(keys.schedule_buffer("x"), "1", "slot"),
    ),
    (
        "takes it for active",
        lambda space: space.client.zadd(keys.schedule_active(NAME), {task_of(START + 1): 1}),
    ),
    (
        "schedule nightly takes it for active",
        lambda space: space.client.zadd(keys.schedule_active(NAME), {task_of("r1"): 1}),
    ),
    (
        "does not take it for active",
        lambda space: space.client.zrem(keys.schedule_active(NAME), task_of(START + 2)),
    ),
]


@pytest.mark.parametrize(("what", "break_it"), BROKEN)
async def test_what_is_broken_is_found_and_mended(
    provider: RedisRepositoryProvider, old: Old, keyspace: Keyspace, what: str, break_it: Break
) -> None:
    before = await old.now()
    break_it(keyspace)
    (found,) = await walk(provider)
    assert (found.check, found.mended) == ("schedules", False)
    assert what in found.what
    assert [finding.mended for finding in await walk(provider, mend=True)] == [True]
    assert await walk(provider) == []
    assert await old.now() == before
