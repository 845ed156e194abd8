"""What the store promises while Redis is stopped, restarted, full, forgetful or replicated."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import RedisError

from task_state import (
    ConfigurationError,
    Paging,
    StoreUnavailableError,
    TaskStatus,
    keys,
)
from task_state.admission import Admission, Attendance
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.contract.servers import RealServer, running
from tests.contract.store import Keyspace, record
from tests.contract.test_managed_tasks import begin, submit

GENEROUS = 30.0
"""Seconds in which 300 calls at once are refused; each is promised 2 s on a free machine."""


@contextlib.asynccontextmanager
async def provided(url: str, **settings: Any) -> AsyncGenerator[RedisRepositoryProvider]:
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=url, **settings))
    try:
        yield provider
    finally:
        await provider.close()


@pytest_asyncio.fixture
async def own(own_server: RealServer) -> AsyncGenerator[RedisRepositoryProvider]:
    async with provided(own_server.url, timeout_seconds=60) as provider:
        await provider.ping()
        yield provider


@pytest_asyncio.fixture
async def hasty(own_server: RealServer) -> AsyncGenerator[RedisRepositoryProvider]:
    """A second provider, with the deadline that is the default: 2 s."""
    async with provided(own_server.url) as provider:
        await eventually(provider.ping)
        yield provider


async def eventually(call: Callable[[], Awaitable[Any]], seconds: float = 60) -> None:
    """Repeat a call until it succeeds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await call()
        except StoreUnavailableError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        else:
            return


def every_call(
    repository: RedisTaskRepository, managed: ManagedTasks, admission: Admission, task_id: str
) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every kind of call on a running task."""
    return {
        "next_task_id": repository.next_task_id,
        "adjust": lambda: managed.adjust(task_id, "bandwidth", 1, log_entry="y"),
        "save": lambda: repository.save(record("new")),
        "get": lambda: repository.get(task_id),
        "set_status": lambda: repository.set_status(task_id, TaskStatus.CANCEL_REQUESTED),
        "append_log": lambda: repository.append_log(task_id, "x"),
        "update_result": lambda: repository.update_result(task_id, error="x"),
        "add_jobs": lambda: repository.add_jobs(task_id, ["j"]),
        "delete": lambda: repository.delete("gone"),
        "list_all": repository.list_all,
        "list_users": lambda: repository.list_users_by_service("sync"),
        "list_by_ids": lambda: repository.list_by_ids([task_id]),
        "get_logs": lambda: repository.get_logs(task_id),
        "output": lambda: repository.get_launcher_output(task_id),
        "submit": lambda: submit(managed),
        "accept": lambda: managed.accept(task_id),
        "begin": lambda: managed.begin(task_id, 9, worker="w"),
        "heartbeat": lambda: managed.heartbeat(task_id, 1, progress={}),
        "append_logs": lambda: managed.append_logs(task_id, 1, ["x"], "y"),
        "append_report": lambda: managed.append_report(task_id, 1, b"x", 1, before=0),
        "cancel": lambda: managed.cancel(task_id),
        "release": lambda: managed.release(task_id, 1),
        "rescue": managed.rescue,
        "unqueued": managed.unqueued,
        "admit": lambda: admission.admit(attendance=Attendance("w", 1, 60)),
        "pause": lambda: admission.pause("other"),
        "states": admission.states,
        "position": lambda: admission.position(
            record("waits", managed=True)  # a record that the store need not have
        ),
        "sweep": managed.sweep,
        "fenced": managed.fenced_count,
        "finish": lambda: managed.finish(task_id, 1, TaskStatus.CANCELLED),
    }


async def started(managed: ManagedTasks) -> str:
    task_id = await submit(managed)
    await begin(managed, task_id)
    return task_id


async def test_a_server_that_forgot_its_scripts_is_told_again(
    repository: RedisTaskRepository,
    managed: ManagedTasks,
    admission: Admission,
    keyspace: Keyspace,
) -> None:
    task_id = await started(managed)
    for call in every_call(repository, managed, admission, task_id).values():
        keyspace.client.script_flush()
        await call()
    found = await repository.get(task_id)
    assert found is not None
    assert found.status is TaskStatus.CANCELLED
    assert found.logs_total == 4, "nothing was written twice"


async def test_a_restarted_server_goes_on(
    own_server: RealServer, own: RedisRepositoryProvider
) -> None:
    repository, managed = await own.get_repository(), await own.get_managed()
    task_id = await started(managed)
    for round_ in range(1, 4):
        own_server.kill()
        with pytest.raises(StoreUnavailableError):
            await repository.append_log(task_id, "lost")
        with pytest.raises(StoreUnavailableError):
            await own.ping()
        own_server.start()
        await eventually(own.ping)
        await managed.append_logs(task_id, 1, [f"after restart {round_}"])
    await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    found = await repository.get(task_id)
    assert found is not None
    assert found.status is TaskStatus.COMPLETED
    assert found.logs[1:] == [f"after restart {round_}" for round_ in range(1, 4)]


async def test_a_hanging_server_is_an_error_in_time_for_every_call(
    own_server: RealServer, own: RedisRepositoryProvider, hasty: RedisRepositoryProvider
) -> None:
    patient = await own.get_outbox()
    await patient.ensure_group("dispatch")
    task_id = await started(await own.get_managed())
    (event,) = await patient.read("dispatch", "a", count=9, block_ms=0)
    repository, managed = await hasty.get_repository(), await hasty.get_managed()
    outbox, changes = await hasty.get_outbox(), await hasty.get_changes()
    calls = every_call(repository, managed, await hasty.get_admission(), task_id) | {
        "ping": hasty.ping,
        "last_id": changes.last_id,
        "changes": lambda: changes.read("0", block_ms=100),
        "ensure": lambda: outbox.ensure_group("dispatch"),
        "read": lambda: outbox.read("dispatch", "a", count=1, block_ms=100),
        "claim": lambda: outbox.claim("dispatch", "a", min_idle_ms=0, count=1),
        "take_due": lambda: outbox.take_due("dispatch", hide_ms=1, count=1),
        "defer": lambda: outbox.defer("dispatch", event, delay_seconds=1),
        "done": lambda: outbox.done("dispatch", event),
        "depth": lambda: outbox.depth("dispatch"),
        "trim": outbox.trim,
    }
    own_server.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        answers = await asyncio.gather(
            *(call() for call in calls.values() for _ in range(9)), return_exceptions=True
        )
        took = time.monotonic() - begun
    finally:
        own_server.signal(signal.SIGCONT)
    assert {type(answer) for answer in answers} == {StoreUnavailableError}
    assert took < GENEROUS
    # Whether it will still do what it was sent is unknown; that it works again is not.
    await eventually(hasty.ping)
    await eventually(lambda: repository.append_log(task_id, "it works again"))
    assert await (await own.get_repository()).get(task_id) is not None


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/at/all.sock"])
async def test_a_server_that_is_not_there(url: str) -> None:
    async with provided(url) as provider:
        for open_ in (provider.get_repository, provider.get_managed, provider.ping):
            with pytest.raises(StoreUnavailableError) as raised:
                await open_()
            assert raised.value.__cause__ is not None


async def test_a_full_server_refuses_whole_writes_and_reads_on(
    repository: RedisTaskRepository,
    managed: ManagedTasks,
    admission: Admission,
    keyspace: Keyspace,
) -> None:
    task_id = await started(managed)
    await managed.unqueued()
    calls = every_call(repository, managed, admission, task_id)
    keyspace.client.config_set("maxmemory-policy", "noeviction")
    before = keyspace.dump()
    try:
        keyspace.client.config_set("maxmemory", 1)
        for name in (
            "get", "list_all", "list_users", "list_by_ids", "get_logs", "output",
            "states", "position",
        ):  # fmt: skip
            await calls[name]()
        for name in (
            "next_task_id", "save", "append_log", "update_result", "add_jobs",
            "submit", "heartbeat", "append_logs", "append_report", "adjust", "rescue", "admit",
            "pause",
        ):  # fmt: skip
            with pytest.raises(StoreUnavailableError, match="maxmemory"):
                await calls[name]()
            assert keyspace.dump() == before, f"{name} wrote a part"
        assert await repository.delete(task_id), "what frees memory works"
    finally:
        keyspace.client.config_set("maxmemory", 0)
    assert await submit(managed)


async def test_a_full_server_ends_tasks_wholly_or_not_at_all(
    repository: RedisTaskRepository, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    tasks = [await started(managed) for _ in range(4)]
    ends: list[Callable[[str], Awaitable[Any]]] = [
        lambda name: managed.finish(name, 1, TaskStatus.COMPLETED),
        lambda name: managed.finish(name, 1, TaskStatus.FAILED, log_entry="x", error="e"),
        lambda name: managed.retry(name, 1, log_entry="x"),
        managed.cancel,
    ]
    try:
        keyspace.client.config_set("maxmemory", 1)
        for task_id, end in zip(tasks, ends, strict=True):
            with contextlib.suppress(StoreUnavailableError):
                await end(task_id)
    finally:
        keyspace.client.config_set("maxmemory", 0)
    for task_id in tasks:
        found = await repository.get(task_id)
        assert found is not None
        (listed,) = await repository.list_all(Paging(q=task_id))
        assert listed.status is found.status
        events = [kind for kind, name, _ in keyspace.outbox() if name == task_id]
        assert ("finished" in events) is found.status.is_terminal


async def test_a_store_of_another_layout_is_refused(
    shared_server: RealServer, keyspace: Keyspace
) -> None:
    expected = {0: False, 1: True, 3: True, 5: True, 6: True, 7: False}
    for version, accepted in expected.items():
        keyspace.client.set(keys.SCHEMA, version)
        async with provided(shared_server.url, timeout_seconds=60) as provider:
            repository = await provider.get_repository()
            if accepted:
                await repository.list_all()
            else:
                with pytest.raises(ConfigurationError, match=f"layout {version}"):
                    await repository.list_all()


async def test_a_wrong_url_says_so() -> None:
    for url in ("http://localhost", "localhost:6379", "redis://localhost:port"):
        async with provided(url) as provider:
            with pytest.raises(ConfigurationError, match="redis://host:port/0"):
                await provider.get_repository()


# ---------------------------------------------------------------------------------------- replicas
@pytest.fixture(params=["valkey", pytest.param("redis", marks=pytest.mark.redis_server)])
def replicated(request: pytest.FixtureRequest) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    options = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
    with (
        running(request.param, *options, port=port) as primary,
        running(request.param, *options, "--replicaof", "127.0.0.1", str(port)) as replica,
    ):
        yield primary, replica


def _linked(replica: RealServer) -> bool:
    with replica.client() as client, contextlib.suppress(RedisError):
        return dict(client.info("replication")).get("master_link_status") == "up"
    return False


async def test_reads_of_lists_go_to_the_replica_and_writes_wait_for_it(
    replicated: tuple[RealServer, RealServer],
) -> None:
    primary, replica = replicated
    deadline = time.monotonic() + 60
    while not _linked(replica):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    options = {"read_url": replica.url, "timeout_seconds": 30}
    async with provided(primary.url, wait_replicas=1, **options) as provider:
        repository, managed = await provider.get_repository(), await provider.get_managed()
        changes = await provider.get_changes()
        await repository.save(record())
        task_id = await started(managed)
        # Confirmed by the replica, so it is there, and read scripts run on a read-only server.
        assert {task.task_id for task in await repository.list_all()} == {"external-1", task_id}
        assert [task.task_id for task in await repository.list_by_ids([task_id])] == [task_id]
        assert await repository.list_users_by_service("sync") == ["alice"]
        assert len(await changes.read("0", block_ms=0)) == 3
    replica.kill()
    async with provided(primary.url, wait_replicas=1, timeout_seconds=5) as provider:
        repository = await provider.get_repository()
        with pytest.raises(StoreUnavailableError, match="only 0 of 1 replicas"):
            await repository.save(record("unconfirmed"))
        found = await repository.get("unconfirmed")
        assert found is not None, "the outcome was unknown; here it was written"
