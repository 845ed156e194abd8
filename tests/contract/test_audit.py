"""The audit: whatever is broken by hand is found, as exactly that, and mended."""

from collections.abc import Callable
from typing import cast

import pytest
import pytest_asyncio

from app.core.events import DISPATCH_GROUP
from task_state import TaskResult, TaskStatus, keys
from task_state.admission import Attendance
from task_state.audit import Finding
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.redis import RedisRepositoryProvider
from tests.contract.store import Keyspace, record

COMPLETED, FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED
P = keys.PREFIX


async def walk(provider: RedisRepositoryProvider, *, mend: bool = False) -> list[Finding]:
    audit = await provider.get_audit(DISPATCH_GROUP, mend=mend)
    return [finding async for finding in audit.walk()]


class Store:
    """A store with one task of each kind, made by the operations that make them."""

    def __init__(self, provider: RedisRepositoryProvider, keyspace: Keyspace) -> None:
        self.provider = provider
        self.keyspace = keyspace
        self.redis = keyspace.client
        self.ids: dict[str, str] = {}

    async def fill(self) -> None:
        """Unmanaged ones, and managed ones in each place where one can wait, running and ended."""
        repository = await self.provider.get_repository()
        await repository.save(
            record("other", status=COMPLETED, logs=["x"], result=TaskResult(launcher_output="y"))
        )
        managed = await self.provider.get_managed()
        for name in ("runs", "delayed", "done", "queued", "waits"):
            self.ids[name] = await self._submit(managed)
        await self._admit(3)
        await self._begin(managed, "runs")
        await self._begin(managed, "delayed")
        await managed.retry(self.ids["delayed"], 1, delay_seconds=3600)
        await self._begin(managed, "done")
        await managed.finish(self.ids["done"], 1, COMPLETED)
        await self._admit(1)
        arrives = await managed.submit(service="sync", user_id="alice", parameters={})
        self.ids["arrives"] = arrives.task_id

    def line(self, task_id: str, status: str) -> bytes:
        """The line of a task that has ended, with another state."""
        line = cast("bytes", self.redis.get(keys.task(task_id)))
        return line.replace(b'"COMPLETED"', f'"{status}"'.encode())

    async def _submit(self, managed: ManagedTasks) -> str:
        task_id = (await managed.submit(service="sync", user_id="alice", parameters={})).task_id
        await managed.accept(task_id)
        return task_id

    async def _admit(self, slots: int) -> None:
        admission = await self.provider.get_admission()
        running = self.redis.zcard(keys.LEASES)
        here = Attendance("w", slots + running, 60.0)
        assert len((await admission.admit(attendance=here)).calls) == slots

    async def _begin(self, managed: ManagedTasks, name: str) -> None:
        begun = await managed.begin(self.ids[name], 1, worker="w", log_entry="begun")
        assert begun is not None


@pytest_asyncio.fixture
async def store(provider: RedisRepositoryProvider, keyspace: Keyspace, outbox: Outbox) -> Store:
    await outbox.ensure_group(DISPATCH_GROUP)
    filled = Store(provider, keyspace)
    await filled.fill()
    return filled


async def test_a_whole_store_has_no_findings(store: Store) -> None:
    assert await walk(store.provider) == []
    assert await walk(store.provider, mend=True) == []


Break = Callable[[Store], object]
BREAKS: dict[str, tuple[Break, set[str]]] = {
    "index by state": (lambda s: s.redis.zrem(P + "c:COMPLETED", "other"), {"indexes"}),
    "index by service": (lambda s: s.redis.zrem(P + "c:RUNNING:sync", s.ids["runs"]), {"indexes"}),
    "index by user": (
        lambda s: s.redis.zrem(P + "c:COMPLETED:analytics:alice", "other"), {"indexes"}
    ),
    "index by update": (lambda s: s.redis.zrem(P + "u:COMPLETED:analytics", "other"), {"indexes"}),
    "order of an index": (lambda s: s.redis.zadd(P + "u:COMPLETED", {"other": 5}), {"indexes"}),
    "index of ids": (lambda s: s.redis.zrem(P + "ids", "other"), {"indexes"}),
    "a status by hand": (
        lambda s: s.redis.set(keys.task("other"), s.line("other", FAILED), keepttl=True),
        {"indexes", "members"},
    ),
    "member without record": (lambda s: s.redis.zadd(P + "c:FAILED", {"ghost": 1}), {"members"}),
    "member of another state": (lambda s: s.redis.zadd(P + "u:FAILED", {"other": 1}), {"members"}),
    "member of another service": (
        lambda s: s.redis.zadd(P + "c:COMPLETED:sync", {"other": 1}), {"members"}
    ),
    "id without record": (lambda s: s.redis.zadd(P + "ids", {"ghost": 0}), {"members"}),
    "count of a service": (lambda s: s.redis.hset(keys.SERVICES, "sync", "99"), {"counts"}),
    "count of no service": (lambda s: s.redis.hset(keys.SERVICES, "ghost", "1"), {"counts"}),
    "missing count of a service": (lambda s: s.redis.hdel(keys.SERVICES, "sync"), {"counts"}),
    "count of a user": (lambda s: s.redis.hset(keys.users("sync"), "alice", "1"), {"counts"}),
    "count of no user": (lambda s: s.redis.hset(keys.users("sync"), "ghost", "1"), {"counts"}),
    "missing counts of users": (lambda s: s.redis.delete(keys.users("sync")), {"counts"}),
    "no expiry member": (
        lambda s: s.redis.zrem(keys.EXPIRY, "other:analytics:alice"), {"expiry"}
    ),
    "no native expiry": (lambda s: s.redis.persist(keys.task("other")), {"expiry"}),
    "no native expiry of a log": (lambda s: s.redis.persist(keys.logs("other")), {"expiry"}),
    "no native expiry of output": (lambda s: s.redis.persist(keys.output("other")), {"expiry"}),
    "no native expiry of a report": (
        lambda s: s.redis.set(keys.report("other"), "x"), {"expiry"}
    ),
    "no native expiry of a series": (
        lambda s: s.redis.set(keys.series("other"), "x"), {"expiry"}
    ),
    "expiry of an active task": (
        lambda s: s.redis.zadd(keys.EXPIRY, {f"{s.ids['runs']}:sync:alice": 9e15}), {"expiry"}
    ),
    "native expiry of an active task": (
        lambda s: s.redis.expire(keys.task(s.ids["waits"]), 1000), {"expiry"}
    ),
    "expiry without record": (
        lambda s: s.redis.zadd(keys.EXPIRY, {"ghost:sync:alice": 9e15}), {"expiry"}
    ),
    "expiry of another owner": (
        lambda s: s.redis.zadd(keys.EXPIRY, {"other:sync:bob": 9e15}), {"expiry"}
    ),
    "log without record": (lambda s: s.redis.rpush(keys.logs("ghost"), "x"), {"loose"}),
    "output without record": (lambda s: s.redis.set(keys.output("ghost"), "x"), {"loose"}),
    "report without record": (lambda s: s.redis.set(keys.report("ghost"), "x"), {"loose"}),
    "series without record": (lambda s: s.redis.set(keys.series("ghost"), "x"), {"loose"}),
    "number of log lines": (lambda s: s.redis.rpush(keys.logs("other"), "y"), {"log-lines"}),
    "no lease": (lambda s: s.redis.zrem(keys.LEASES, s.ids["runs"]), {"leases", "waiting"}),
    "another lease": (lambda s: s.redis.zadd(keys.LEASES, {s.ids["runs"]: 1}), {"leases"}),
    "lease of no record": (lambda s: s.redis.zadd(keys.LEASES, {"ghost": 9e15}), {"leases"}),
    "lease of an ended task": (
        lambda s: s.redis.zadd(keys.LEASES, {s.ids["done"]: 9e15}), {"leases"}
    ),
    "count of leases": (lambda s: s.redis.hset(keys.HELD, "w", "7"), {"waiting"}),
    "leases of no worker": (lambda s: s.redis.hset(keys.HELD, "ghost", "7"), {"waiting"}),
    "count of delayed tasks": (lambda s: s.redis.hset(keys.DELAYS, "sync", "7"), {"waiting"}),
    "count of waiting tasks": (lambda s: s.redis.hset(keys.WAITING, "sync", "7"), {"waiting"}),
    "waiting for no service": (lambda s: s.redis.hset(keys.WAITING, "ghost", "7"), {"waiting"}),
    "lost count of waiting tasks": (lambda s: s.redis.delete(keys.WAITING), {"waiting"}),
    "a user's turn": (lambda s: s.redis.zrem(keys.ring("sync"), "alice"), {"waiting"}),
    "a turn without lane": (lambda s: s.redis.zadd(keys.ring("sync"), {"ghost": 1}), {"waiting"}),
    "lost from delayed": (lambda s: s.redis.zrem(keys.DELAYED, s.ids["delayed"]), {"waiting"}),
    "in two places": (lambda s: s.redis.zadd(keys.DELAYED, {s.ids["waits"]: 9e15}), {"waiting"}),
    "queued and running": (lambda s: s.redis.zadd(keys.QUEUED, {s.ids["runs"]: 9e15}), {"waiting"}),
    "queued and no record": (lambda s: s.redis.zadd(keys.QUEUED, {"ghost": 9e15}), {"waiting"}),
    "in the lane of another": (
        lambda s: s.redis.zadd(keys.lane("sync", "bob"), {s.ids["waits"]: 1}), {"waiting"}
    ),
    "not among those that arrive": (
        lambda s: s.redis.delete(keys.arriving("sync")), {"waiting"}
    ),
    "arrives and waits": (
        lambda s: s.redis.sadd(keys.arriving("sync"), s.ids["waits"]), {"waiting"}
    ),
    "arrives and has ended": (
        lambda s: s.redis.sadd(keys.arriving("sync"), s.ids["done"]), {"waiting"}
    ),
    "arrives in another service": (
        lambda s: s.redis.sadd(keys.arriving("copy"), s.ids["arrives"]), {"waiting"}
    ),
    "arrives and is no task": (lambda s: s.redis.sadd(keys.arriving("sync"), "ghost"), {"waiting"}),
    "no slot": (lambda s: s.redis.hdel(keys.busy("sync"), s.ids["runs"]), {"slots"}),
    "slot of an ended task": (
        lambda s: s.redis.hset(keys.busy("sync"), s.ids["done"], "alice"), {"slots"}
    ),
    "slot of a waiting task": (
        lambda s: s.redis.hset(keys.busy("sync"), s.ids["waits"], "alice"), {"slots"}
    ),
    "slot of no task": (lambda s: s.redis.hset(keys.busy("sync"), "ghost", "alice"), {"slots"}),
    "slot in another service": (
        lambda s: s.redis.hset(keys.busy("copy"), s.ids["runs"], "alice"), {"slots"}
    ),
    "a record's hash": (
        lambda s: s.redis.delete(keys.task("other")), {"members", "expiry"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
async def test_what_is_broken_is_found_and_mended(store: Store, name: str) -> None:
    broken, expected = BREAKS[name]
    broken(store)
    found = await walk(store.provider)
    assert {finding.check for finding in found} == expected, found
    assert not any(finding.mended for finding in found)
    assert await walk(store.provider) == found, "a look changes nothing"

    mended = await walk(store.provider, mend=True)
    assert mended  # what follows from another finding may be whole by then
    assert all(finding.mended for finding in mended)
    assert await walk(store.provider) == []


async def test_mending_removes_no_record_no_log_and_no_output(store: Store) -> None:
    for broken, _ in BREAKS.values():
        broken(store)
    kinds = tuple(
        make("") for make in (keys.task, keys.logs, keys.output, keys.report, keys.series)
    )
    before = {name for name in store.keyspace.names() if name.startswith(kinds)}
    await walk(store.provider, mend=True)
    after = {name for name in store.keyspace.names() if name.startswith(kinds)}
    assert after == before
    assert await walk(store.provider, mend=True) == []
