"""The event processor against a scheduler that misbehaves, on a real store."""

import socket
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.core.config import Settings
from app.core.errors import SchedulerRejectedError, SchedulerUnavailableError
from app.services.breaker import THRESHOLD, Breaker
from app.services.event_processor import backoff_seconds, worth_logging
from app.services.scheduler import Acknowledgement, SchedulerClient, TaskCall
from task_state import Paging, TaskRecord, TaskStatus
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from tests.support.frontend import Frontend, eventually, make_settings, running_frontend
from tests.support.scheduler_stub import (
    DROP,
    GARBAGE,
    HANG,
    OK,
    Behaviour,
    SchedulerStub,
    answer,
)
from tests.support.servers import PERSISTENT, quiet_port, valkey

GROUP = "dispatch"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of a real outage, a hundred times shorter."""
    monkeypatch.setattr("app.services.event_processor._FIRST_DELAY", 0.02)
    monkeypatch.setattr("app.services.event_processor._LONGEST_DELAY", 0.1)
    monkeypatch.setattr("app.services.breaker._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("app.services.breaker._LONGEST_PAUSE", 0.1)


def settings_for(url: str, stub: SchedulerStub, **others: Any) -> Settings:
    return make_settings(url, scheduler_base_url=stub.url, **others)


async def submit(managed: ManagedTasks, **parameters: Any) -> str:
    made = await managed.submit(service="sync", user_id="alice", parameters=parameters)
    return made.task_id


async def status_of(repository: RedisTaskRepository, task_id: str) -> TaskStatus:
    task = await repository.get(task_id)
    assert task is not None
    return task.status


async def reaches(repository: RedisTaskRepository, task_id: str, status: TaskStatus) -> TaskRecord:
    async def there() -> TaskRecord | None:
        task = await repository.get(task_id)
        return task if task is not None and task.status is status else None

    return await eventually(there)


async def settled(outbox: Outbox) -> bool:
    depth = await outbox.depth(GROUP)
    return (depth.unread, depth.pending, depth.due) == (0, 0, 0)


def messages(task: TaskRecord) -> list[str]:
    return [line.partition(",")[2] for line in task.logs]


async def test_our_scheduler_queues_and_a_foreign_one_runs(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    stub.script = [OK, answer({"job_id": "job-7"}), Behaviour(204, b"")]
    outbox = await dms_provider.get_outbox()
    async with running_frontend(settings_for(dms_redis_url, stub)):
        queued = await submit(dms_managed)
        await eventually(lambda: stub.to("/task", queued))
        foreign = await submit(dms_managed)
        task = await reaches(dms_repository, foreign, TaskStatus.RUNNING)
        assert task.jobs == ["job-7"]
        silent = await submit(dms_managed)
        await reaches(dms_repository, silent, TaskStatus.RUNNING)
        await eventually(lambda: settled(outbox))
        assert await status_of(dms_repository, queued) is TaskStatus.DISPATCHING


@pytest.mark.parametrize(
    "trouble",
    [
        Behaviour(500, b"oops"),
        Behaviour(503),
        Behaviour(429, b'{"detail": "slow down"}'),
        Behaviour(421, b'{"detail": "not my name"}'),
        Behaviour(302, b"", location="http://127.0.0.1:1/"),
        DROP,
        GARBAGE,
        Behaviour(body=b"[1]"),
        Behaviour(body=b'{"status": 5}'),
        Behaviour(body=b"\xff\xfe"),
    ],
    ids=["500", "503", "429", "421", "302", "dropped", "html", "list", "types", "bytes"],
)
async def test_trouble_is_waited_for_and_told_once(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
    trouble: Behaviour,
) -> None:
    stub.script = [trouble] * 3
    outbox = await dms_provider.get_outbox()
    async with running_frontend(settings_for(dms_redis_url, stub)):
        task_id = await submit(dms_managed)
        await eventually(lambda: len(stub.to("/task", task_id)) == 4)
        await eventually(lambda: settled(outbox))
    task = await dms_repository.get(task_id)
    assert task is not None
    assert task.status is TaskStatus.DISPATCHING
    first, second = messages(task)
    assert first == "Dispatching to scheduler"
    assert second.startswith("Waiting to be dispatched: the scheduler at ")
    assert {call.headers["idempotency-key"] for call in stub.to("/task")} == {task_id}


async def test_a_hanging_scheduler_is_given_up_after_the_time_out(
    dms_redis_url: str, dms_managed: ManagedTasks, stub: SchedulerStub
) -> None:
    stub.script = [HANG, HANG]
    async with running_frontend(
        settings_for(dms_redis_url, stub, request_timeout_seconds=0.3, event_worker_count=1)
    ):
        ids = [await submit(dms_managed) for _ in range(3)]
        for task_id in ids:
            await eventually(lambda task_id=task_id: stub.to("/task", task_id))
        await eventually(lambda: len(stub.to("/task")) == 5)


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (answer({"detail": "no such service: 한글"}, 404), "no such service: 한글"),
        (answer({"message": "bad parameters"}, 422), "bad parameters"),
        (Behaviour(400, b"<html>"), "the scheduler answered 400"),
    ],
)
async def test_a_refusal_ends_the_task_with_the_schedulers_words(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    stub: SchedulerStub,
    refusal: Behaviour,
    reason: str,
) -> None:
    stub.always = refusal
    async with running_frontend(settings_for(dms_redis_url, stub)):
        task_id = await submit(dms_managed)
        task = await reaches(dms_repository, task_id, TaskStatus.FAILED)
    assert task.result.error == reason
    assert messages(task)[-1] == f"Rejected by the scheduler: {reason}"
    assert len(stub.to("/task")) == 1


async def test_a_scheduler_that_is_down_breaks_the_circuit_and_loses_nothing(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    stub.always = Behaviour(503)
    outbox = await dms_provider.get_outbox()
    async with running_frontend(settings_for(dms_redis_url, stub)) as frontend:
        ids = [await submit(dms_managed, n=n) for n in range(30)]
        await eventually(lambda: not frontend.container.processor.scheduler_reachable)
        ready = await frontend.client.get("/readyz")
        assert ready.json()["scheduler"] == "failing"
        assert ready.status_code == 200
        stub.always = answer({})
        for task_id in ids:
            await reaches(dms_repository, task_id, TaskStatus.RUNNING)
        await eventually(lambda: settled(outbox))
        await eventually(lambda: frontend.container.processor.scheduler_reachable)
    page = await dms_repository.list_all(Paging(limit=50))
    assert len(page) == 30


async def test_the_deadline_ends_what_could_not_be_dispatched(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    stub: SchedulerStub,
) -> None:
    stub.always = Behaviour(503)
    settings = settings_for(dms_redis_url, stub, dispatch_deadline_seconds=0.3)
    async with running_frontend(settings):
        task_id = await submit(dms_managed)
        task = await reaches(dms_repository, task_id, TaskStatus.FAILED)
    assert "DMS_DISPATCH_DEADLINE_SECONDS" in (task.result.error or "")


async def test_other_programs_records_and_ended_tasks_are_left_alone(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    await dms_repository.save(TaskRecord(task_id="external-1", service="sync", user_id="alice"))
    cancelled = await submit(dms_managed)
    await dms_managed.cancel(cancelled)
    deleted = await submit(dms_managed)
    await dms_managed.cancel(deleted, delete=True)
    await dms_managed.cancel("external-1")
    reused = await submit(dms_managed)  # its event is still there when another program takes its id
    await dms_managed.cancel(reused)
    await dms_repository.save(TaskRecord(task_id=reused, service="sync", user_id="alice"))
    await dms_repository.save(TaskRecord(task_id="external-2", service="sync", user_id="alice"))
    outbox = await dms_provider.get_outbox()
    async with running_frontend(settings_for(dms_redis_url, stub)):
        running = await submit(dms_managed)
        await eventually(lambda: stub.to("/task", running))
        await eventually(lambda: settled(outbox))
    assert {call.body["task_id"] for call in stub.calls} == {running}
    for task_id in ("external-2", reused):
        external = await dms_repository.get(task_id)
        assert external is not None
        assert (external.status, external.logs) == (TaskStatus.PENDING, [])


async def test_a_task_cancelled_under_way_is_cancelled_at_a_foreign_scheduler(
    dms_redis_url: str, dms_managed: ManagedTasks, stub: SchedulerStub
) -> None:
    """The cancellation overtakes the task on the wire, and means nothing to a scheduler that does
    not know the task yet: once it took the task, it is told again."""
    stub.held_path = "/task"
    stub.script = [answer({}), answer({"detail": "unknown task"}, 404)]
    async with running_frontend(settings_for(dms_redis_url, stub)):
        task_id = await submit(dms_managed)
        await eventually(lambda: stub.to("/task", task_id))
        assert await dms_managed.cancel(task_id) is TaskStatus.CANCELLED
        await eventually(lambda: stub.to("/cancel", task_id))
        stub.release.set()
        await eventually(lambda: len(stub.to("/cancel", task_id)) == 2)


async def test_a_refused_cancellation_is_settled(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    stub.script = [OK, Behaviour(503), answer({"detail": "unknown"}, 404)]
    outbox = await dms_provider.get_outbox()
    async with running_frontend(settings_for(dms_redis_url, stub, event_worker_count=1)):
        task_id = await submit(dms_managed)
        await eventually(lambda: stub.to("/task", task_id))
        await dms_managed.cancel(task_id)
        await eventually(lambda: len(stub.to("/cancel", task_id)) == 2)
        await eventually(lambda: settled(outbox))


async def test_what_a_dead_replica_left_is_claimed(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    outbox = await dms_provider.get_outbox()
    await outbox.ensure_group(GROUP)
    read, due = await submit(dms_managed), await submit(dms_managed)
    events = await outbox.read(GROUP, "the-dead", count=10, block_ms=100)
    assert [event.task_id for event in events] == [read, due]
    await outbox.defer(GROUP, events[1], delay_seconds=0)
    await outbox.take_due(GROUP, hide_ms=200, count=10)
    async with running_frontend(settings_for(dms_redis_url, stub, request_timeout_seconds=0.2)):
        for task_id in (read, due):
            await eventually(lambda task_id=task_id: stub.to("/task", task_id))
        await eventually(lambda: settled(outbox))


async def test_what_a_killed_process_of_the_same_name_left_does_not_wait(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    """With such a time-out, another replica's entries would be claimed after an hour."""
    outbox = await dms_provider.get_outbox()
    await outbox.ensure_group(GROUP)
    ids = [await submit(dms_managed) for _ in range(5)]
    read = await outbox.read(GROUP, socket.gethostname(), count=10, block_ms=100)
    assert [event.task_id for event in read] == ids
    settings = settings_for(dms_redis_url, stub, event_worker_count=2, request_timeout_seconds=1200)
    async with running_frontend(settings):
        ids.append(await submit(dms_managed))
        await eventually(lambda: settled(outbox))
    assert sorted(call.body["task_id"] for call in stub.to("/task")) == sorted(ids)


async def test_stopping_gives_back_what_was_held(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    stub.script = [HANG] * 3
    settings = settings_for(dms_redis_url, stub, event_worker_count=1, request_timeout_seconds=60.0)
    outbox = await dms_provider.get_outbox()
    ids = [await submit(dms_managed) for _ in range(3)]
    async with running_frontend(settings):
        await eventually(lambda: stub.to("/task"))
    stub.script.clear()
    # The entries of the first are nowhere near three time-outs old: they were given back.
    async with running_frontend(settings):
        for task_id in ids:
            await eventually(
                lambda task_id=task_id: len(stub.to("/task", task_id)) > (task_id == ids[0])
            )
        await eventually(lambda: settled(outbox))


async def test_two_replicas_share_the_work(
    dms_redis_url: str, dms_managed: ManagedTasks, stub: SchedulerStub
) -> None:
    settings = settings_for(dms_redis_url, stub)
    async with running_frontend(settings), running_frontend(settings):
        ids = {await submit(dms_managed, n=n) for n in range(100)}
        await eventually(lambda: {call.body["task_id"] for call in stub.to("/task")} == ids)
    assert len(stub.to("/task")) == 100


async def test_the_outbox_is_trimmed_and_expired_tasks_are_purged(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    stub: SchedulerStub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.services.event_processor._TRIM_SECONDS", 0.1)
    settings = settings_for(dms_redis_url, stub, redis_task_ttl_seconds=1)
    async with running_frontend(settings) as frontend:
        task_id = await submit(dms_managed)
        await eventually(lambda: stub.to("/task", task_id))
        await frontend.client.post(f"/api/v1/services/sync/tasks/{task_id}/cancel?user_id=alice")
        await eventually(lambda: _is_gone(frontend))
        await eventually(lambda: _outbox_is_empty(frontend))
    assert await dms_repository.list_users_by_service("sync") == []


async def _is_gone(frontend: Frontend) -> bool:
    listed = await frontend.client.get("/api/v1/services/sync/users/alice/tasks")
    return listed.json()["total"] == 0


async def _outbox_is_empty(frontend: Frontend) -> bool:
    async with Redis.from_url(frontend.container.settings.redis_write_url) as client:
        return await client.xlen("dms:{0}:outbox") == 0


async def test_redis_may_come_late_go_and_come_back(tmp_path: Path, stub: SchedulerStub) -> None:
    """Starts without Redis; 503 within the time-out; goes on by itself, and misses nothing."""
    port = quiet_port()
    url = f"redis://127.0.0.1:{port}/0"
    submit_url = "/api/v1/services/sync/users/alice/tasks"
    async with running_frontend(settings_for(url, stub)) as frontend:
        early = await frontend.client.post(submit_url)
        assert early.status_code == 503
        assert early.headers["retry-after"]
        assert early.json()["type"] == "urn:dms:problem:store-unavailable"
        not_ready = await frontend.client.get("/readyz")
        assert not_ready.status_code == 503
        assert (await frontend.client.get("/healthz")).status_code == 200
        assert (await frontend.client.get("/metrics")).status_code == 200
        for _ in range(2):
            with valkey(tmp_path, port, PERSISTENT):
                await eventually(lambda: _is_ready(frontend))
                task_id = await frontend.submit()
                await eventually(lambda task_id=task_id: stub.to("/task", task_id))
            gone = await frontend.client.get(f"{submit_url}?limit=1")
            assert gone.status_code == 503


async def test_a_store_that_lost_its_data_is_consumed_again(
    dms_redis_url: str, dms_managed: ManagedTasks, stub: SchedulerStub
) -> None:
    async with running_frontend(settings_for(dms_redis_url, stub)):
        before = await submit(dms_managed)
        await eventually(lambda: stub.to("/task", before))
        async with Redis.from_url(dms_redis_url) as client:
            await client.flushall()
        after = await submit(dms_managed)
        await eventually(lambda: stub.to("/task", after))


async def _is_ready(frontend: Frontend) -> bool:
    return (await frontend.client.get("/readyz")).status_code == 200


# ------------------------------------------------------------------------------- the parts alone


async def test_the_client_reads_every_kind_of_answer(stub: SchedulerStub) -> None:
    client = SchedulerClient(make_settings("redis://h/0", scheduler_base_url=stub.url + "/"))
    call = TaskCall("1", "sync", "alice")
    stub.script = [
        answer({"status": "QUEUED", "job_id": 7}),
        answer({}, 202),
        Behaviour(body=b" \n"),
        Behaviour(body=b'{"x": "' + b"y" * 2_000_000 + b'"}'),
        answer({"detail": "x" * 5000}, 400),
    ]
    assert await client.submit(call, {"n": 2**80}) == Acknowledgement("QUEUED", "7")
    assert stub.calls[0].body["parameters"] == {"n": 2**80}
    assert await client.submit(call, {}) == Acknowledgement()
    assert await client.submit(call, {}) == Acknowledgement()
    with pytest.raises(SchedulerUnavailableError, match="means nothing"):
        await client.submit(call, {})
    with pytest.raises(SchedulerRejectedError) as refused:
        await client.submit(call, {})
    assert len(str(refused.value)) == 500
    await client.close()


async def test_the_breaker_opens_and_closes() -> None:
    breaker = Breaker()
    for _ in range(THRESHOLD - 1):
        breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    await breaker.wait()
    assert breaker.is_open  # a probe may pass, no more
    breaker.succeeded()
    assert not breaker.is_open


def test_waits_grow_and_end_at_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.event_processor._FIRST_DELAY", 1.0)
    monkeypatch.setattr("app.services.event_processor._LONGEST_DELAY", 24.0)
    for tries in range(2000):
        low = min(2.0**tries, 24.0) if tries < 100 else 24.0
        assert low <= backoff_seconds(tries) <= low * 1.25 <= 30.0


def test_a_wait_is_logged_first_and_then_at_most_once_a_minute() -> None:
    elapsed, told = 0.0, [0.0]
    assert worth_logging(0)
    for tries in range(200):
        elapsed += min(2.0**tries, 24.0)
        if worth_logging(tries + 1):
            assert elapsed - told[-1] >= 60
            told.append(elapsed)
    assert 20 < len(told) < 80
