"""Cancelling and deleting managed tasks: at once without a lease, by the worker with one."""

import pytest

from task_state import (
    TaskNotFoundError,
    TaskStatus,
    TransitionError,
    keys,
)
from task_state.managed import ManagedTasks
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace
from tests.contract.test_managed_tasks import TERMINAL, begin, loaded, running, submit


# ------------------------------------------------------------------------------------------ cancel
async def test_cancel_without_a_lease_ends_the_task_at_once(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    waiting, dispatching = await submit(managed), await submit(managed)
    await managed.accept(waiting)
    await repository.set_status(dispatching, TaskStatus.DISPATCHING)
    for task_id in (waiting, dispatching):
        assert await managed.cancel(task_id, log_entry="by alice") is TaskStatus.CANCELLED
        assert await managed.cancel(task_id, log_entry="by alice") is TaskStatus.CANCELLED
        found = await loaded(repository, task_id)
        assert [line.rpartition(",")[2] for line in found.logs] == ["by alice"]
        assert await managed.begin(task_id, 1, worker="w") is None
    assert keyspace.outbox()[2:] == [
        ("finished", waiting, "CANCELLED"),
        ("cancel", dispatching, "DISPATCHING"),
        ("finished", dispatching, "CANCELLED"),
    ]
    assert keyspace.client.zcard(keys.QUEUED) == 0


async def test_cancel_with_a_lease_asks_the_worker(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    assert await managed.cancel(task_id) is TaskStatus.CANCEL_REQUESTED
    revision = (await loaded(repository, task_id)).revision
    assert await managed.cancel(task_id) is TaskStatus.CANCEL_REQUESTED
    assert (await loaded(repository, task_id)).revision == revision
    assert [kind for kind, _, _ in keyspace.outbox()].count("cancel") == 1
    keyspace.expire_lease(task_id)
    assert await managed.cancel(task_id) is TaskStatus.CANCELLED, "its worker is gone"
    with pytest.raises(TransitionError):
        await managed.finish(task_id, 1, TaskStatus.COMPLETED)


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED])
async def test_what_is_over_cannot_be_cancelled(managed: ManagedTasks, status: TaskStatus) -> None:
    task_id = await running(managed)
    await managed.finish(task_id, 1, status)
    with pytest.raises(TransitionError) as raised:
        await managed.cancel(task_id)
    assert raised.value.current == status


async def test_anothers_task_looks_like_a_missing_one(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    task_id = await submit(managed)
    before = keyspace.dump()
    messages = set[str]()
    for scope in (
        {"service": "copy"},
        {"user_id": "bob"},
        {"service": "sync", "user_id": "bob"},
        {"service": "copy", "user_id": "alice"},
    ):
        for delete in (False, True):
            with pytest.raises(TaskNotFoundError) as raised:
                await managed.cancel(task_id, **scope, delete=delete)
            messages.add(str(raised.value))
    assert keyspace.dump() == before
    with pytest.raises(TaskNotFoundError) as missing:
        await managed.cancel("gone")
    assert messages == {str(missing.value).replace("gone", task_id)}
    assert await managed.cancel(task_id, service="sync", user_id="alice") is TaskStatus.CANCELLED


@pytest.mark.parametrize("status", [None, *TERMINAL])
async def test_deleting_a_task_without_a_lease_purges_it(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace, status: TaskStatus
) -> None:
    task_id = await submit(managed)
    if status:
        await begin(managed, task_id)
        await managed.finish(task_id, 1, status, launcher_output="x")
    assert await managed.cancel(task_id, delete=True) is None
    assert await repository.get(task_id) is None
    with pytest.raises(TaskNotFoundError):
        await managed.cancel(task_id, delete=True)
    assert keyspace.leaks() == set()
    assert [kind for kind, _, _ in keyspace.outbox()] == ["submitted", "finished"]
    assert keyspace.changes()[-1][0] == "deleted"


@pytest.mark.parametrize("end", [*TERMINAL, "retry", "release", "rescue", "outside"])
async def test_deleting_a_running_task_waits_for_its_end(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace, end: str
) -> None:
    task_id = await running(managed)
    requested = await managed.cancel(task_id, delete=True, log_entry="delete")
    assert requested is TaskStatus.CANCEL_REQUESTED
    assert await repository.get(task_id) is not None
    match end:
        case "retry":
            assert await managed.retry(task_id, 1) is TaskStatus.CANCELLED
        case "release":
            assert await managed.release(task_id, 1) is TaskStatus.CANCELLED
        case "rescue":
            keyspace.expire_lease(task_id)
            keyspace.let_rescue()
            assert [item.status for item in await managed.rescue()] == [TaskStatus.CANCELLED]
        case "outside":
            mine = await loaded(repository, task_id)
            keyspace.expire_lease(task_id)
            mine.status = TaskStatus.FAILED
            await repository.save(mine)
        case _:
            assert await managed.finish(task_id, 1, TaskStatus(end)) == end
    assert await repository.get(task_id) is None
    assert keyspace.leaks() == set()
    assert [kind for kind, _, _ in keyspace.outbox()] == ["submitted", "cancel", "finished"]


async def test_deleting_after_cancelling_is_honoured(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    await managed.cancel(task_id)
    assert await managed.cancel(task_id, delete=True) is TaskStatus.CANCEL_REQUESTED
    await managed.finish(task_id, 1, TaskStatus.CANCELLED)
    assert await repository.get(task_id) is None
