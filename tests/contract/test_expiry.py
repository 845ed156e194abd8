"""Time to live: what expires, when it runs, and that nothing is left behind."""

import time
from typing import cast

import pytest

from task_state import TaskResult, TaskStatus, keys
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.contract.servers import RealServer
from tests.contract.store import Keyspace, record
from tests.contract.test_managed_tasks import begin, loaded, running, submit

DAY = 86_400_000
TTL = 7_776_000_000


def lives(keyspace: Keyspace, task_id: str) -> dict[str, int]:
    """The native time to live of each key of a task, in ms; -1 is for ever."""
    kinds = (keys.task, keys.logs, keys.output, keys.report, keys.series)
    names = [made(task_id) for made in kinds]
    found = {name: keyspace.client.pttl(name) for name in names}
    return {name: life for name, life in found.items() if life != -2}


def assert_running(keyspace: Keyspace, task_id: str, ttl: int = TTL) -> None:
    """The time to live runs from now: native expiry a day behind the sweeper's."""
    found = lives(keyspace, task_id)
    assert found
    for life in found.values():
        assert ttl + DAY - 60_000 < life <= ttl + DAY
    score = keyspace.client.zscore(keys.EXPIRY, f"{task_id}:analytics:alice")
    assert score is not None
    assert abs(score - time.time() * 1000 - ttl) < 60_000


def age(keyspace: Keyspace, task_id: str) -> None:
    """Let most of its time have passed."""
    for name in lives(keyspace, task_id):
        keyspace.client.pexpire(name, 1_000_000)
    keyspace.client.zadd(keys.EXPIRY, {f"{task_id}:analytics:alice": 1})


async def test_every_write_of_an_unmanaged_record_starts_its_time_anew(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    full = record(logs=["x"], result=TaskResult(launcher_output="y"))
    await repository.save(full)
    assert_running(keyspace, "external-1")
    assert len(lives(keyspace, "external-1")) == 3
    full.description = "d"

    async def writes() -> None:
        for write in (
            repository.append_log("external-1", "x"),
            repository.append_logs("external-1", ["x"]),
            repository.update_result("external-1", launcher_output="x"),
            repository.update_result("external-1", error="x"),
            repository.set_progress("external-1", {}),
            repository.add_jobs("external-1", ["j"]),
            repository.set_status("external-1", TaskStatus.RUNNING),
            repository.set_status("external-1", TaskStatus.RUNNING, log_entry="same"),
            repository.set_status("external-1", TaskStatus.COMPLETED),
            repository.append_log("external-1", "after the end"),
            repository.save(record(logs=["x"])),
        ):
            age(keyspace, "external-1")
            await write
            assert_running(keyspace, "external-1")

    await writes()


async def test_keys_that_come_later_expire_too(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    """A write soon after the last one renews nothing, unless it made a key."""
    await repository.save(record())
    ended = await running(managed, service="analytics")
    await managed.finish(ended, 1, TaskStatus.COMPLETED)
    for task_id in ("external-1", ended):
        await repository.append_log(task_id, "x")
        await repository.update_result(task_id, launcher_output="x")
        assert len(lives(keyspace, task_id)) == 3
        assert_running(keyspace, task_id)


async def test_the_time_to_live_is_a_setting(shared_server: RealServer, keyspace: Keyspace) -> None:
    settings = RedisRepositorySettings(
        write_url=shared_server.url, task_ttl_seconds=5, timeout_seconds=60
    )
    provider = RedisRepositoryProvider(settings)
    try:
        await (await provider.get_repository()).save(record())
    finally:
        await provider.close()
    assert_running(keyspace, "external-1", ttl=5000)


async def test_a_managed_task_lives_until_it_ended(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await submit(managed, service="analytics")

    def never() -> None:
        assert set(lives(keyspace, task_id).values()) == {-1}
        assert keyspace.client.zcard(keys.EXPIRY) == 0

    never()
    await managed.accept(task_id)
    await begin(managed, task_id)
    await managed.append_logs(task_id, 1, ["x"], "out")
    await managed.heartbeat(task_id, 1, progress={})
    await repository.append_log(task_id, "x")
    await repository.update_result(task_id, error="x")
    mine = await loaded(repository, task_id)
    mine.description = "d"
    await repository.save(mine)
    never()
    await managed.retry(task_id, 1)
    await begin(managed, task_id, 2)
    await managed.cancel(task_id)
    never()
    await managed.finish(task_id, 2, TaskStatus.CANCELLED)
    assert_running(keyspace, task_id)
    age(keyspace, task_id)
    await managed.finish(task_id, 2, TaskStatus.CANCELLED)
    assert max(lives(keyspace, task_id).values()) <= 1_000_000, "nothing was written"
    await repository.append_log(task_id, "an epilogue")
    assert_running(keyspace, task_id)


async def test_the_sweeper_purges_what_is_due_and_nothing_else(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    kept = record("kept", user_id="bob")
    await repository.save(kept)
    alive = await running(managed)
    due = [record(f"due-{number}", status=status) for number, status in enumerate(TaskStatus)]
    for task in due:
        await repository.save(task)
        keyspace.let_expire(task)
    ended = await running(managed, service="analytics")
    await managed.finish(ended, 1, TaskStatus.COMPLETED)
    keyspace.let_expire(await loaded(repository, ended))
    assert await managed.sweep() == len(due) + 1
    listed = {task.task_id for task in await repository.list_all()}
    assert listed == {"kept", alive}
    assert await repository.list_users_by_service("analytics") == ["bob"]
    keyspace.let_sweep()
    assert await managed.sweep() == 0
    await repository.delete("kept")
    await managed.finish(alive, 1, TaskStatus.COMPLETED)
    keyspace.let_expire(await loaded(repository, alive))
    assert await managed.sweep() == 1
    assert keyspace.leaks() == set()
    assert [kind for kind, _, _ in keyspace.changes()].count("deleted") == len(due) + 3


async def test_a_turn_is_one_callers_and_a_limit_leaves_the_rest(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    for number in range(5):
        task = record(str(number))
        await repository.save(task)
        keyspace.let_expire(task)
    assert await managed.sweep(limit=2, turn_seconds=3600) == 2
    assert await managed.sweep(limit=2, turn_seconds=3600) == 0, "not its turn"
    for expected in (2, 1, 0):
        keyspace.let_sweep()
        assert await managed.sweep(limit=2) == expected


@pytest.mark.parametrize("status", list(TaskStatus))
async def test_what_expired_natively_first_is_cleared_from_the_indexes(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace, status: TaskStatus
) -> None:
    task = record(status=status, logs=["x"])
    await repository.save(task)
    other = record("other")
    await repository.save(other)
    for name in lives(keyspace, "external-1"):
        keyspace.client.delete(name)
    keyspace.let_expire(task)
    assert keyspace.indexes_of("external-1") != set()
    assert await managed.sweep() == 1
    assert keyspace.indexes_of("external-1") == set()
    assert keyspace.client.hgetall(keys.users("analytics")) == {b"alice": b"1"}
    assert await repository.delete("other")
    assert keyspace.leaks() == set()


async def test_a_replaced_record_is_not_swept_by_its_forerunners_time(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    old = record()
    await repository.save(old)
    keyspace.let_expire(old)
    await repository.save(record(user_id="bob"))
    assert await managed.sweep() == 0
    keyspace.client.zadd(keys.EXPIRY, {"external-1:analytics:alice": 1})
    keyspace.let_sweep()
    await managed.sweep()
    assert (await loaded(repository, "external-1")).user_id == "bob"
    assert cast("list[bytes]", keyspace.client.zrange(keys.EXPIRY, 0, -1)) == [
        b"external-1:analytics:bob"
    ]
