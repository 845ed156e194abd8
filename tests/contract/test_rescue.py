"""The rescuer: whose tasks it takes back, when, and what becomes of them."""

import asyncio

import pytest

from task_state import FencedError, TaskStatus, keys
from task_state.managed import ManagedTasks, Rescued, Waiting
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace
from tests.contract.test_managed_tasks import begin, loaded, running, submit


async def rescue(managed: ManagedTasks, keyspace: Keyspace) -> list[Rescued]:
    keyspace.let_rescue()
    return await managed.rescue()


async def die(managed: ManagedTasks, keyspace: Keyspace, task_id: str, epoch: int) -> Rescued:
    """Let the worker of an attempt die, and rescue the task."""
    await begin(managed, task_id, epoch)
    keyspace.expire_lease(task_id)
    (rescued,) = await rescue(managed, keyspace)
    return rescued


async def test_a_lost_task_waits_for_its_next_attempt(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    keyspace.expire_lease(task_id)
    assert await rescue(managed, keyspace) == [Rescued(task_id, TaskStatus.PENDING, 1)]
    found = await loaded(repository, task_id)
    assert (found.status, found.attempts, found.epoch) == (TaskStatus.PENDING, 0, 1)
    assert "Worker w1 was lost in attempt 1; the task waits" in found.logs[-1]
    assert keyspace.client.zcard(keys.LEASES) == 0
    assert await managed.accept(task_id) == Waiting(task_id, 2)
    with pytest.raises(FencedError):
        await managed.heartbeat(task_id, 1)
    await begin(managed, task_id, 2)
    with pytest.raises(FencedError):
        await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    await managed.finish(task_id, 2, TaskStatus.COMPLETED)
    assert [kind for kind, _, _ in keyspace.outbox()] == ["submitted", "finished"]


async def test_the_lost_attempt_may_still_end_the_task_before_the_next_begins(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    keyspace.expire_lease(task_id)
    await rescue(managed, keyspace)
    assert await managed.finish(task_id, 1, TaskStatus.COMPLETED) is TaskStatus.COMPLETED
    assert await managed.begin(task_id, 2, worker="w2") is None
    assert (await loaded(repository, task_id)).status is TaskStatus.COMPLETED
    assert keyspace.client.zcard(keys.QUEUED) == 0


@pytest.mark.parametrize("how", ["retry", "release"])
async def test_a_lost_attempt_gives_nothing_back_any_more(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace, how: str
) -> None:
    task_id = await running(managed)
    keyspace.expire_lease(task_id)
    await rescue(managed, keyspace)
    give_back = managed.retry if how == "retry" else managed.release
    assert await give_back(task_id, 1) is TaskStatus.PENDING
    assert (await loaded(repository, task_id)).attempts == 0


async def test_grace_runs_from_the_end_of_the_lease(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    assert await rescue(managed, keyspace) == [], "its lease lives"
    keyspace.expire_lease(task_id, seconds_ago=60)
    keyspace.let_rescue()
    assert await managed.rescue(grace_seconds=120) == []
    keyspace.let_rescue()
    assert [item.task_id for item in await managed.rescue(grace_seconds=30)] == [task_id]


async def test_nothing_is_rescued_until_redis_was_reachable_for_a_heartbeat(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    keyspace.expire_lease(task_id)
    assert await managed.rescue() == [], "the first time: nobody knows since when Redis is up"
    keyspace.client.delete(keys.PREFIX + "rescue:turn")
    assert await managed.rescue() == [], "not yet"
    keyspace.let_rescue()
    last = int(keyspace.client.hget(keys.PREFIX + "rescue", "last") or 0)
    keyspace.client.hset(keys.PREFIX + "rescue", "last", str(last - 60_000))
    assert await managed.rescue() == [], "a gap of a minute: Redis was away"
    keyspace.let_rescue()
    assert len(await managed.rescue()) == 1


async def test_one_caller_a_period(managed: ManagedTasks, keyspace: Keyspace) -> None:
    tasks = {await running(managed) for _ in range(5)}
    for task_id in tasks:
        keyspace.expire_lease(task_id)
    keyspace.let_rescue()
    answers = await asyncio.gather(*(managed.rescue(period_seconds=3600) for _ in range(10)))
    assert sorted(map(len, answers)) == [0] * 9 + [5]
    assert {item.task_id for answer in answers for item in answer} == tasks


async def test_a_limit_leaves_the_rest_for_the_next_time(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    tasks = {await running(managed) for _ in range(5)}
    for task_id in tasks:
        keyspace.expire_lease(task_id)
    rescued = set[str]()
    for expected in (2, 2, 1, 0):
        keyspace.let_rescue()
        batch = await managed.rescue(limit=2)
        assert len(batch) == expected
        rescued |= {item.task_id for item in batch}
    assert rescued == tasks


async def test_a_cancel_that_nobody_saw_is_done_by_the_rescuer(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    await managed.cancel(task_id)
    keyspace.expire_lease(task_id)
    assert await rescue(managed, keyspace) == [Rescued(task_id, TaskStatus.CANCELLED, 1)]
    found = await loaded(repository, task_id)
    assert "cancelled as requested" in found.logs[-1]
    assert keyspace.outbox()[-1] == ("finished", task_id, "CANCELLED")


async def test_the_third_death_without_progress_is_the_last(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await submit(managed)
    statuses = [(await die(managed, keyspace, task_id, epoch)).status for epoch in (1, 2, 3)]
    assert statuses == [TaskStatus.PENDING, TaskStatus.PENDING, TaskStatus.FAILED]
    found = await loaded(repository, task_id)
    assert found.result.error is not None
    assert "3 workers died of this task with no progress between them" in found.result.error
    assert found.logs[-1].endswith(found.result.error)
    assert found.attempts == 0
    assert found.completed_at is not None
    assert [event for event in keyspace.outbox() if event[0] == "finished"] == [
        ("finished", task_id, "FAILED")
    ]


async def test_progress_clears_the_count_of_deaths(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    task_id = await submit(managed)
    for epoch in (1, 2):
        await die(managed, keyspace, task_id, epoch)
    await begin(managed, task_id, 3)
    await managed.heartbeat(task_id, 3, progress={"files": 1}, advanced=True)
    keyspace.expire_lease(task_id)
    (rescued,) = await rescue(managed, keyspace)
    assert rescued.status is TaskStatus.PENDING
    await begin(managed, task_id, 4)
    await managed.heartbeat(task_id, 4, progress={"files": 1})
    keyspace.expire_lease(task_id)
    assert (await rescue(managed, keyspace))[0].status is TaskStatus.PENDING
    assert (await die(managed, keyspace, task_id, 5)).status is TaskStatus.FAILED, (
        "a heartbeat alone is no progress"
    )


async def test_releases_are_never_poison(managed: ManagedTasks, keyspace: Keyspace) -> None:
    task_id = await submit(managed)
    for epoch in range(1, 8):
        await begin(managed, task_id, epoch)
        assert await managed.release(task_id, epoch) is TaskStatus.PENDING


async def test_a_rescued_task_is_watched_over(managed: ManagedTasks, keyspace: Keyspace) -> None:
    task_id = await running(managed)
    keyspace.expire_lease(task_id)
    await rescue(managed, keyspace)
    keyspace.let_queue_check(task_id)
    assert await managed.unqueued() == [Waiting(task_id, 2)]


async def test_stale_lease_entries_are_dropped(managed: ManagedTasks, keyspace: Keyspace) -> None:
    task_id = await submit(managed)
    keyspace.client.zadd(keys.LEASES, {task_id: 1, "gone": 1})
    assert await rescue(managed, keyspace) == []
    assert keyspace.client.zcard(keys.LEASES) == 0
