"""The audit of a store in use: tasks that nobody dispatches or ends, and no false alarm."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from app.core.events import DISPATCH_GROUP
from task_state import StoreUnavailableError, TaskSearch, TaskStateError, TaskStatus, keys
from task_state.admission import Attendance
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from task_state.retention import Seen
from tests.contract.store import Keyspace, record
from tests.contract.test_audit import walk
from tests.contract.test_managed_tasks import running, submit

COMPLETED = TaskStatus.COMPLETED


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every submission count as old enough to be lost."""
    monkeypatch.setattr("task_state.audit._ON_ITS_WAY_US", -3_600_000_000)


@pytest.mark.usefixtures("impatient")
async def test_a_task_whose_event_is_gone_is_dispatched_again(
    provider: RedisRepositoryProvider, managed: ManagedTasks, outbox: Outbox, keyspace: Keyspace
) -> None:
    await outbox.ensure_group(DISPATCH_GROUP)
    task_id = await submit(managed)
    assert await walk(provider) == [], "its event was not read yet"
    (event,) = await outbox.read(DISPATCH_GROUP, "c", count=10, block_ms=10)
    assert await walk(provider) == [], "its event is in hand"
    await outbox.defer(DISPATCH_GROUP, event, delay_seconds=3600)
    assert await walk(provider) == [], "its event was put off"

    keyspace.client.delete(keys.due(DISPATCH_GROUP))
    (finding,) = await walk(provider)
    assert (finding.check, finding.task_id, finding.mended) == ("dispatch", task_id, False)
    (finding,) = await walk(provider, mend=True)
    assert finding.mended
    assert await walk(provider) == []
    (again,) = await outbox.take_due(DISPATCH_GROUP, hide_ms=60_000, count=10)
    assert (again.kind, again.task_id) == ("submitted", task_id)
    await managed.accept(task_id)
    await outbox.done(DISPATCH_GROUP, again)
    assert await walk(provider) == []


@pytest.mark.usefixtures("impatient")
async def test_a_backlog_of_the_dispatcher_is_no_finding(
    provider: RedisRepositoryProvider, managed: ManagedTasks, outbox: Outbox
) -> None:
    await outbox.ensure_group(DISPATCH_GROUP)
    for _ in range(50):
        await submit(managed)
    for _ in range(5):
        for event in await outbox.read(DISPATCH_GROUP, "c", count=5, block_ms=10):
            await managed.accept(event.task_id)
            await outbox.done(DISPATCH_GROUP, event)
        assert await walk(provider) == []


async def test_a_task_that_nobody_ends_is_told_and_left_alone(
    provider: RedisRepositoryProvider,
    managed: ManagedTasks,
    repository: RedisTaskRepository,
    keyspace: Keyspace,
) -> None:
    silent = await running(managed)
    keyspace.expire_lease(silent, seconds_ago=3600)
    fresh = await running(managed)
    keyspace.expire_lease(fresh, seconds_ago=60)
    for mend in (False, True, False):
        (found,) = await walk(provider, mend=mend)
        assert (found.check, found.task_id, found.mended) == ("stuck", silent, False)
    task = await repository.get(silent)
    assert task
    assert task.status is TaskStatus.RUNNING


# -------------------------------------------------------------------------------- a store in use
class Busy:
    """Writers that do with tasks whatever may be done with them, in any order."""

    def __init__(self, provider: RedisRepositoryProvider, keyspace: Keyspace, seed: int) -> None:
        self._provider = provider
        self._keyspace = keyspace
        self._random = random.Random(seed)
        self._ids: list[str] = []
        self.done = 0

    async def work(self) -> None:
        """One operation after the other until cancelled."""
        acts: list[Callable[[], Awaitable[object]]] = [
            self._submit, self._attempt, self._external, self._cancel, self._log, self._prune,
            self._expire, self._pause,
        ]  # fmt: skip
        while True:
            try:
                await self._random.choice(acts)()
            except StoreUnavailableError:
                raise
            except TaskStateError:
                pass  # a race that the store has refused
            self.done += 1

    def _any(self) -> str:
        return self._random.choice(self._ids or ["nobody"])

    async def _submit(self) -> None:
        managed = await self._provider.get_managed()
        user, service = self._random.choice("abc"), self._random.choice(["sync", "copy"])
        task_id = await submit(managed, user_id=user, service=service)
        self._ids.append(task_id)
        await managed.accept(task_id)

    async def _attempt(self) -> None:
        admission = await self._provider.get_admission()
        admitted = await admission.admit(attendance=Attendance("w", 1000, 60.0), limit=3)
        managed = await self._provider.get_managed()
        for call in admitted.calls:
            begun = await managed.begin(call.task_id, call.epoch, worker="w", log_entry="x")
            if begun is None:
                continue
            await managed.heartbeat(call.task_id, call.epoch, progress={"n": 1})
            match self._random.randrange(4):
                case 0:
                    await managed.retry(call.task_id, call.epoch, delay_seconds=3600)
                case 1:
                    await managed.release(call.task_id, call.epoch)
                case 2:
                    await managed.finish(call.task_id, call.epoch, COMPLETED, launcher_output="o")
                case _:
                    pass  # it keeps its lease

    async def _external(self) -> None:
        repository = await self._provider.get_repository()
        name = f"external-{self._random.randrange(20)}"
        await repository.save(record(name, logs=["a"]))
        await repository.set_status(name, TaskStatus.RUNNING)
        await repository.update_result(name, data=1, launcher_output="z")
        await repository.set_status(name, self._random.choice([COMPLETED, TaskStatus.FAILED]))
        self._ids.append(name)

    async def _cancel(self) -> None:
        managed = await self._provider.get_managed()
        await managed.cancel(self._any(), delete=self._random.random() < 0.5)

    async def _log(self) -> None:
        repository = await self._provider.get_repository()
        await repository.append_log(self._any(), "line")

    async def _prune(self) -> None:
        retention = await self._provider.get_retention()
        page = await retention.page(TaskSearch(status=(COMPLETED,), limit=3))
        await retention.prune([Seen(t.task_id, t.revision, t.logs_total) for t in page])

    async def _expire(self) -> None:
        repository = await self._provider.get_repository()
        task = await repository.get(self._any())
        member = None if task is None else f"{task.task_id}:{task.service}:{task.user_id}"
        if member is not None:
            self._keyspace.client.zadd(keys.EXPIRY, {member: 1}, xx=True)
        self._keyspace.let_sweep()
        await (await self._provider.get_managed()).sweep()

    async def _pause(self) -> None:
        admission = await self._provider.get_admission()
        await admission.pause("copy")
        await admission.resume("copy")


async def test_a_busy_store_gives_no_false_finding(
    provider: RedisRepositoryProvider, keyspace: Keyspace, outbox: Outbox
) -> None:
    await outbox.ensure_group(DISPATCH_GROUP)
    writers = [Busy(provider, keyspace, seed) for seed in range(6)]
    tasks = [asyncio.create_task(writer.work()) for writer in writers]
    try:
        for turn in range(8):
            seen = sum(writer.done for writer in writers)
            assert await walk(provider, mend=turn % 2 == 1) == []
            async with asyncio.timeout(60):
                while sum(writer.done for writer in writers) < seen + 100:
                    assert not any(task.done() for task in tasks)
                    await asyncio.sleep(0.01)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
    assert await walk(provider) == []
