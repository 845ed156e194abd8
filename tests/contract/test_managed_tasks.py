"""The life of managed tasks: submitted, accepted, attempted under a lease, given back, ended."""

import asyncio
from typing import Any

import pytest

from task_state import (
    ConflictError,
    FencedError,
    IdempotencyMismatchError,
    InvalidRequestError,
    LeaseHeldError,
    TaskNotFoundError,
    TaskRecord,
    TaskResult,
    TaskStatus,
    TransitionError,
    keys,
)
from task_state.managed import Attempt, ManagedTasks, Waiting
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace, indexes, record

TERMINAL = [status for status in TaskStatus if status.is_terminal]


async def submit(managed: ManagedTasks, **values: Any) -> str:
    request: dict[str, Any] = {"service": "sync", "user_id": "alice", "parameters": {"src": "/a"}}
    return (await managed.submit(**{**request, **values})).task_id


async def begin(managed: ManagedTasks, task_id: str, epoch: int = 1) -> Attempt:
    attempt = await managed.begin(task_id, epoch, worker=f"w{epoch}", log_entry="begun")
    assert attempt is not None
    return attempt


async def running(managed: ManagedTasks, **values: Any) -> str:
    task_id = await submit(managed, **values)
    await begin(managed, task_id)
    return task_id


async def loaded(repository: RedisTaskRepository, task_id: str) -> TaskRecord:
    found = await repository.get(task_id)
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------ submit
async def test_submit_writes_record_indexes_and_event_in_one_step(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    submission = await managed.submit(
        service="sync",
        user_id="alice@x",
        parameters={"src": "/데이터", "n": [1, None]},
        max_attempts=5,
        retry_of="7",
        schedule_id="nightly",
        log_entry="Submitted",
    )
    assert (submission.status, submission.created) == (TaskStatus.PENDING, True)
    found = await loaded(repository, submission.task_id)
    assert found.managed
    assert found.parameters == {"src": "/데이터", "n": [1, None]}
    assert found.max_attempts == 5
    assert (found.retry_of, found.schedule_id) == ("7", "nightly")
    assert (found.attempts, found.epoch, found.revision) == (0, 0, 1)
    assert found.logs[0].endswith(",Submitted")
    assert found.created_at == found.updated_at
    assert keyspace.indexes_of(found.task_id) == indexes(found)
    assert keyspace.outbox() == [("submitted", found.task_id, "PENDING")]
    assert keyspace.changes() == [("created", found.task_id, "PENDING")]
    assert await repository.list_users_by_service("sync") == ["alice@x"]


async def test_ids_of_submissions_increase(managed: ManagedTasks) -> None:
    ids = [int(await submit(managed)) for _ in range(20)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("field", ["service", "user_id"])
@pytest.mark.parametrize("name", ["a:b", "a b", "", "한", "x" * 65, "a\n", "*", "../x"])
async def test_names_that_would_break_keys_are_refused(
    managed: ManagedTasks, keyspace: Keyspace, field: str, name: str
) -> None:
    with pytest.raises(InvalidRequestError, match=field):
        await submit(managed, **{field: name})
    assert keyspace.leaks() == set()
    assert keyspace.outbox() == []


@pytest.mark.parametrize("parameters", [[1], "x", {"x": float("nan")}, {"x": "\udc80"}])
async def test_parameters_are_a_json_object(
    managed: ManagedTasks, keyspace: Keyspace, parameters: Any
) -> None:
    with pytest.raises(InvalidRequestError, match="parameters"):
        await submit(managed, parameters=parameters)
    assert keyspace.leaks() == set()


async def test_a_repeated_key_gives_the_first_answer_again(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    async def ask(**values: Any) -> tuple[str, TaskStatus, bool]:
        request: dict[str, Any] = {"parameters": {"b": 1, "a": "\udc80 한".strip("\udc80")}}
        request |= {"service": "sync", "user_id": "alice", "idempotency_key": "k: 1\n", **values}
        answer = await managed.submit(**request)
        return answer.task_id, answer.status, answer.created

    first = await ask()
    assert first[1:] == (TaskStatus.PENDING, True)
    await begin(managed, first[0])
    assert await ask() == (first[0], TaskStatus.RUNNING, False)
    assert await ask(parameters={"a": " 한", "b": 1}) == (first[0], TaskStatus.RUNNING, False)
    with pytest.raises(IdempotencyMismatchError):
        await ask(parameters={"b": 2})
    others = [await ask(user_id="bob"), await ask(service="copy"), await ask(idempotency_key="2")]
    assert all(created for _, _, created in others)
    assert [kind for kind, _, _ in keyspace.outbox()] == ["submitted"] * 4
    await managed.cancel(first[0], delete=True)
    await managed.finish(first[0], 1, TaskStatus.CANCELLED)
    assert (await ask())[0] == first[0], "the answer outlives the task"
    lives = [keyspace.client.ttl(name) for name in keyspace.names() if ":idempotency:" in name]
    assert len(lives) == 4
    assert all(86_000 < life <= 86_400 for life in lives)


async def test_one_key_in_many_requests_at_once_is_one_task(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    answers = await asyncio.gather(
        *(
            managed.submit(service="s", user_id="u", parameters={}, idempotency_key="same")
            for _ in range(50)
        )
    )
    assert len({answer.task_id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
    assert len(keyspace.outbox()) == 1


# ----------------------------------------------------------------------------------- accept, begin
async def test_accept_names_the_next_epoch(managed: ManagedTasks) -> None:
    task_id = await submit(managed)
    assert await managed.accept(task_id) == Waiting(task_id, 1)
    assert await managed.accept(task_id) == Waiting(task_id, 1)
    await begin(managed, task_id)
    assert await managed.accept(task_id) is TaskStatus.RUNNING
    await managed.retry(task_id, 1)
    assert await managed.accept(task_id) == Waiting(task_id, 2)
    await managed.cancel(task_id)
    assert await managed.accept(task_id) is TaskStatus.CANCELLED
    with pytest.raises(TaskNotFoundError):
        await managed.accept("gone")


async def test_begin_starts_the_attempt(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await submit(managed)
    await repository.set_status(task_id, TaskStatus.DISPATCHING, log_entry="Dispatching")
    attempt = await managed.begin(
        task_id, 1, worker="w", lease_seconds=7.5, max_attempts=9, description="d", log_entry="go"
    )
    assert attempt is not None
    assert (attempt.epoch, attempt.lease_seconds) == (1, 7.5)
    found = await loaded(repository, task_id)
    assert attempt.task.model_dump(exclude={"logs", "logs_total"}) == found.model_dump(
        exclude={"logs", "logs_total"}
    )
    assert (found.status, found.attempts, found.epoch) == (TaskStatus.RUNNING, 1, 1)
    assert (found.max_attempts, found.description) == (9, "d")
    assert found.started_at == found.updated_at
    assert [line.rpartition(",")[2] for line in found.logs] == ["Dispatching", "go"]
    assert keyspace.client.zrange(keys.LEASES, 0, -1) == [task_id.encode()]
    assert keyspace.client.zcard(keys.QUEUED) == 0


async def test_begin_drops_what_is_not_its_turn(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await submit(managed)
    for epoch in (0, 2, -1):
        assert await managed.begin(task_id, epoch, worker="w") is None
    assert await managed.begin("gone", 1, worker="w") is None
    await begin(managed, task_id)
    before = keyspace.dump()
    assert await managed.begin(task_id, 1, worker="other") is None, "delivered twice"
    assert await managed.begin(task_id, 2, worker="w") is None, "it runs"
    assert keyspace.dump() == before
    await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    assert await managed.begin(task_id, 2, worker="w") is None, "it is over"
    await repository.save(record("mine"))
    assert await managed.begin("mine", 1, worker="w") is None, "not ours"
    assert (await loaded(repository, "mine")).status is TaskStatus.PENDING


async def test_a_worker_that_asks_again_gets_its_attempt_again(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    task_id = await submit(managed)
    first = await begin(managed, task_id)
    before = keyspace.dump()
    again = await managed.begin(task_id, 1, worker="w1", log_entry="begun")
    assert again is not None
    assert again.task.model_dump() == first.task.model_dump()
    assert keyspace.dump() == before, "the first answer was lost, nothing else"
    keyspace.expire_lease(task_id)
    assert await managed.begin(task_id, 1, worker="w1") is None, "too late: it may be rescued"


async def test_a_later_attempt_starts_clean(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    started = (await loaded(repository, task_id)).started_at
    await managed.heartbeat(task_id, 1, progress={"files": 1})
    await managed.retry(task_id, 1, error="disk full", log_entry="again")
    waiting = await loaded(repository, task_id)
    assert (waiting.status, waiting.result.error) == (TaskStatus.PENDING, "disk full")
    await begin(managed, task_id, 2)
    found = await loaded(repository, task_id)
    assert (found.attempts, found.epoch) == (2, 2)
    assert found.progress is None
    assert found.result.error is None
    assert found.started_at == started, "when the task first started"


# -------------------------------------------------------------------------------------- heartbeats
async def test_heartbeat_keeps_the_lease_and_carries_the_cancel_flag(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    before = await loaded(repository, task_id)
    keyspace.expire_lease(task_id)
    kept = await managed.heartbeat(task_id, 1, progress={"a": 1})
    assert (kept.status, kept.adjusted) == (TaskStatus.RUNNING, {})
    found = await loaded(repository, task_id)
    assert (found.revision, found.updated_at) == (before.revision, before.updated_at)
    assert found.progress == {"a": 1}
    with pytest.raises(LeaseHeldError):
        await repository.set_status(task_id, TaskStatus.COMPLETED)
    assert await managed.cancel(task_id) is TaskStatus.CANCEL_REQUESTED
    assert (await managed.heartbeat(task_id, 1)).status is TaskStatus.CANCEL_REQUESTED
    assert (await loaded(repository, task_id)).progress == {"a": 1}


async def test_a_lease_guards_the_status_and_nothing_else(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    await repository.append_log(task_id, "from outside")
    await repository.update_result(task_id, pod_status="phase=Running", launcher_output="x")
    await repository.add_jobs(task_id, ["job-1"])
    for status in TERMINAL:
        with pytest.raises(LeaseHeldError):
            await repository.set_status(task_id, status)
        mine = await loaded(repository, task_id)
        mine.status = status
        with pytest.raises(LeaseHeldError):
            await repository.save(mine)
    with pytest.raises(LeaseHeldError):
        await repository.set_progress(task_id, {})
    with pytest.raises(ConflictError):
        await repository.save(record(task_id))
    await repository.set_status(task_id, TaskStatus.CANCEL_REQUESTED)
    keyspace.expire_lease(task_id)
    await repository.set_status(task_id, TaskStatus.FAILED)
    found = await loaded(repository, task_id)
    assert found.status is TaskStatus.FAILED
    assert found.jobs == ["job-1"]
    assert keyspace.client.zcard(keys.LEASES) == 0


async def test_a_batch_of_lines_is_added_once(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    await managed.append_logs(task_id, 1, ["a"], "1", batch="1-1")
    before = keyspace.dump()
    await managed.append_logs(task_id, 1, ["a"], "1", batch="1-1")
    assert keyspace.dump() == before, "its answer was lost, the lines were not"
    await managed.append_logs(task_id, 1, ["a"], "1", batch="1-2")
    await managed.append_logs(task_id, 1, ["b"])
    found = await loaded(repository, task_id)
    assert found.logs[1:] == ["a", "a", "b"]
    assert found.result.launcher_output == "11"


# -------------------------------------------------------------------------------------------- ends
@pytest.mark.parametrize("status", TERMINAL)
async def test_finish_writes_everything_once(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace, status: TaskStatus
) -> None:
    task_id = await running(managed)
    await managed.append_logs(task_id, 1, ["line"], launcher_output="out ")

    async def finish() -> TaskStatus:
        return await managed.finish(
            task_id,
            1,
            status,
            log_entry="done",
            data={"files": 1},
            error="왜",
            launcher_output="end",
            progress={"files": 1},
        )

    assert await finish() is status
    found = await loaded(repository, task_id)
    before = keyspace.dump()
    assert await finish() is status
    assert keyspace.dump() == before, "repeating it changes nothing at all"
    assert found.status is status
    assert found.result == TaskResult(launcher_output="out end", data={"files": 1}, error="왜")
    assert found.progress == {"files": 1}
    assert found.completed_at == found.updated_at
    assert [line.rpartition(",")[2] for line in found.logs] == ["begun", "line", "done"]
    assert keyspace.outbox()[1:] == [("finished", task_id, str(status))]
    assert keyspace.indexes_of(task_id) == indexes(found)
    assert keyspace.client.zcard(keys.LEASES) == 0
    for other in set(TERMINAL) - {status}:
        with pytest.raises(TransitionError):
            await managed.finish(task_id, 1, other)
    with pytest.raises(FencedError):
        await managed.heartbeat(task_id, 1)
    assert await managed.retry(task_id, 1) is status, "too late to give it back"


async def test_an_attempt_ends_in_a_terminal_state(managed: ManagedTasks) -> None:
    task_id = await running(managed)
    for status in set(TaskStatus) - set(TERMINAL):
        with pytest.raises(InvalidRequestError, match="terminal"):
            await managed.finish(task_id, 1, status)


async def test_an_expired_lease_is_still_its_owners(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    keyspace.expire_lease(task_id)
    await managed.append_logs(task_id, 1, ["late"])
    assert await managed.finish(task_id, 1, TaskStatus.COMPLETED) is TaskStatus.COMPLETED
    assert (await loaded(repository, task_id)).status is TaskStatus.COMPLETED
    assert await managed.fenced_count() == 0


@pytest.mark.parametrize("how", ["retry", "release"])
async def test_a_stale_attempt_is_refused_and_counted(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace, how: str
) -> None:
    task_id = await running(managed)
    await (managed.retry if how == "retry" else managed.release)(task_id, 1)
    await begin(managed, task_id, 2)
    before = await loaded(repository, task_id)
    dump = {name: value for name, value in keyspace.dump().items() if name != keys.COUNTERS}
    for number, write in enumerate(
        (
            managed.heartbeat(task_id, 1, progress={"stale": 1}, advanced=True),
            managed.append_logs(task_id, 1, ["stale"], "stale"),
            managed.finish(task_id, 1, TaskStatus.COMPLETED, data="stale"),
            managed.finish(task_id, 1, TaskStatus.CANCELLED),
            managed.retry(task_id, 1, log_entry="stale"),
            managed.release(task_id, 1, log_entry="stale"),
        ),
        start=1,
    ):
        with pytest.raises(FencedError) as raised:
            await write
        assert (raised.value.task_id, raised.value.epoch) == (task_id, 1)
        assert await managed.fenced_count() == number
    assert (await loaded(repository, task_id)).model_dump() == before.model_dump()
    after = {name: value for name, value in keyspace.dump().items() if name != keys.COUNTERS}
    assert after == dump


async def test_the_attempt_of_a_deleted_task_is_over(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    await repository.delete(task_id)
    for write in (
        managed.heartbeat(task_id, 1),
        managed.append_logs(task_id, 1, ["x"]),
        managed.finish(task_id, 1, TaskStatus.COMPLETED),
        managed.retry(task_id, 1),
        managed.release(task_id, 1),
    ):
        with pytest.raises(FencedError):
            await write
    assert keyspace.leaks() == set()


async def test_a_replaced_record_is_not_ended_by_the_old_attempt(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    await repository.save(record(task_id, status=TaskStatus.PENDING))
    with pytest.raises(FencedError):
        await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    with pytest.raises(FencedError):
        await managed.heartbeat(task_id, 1)
    assert (await loaded(repository, task_id)).status is TaskStatus.PENDING


# --------------------------------------------------------------------------------- retry, release
async def test_retry_counts_and_release_does_not(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    assert await managed.retry(task_id, 1, log_entry="again") is TaskStatus.PENDING
    assert (await loaded(repository, task_id)).attempts == 1
    await begin(managed, task_id, 2)
    assert await managed.release(task_id, 2, log_entry="drained") is TaskStatus.PENDING
    found = await loaded(repository, task_id)
    assert (found.attempts, found.epoch) == (1, 2)
    before = keyspace.dump()
    assert await managed.release(task_id, 2, log_entry="drained") is TaskStatus.PENDING
    assert await managed.retry(task_id, 2, log_entry="drained") is TaskStatus.PENDING
    assert keyspace.dump() == before, "repeating it changes nothing"
    assert keyspace.client.zcard(keys.LEASES) == 0
    assert keyspace.client.zrange(keys.lane("sync", "alice"), 0, -1) == [task_id.encode()]
    await begin(managed, task_id, 3)
    assert (await loaded(repository, task_id)).attempts == 2


@pytest.mark.parametrize("status", [TaskStatus.DISPATCHING, TaskStatus.CANCEL_REQUESTED])
async def test_a_task_is_given_back_once_only(
    managed: ManagedTasks, repository: RedisTaskRepository, status: TaskStatus
) -> None:
    task_id = await running(managed)
    await managed.release(task_id, 1)
    await repository.set_status(task_id, status)
    assert await managed.release(task_id, 1) is status, "a reply was lost, the release was not"
    found = await loaded(repository, task_id)
    assert (found.attempts, found.status) == (0, status)
    with pytest.raises(FencedError):
        await managed.heartbeat(task_id, 1)


@pytest.mark.parametrize("how", ["retry", "release"])
async def test_giving_back_a_task_that_is_to_be_cancelled_ends_it(
    managed: ManagedTasks, keyspace: Keyspace, how: str
) -> None:
    task_id = await running(managed)
    await managed.cancel(task_id)
    give_back = managed.retry if how == "retry" else managed.release
    assert await give_back(task_id, 1) is TaskStatus.CANCELLED
    assert await give_back(task_id, 1) is TaskStatus.CANCELLED
    events = [(kind, name) for kind, name, _ in keyspace.outbox()]
    assert events[1:] == [("cancel", task_id), ("finished", task_id)]


# --------------------------------------------------------------------------- other programs' tasks
async def test_an_external_record_is_left_alone(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await repository.save(record())
    before = await loaded(repository, "external-1")
    with pytest.raises(InvalidRequestError, match="belongs to the program"):
        await managed.accept("external-1")
    assert await managed.begin("external-1", 1, worker="w") is None
    keyspace.let_rescue()
    assert await managed.rescue() == []
    assert await managed.unqueued() == []
    assert await managed.sweep() == 0
    assert (await loaded(repository, "external-1")).model_dump() == before.model_dump()
    assert keyspace.outbox() == []
    assert await managed.cancel("external-1") is TaskStatus.CANCELLED
