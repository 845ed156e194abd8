"""What attempts leave behind for the next one and for people: checkpoint and history."""

import json
from datetime import timedelta
from typing import Any

import pytest

from task_state import FencedError, InvalidRequestError, TaskStatus
from task_state.managed import Checkpoint, Failing, ManagedTasks
from task_state.models import MAX_CHECKPOINT_BYTES
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace
from tests.contract.test_managed_tasks import begin, loaded, running
from tests.contract.test_rescue import die, rescue

KOREAN = '디스크가 가득 찼습니다,\n둘째 줄 "인용" \\ \x7f'


async def save(managed: ManagedTasks, task_id: str, value: Any, epoch: int = 1) -> TaskStatus:
    return (await managed.heartbeat(task_id, epoch, checkpoint=Checkpoint(value))).status


# -------------------------------------------------------------------------------------- checkpoint
@pytest.mark.parametrize("value", [{"파일": [1, None]}, "text", 0, [], False, {"a": "x" * 65_000}])
async def test_the_next_attempt_reads_what_was_saved_last(
    managed: ManagedTasks, repository: RedisTaskRepository, value: Any
) -> None:
    task_id = await running(managed)
    assert await save(managed, task_id, "older") is TaskStatus.RUNNING
    await save(managed, task_id, value)
    assert (await loaded(repository, task_id)).checkpoint == value
    await managed.retry(task_id, 1)
    attempt = await begin(managed, task_id, 2)
    assert attempt.task.checkpoint == value
    await managed.heartbeat(task_id, 2, progress={"n": 1})
    assert (await loaded(repository, task_id)).checkpoint == value, "a heartbeat without one"
    await save(managed, task_id, None, 2)
    assert (await loaded(repository, task_id)).checkpoint is None


async def test_a_checkpoint_survives_the_worker_and_leaves_the_revision_alone(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    before = await loaded(repository, task_id)
    await save(managed, task_id, {"done": 7})
    after = await loaded(repository, task_id)
    assert (after.revision, after.updated_at) == (before.revision, before.updated_at)
    keyspace.expire_lease(task_id)
    await rescue(managed, keyspace)
    assert (await begin(managed, task_id, 2)).task.checkpoint == {"done": 7}
    with pytest.raises(FencedError):
        await save(managed, task_id, "stale")
    assert (await loaded(repository, task_id)).checkpoint == {"done": 7}


async def test_the_worker_of_an_attempt_is_shown_while_it_holds_the_task(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    shown = await loaded(repository, task_id)
    (listed,) = await repository.list_all()
    assert (shown.worker, listed.worker) == ("w1", "w1")
    shown.worker, shown.description = "somebody else", "described"
    await repository.save(shown)
    assert (await loaded(repository, task_id)).worker == "w1"
    await managed.retry(task_id, 1)
    assert (await loaded(repository, task_id)).worker is None
    await begin(managed, task_id, 2)
    assert (await loaded(repository, task_id)).worker == "w2"
    await managed.finish(task_id, 2, TaskStatus.COMPLETED)
    assert (await loaded(repository, task_id)).worker is None


@pytest.mark.parametrize("end", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
async def test_the_end_drops_the_checkpoint(
    managed: ManagedTasks, keyspace: Keyspace, end: TaskStatus
) -> None:
    task_id = await running(managed)
    await save(managed, task_id, {"done": 7})
    assert keyspace.field(task_id, "checkpoint") == b'{"done":7}'
    await managed.finish(task_id, 1, end)
    assert keyspace.field(task_id, "checkpoint") is None


async def test_a_checkpoint_is_progress_between_deaths(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    keyspace.expire_lease(task_id)
    await rescue(managed, keyspace)
    await die(managed, keyspace, task_id, 2)
    await begin(managed, task_id, 3)
    await save(managed, task_id, 1, 3)
    keyspace.expire_lease(task_id)
    await rescue(managed, keyspace)
    assert (await loaded(repository, task_id)).status is TaskStatus.PENDING
    await die(managed, keyspace, task_id, 4)
    rescued = await die(managed, keyspace, task_id, 5)
    assert rescued.status is TaskStatus.FAILED


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x" * MAX_CHECKPOINT_BYTES, f"{MAX_CHECKPOINT_BYTES + 2} bytes of JSON"),
        ("한" * (MAX_CHECKPOINT_BYTES // 3 + 1), "bytes of JSON"),
        (float("nan"), "cannot be written as JSON"),
        (object(), "cannot be written as JSON"),
    ],
)
async def test_a_checkpoint_that_cannot_be_stored_is_refused(
    managed: ManagedTasks, keyspace: Keyspace, value: Any, reason: str
) -> None:
    task_id = await running(managed)
    before = keyspace.dump()
    with pytest.raises(InvalidRequestError, match=reason):
        await save(managed, task_id, value)
    assert keyspace.dump() == before


# ----------------------------------------------------------------------------------------- history
async def test_a_task_that_succeeds_at_once_has_no_history(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    assert (await loaded(repository, task_id)).history == []
    assert keyspace.field(task_id, "history") is None


async def test_each_attempt_that_does_not_succeed_leaves_a_note(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    """Retried, released, lost with its worker, failed for good; in that order."""
    task_id = await running(managed)
    await managed.retry(task_id, 1, error=KOREAN, failing=Failing("failed", KOREAN))
    await begin(managed, task_id, 2)
    await managed.release(task_id, 2, failing=Failing("released", "this worker shuts down"))
    await die(managed, keyspace, task_id, 3)
    await begin(managed, task_id, 4)
    await managed.finish(task_id, 4, TaskStatus.FAILED, failing=Failing("timeout", "x" * 600))
    found = await loaded(repository, task_id)
    assert [(note.epoch, note.attempt, note.outcome) for note in found.history] == [
        (1, 1, "failed"),
        (2, 2, "released"),
        (3, 2, "lost"),
        (4, 2, "timeout"),
    ]
    reasons = [note.reason for note in found.history]
    assert reasons[:2] == [KOREAN, "this worker shuts down"]
    assert reasons[2].startswith("Worker w3 was lost in attempt 3")
    assert reasons[3] == "x" * 499 + "…"
    assert [note.worker for note in found.history] == ["w1", "w2", "w3", "w4"]
    times = [note.ended_at for note in found.history]
    assert times == sorted(times)
    assert times[-1] == found.completed_at
    assert times[-1].utcoffset() == timedelta(hours=9)
    (listed,) = await repository.list_all()
    assert listed.history == found.history


async def test_a_task_that_waits_for_long_keeps_its_other_notes(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    """It is given back with a delay again and again: the same words are noted once, the last."""
    task_id = await running(managed)
    await managed.retry(task_id, 1, failing=Failing("failed", "no space"))
    await begin(managed, task_id, 2)
    for epoch in range(2, 6):
        busy = Failing("released", "another task writes there")
        await managed.release(task_id, epoch, delay_seconds=0.001, failing=busy)
        waiting = await loaded(repository, task_id)
        assert (waiting.status, waiting.attempts) == (TaskStatus.PENDING, 1)
        await begin(managed, task_id, epoch + 1)
    other = Failing("released", "another task reads it")
    await managed.release(task_id, 6, delay_seconds=0.001, failing=other)
    await begin(managed, task_id, 7)
    await managed.release(task_id, 7, failing=other)
    found = await loaded(repository, task_id)
    assert [(note.epoch, note.reason) for note in found.history] == [
        (1, "no space"),
        (5, "another task writes there"),
        (6, "another task reads it"),
        (7, "another task reads it"),
    ]


async def test_a_task_that_has_only_waited_has_one_note(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    for epoch in (1, 2):
        busy = Failing("released", KOREAN)
        await managed.release(task_id, epoch, delay_seconds=0.001, failing=busy)
        await begin(managed, task_id, epoch + 1)
    found = await loaded(repository, task_id)
    assert [(note.epoch, note.reason) for note in found.history] == [(2, KOREAN)]
    assert json.loads(found.model_dump_json())["history"][0]["reason"] == KOREAN


async def test_repeating_an_end_notes_it_once(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    for _ in range(3):
        await managed.retry(task_id, 1, failing=Failing("failed", "a"))
    await begin(managed, task_id, 2)
    for _ in range(3):
        await managed.finish(task_id, 2, TaskStatus.FAILED, failing=Failing("failed", "b"))
    assert [note.reason for note in (await loaded(repository, task_id)).history] == ["a", "b"]


async def test_a_stale_attempt_notes_nothing(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    keyspace.expire_lease(task_id)
    await rescue(managed, keyspace)
    await begin(managed, task_id, 2)
    for write in (managed.retry, managed.release):
        with pytest.raises(FencedError):
            await write(task_id, 1, failing=Failing("failed", "stale"))
    with pytest.raises(FencedError):
        await managed.finish(task_id, 1, TaskStatus.FAILED, failing=Failing("failed", "stale"))
    assert [note.outcome for note in (await loaded(repository, task_id)).history] == ["lost"]


async def test_of_many_notes_the_first_and_the_latest_stay(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    for epoch in range(1, 61):
        await managed.retry(task_id, epoch, failing=Failing("failed", f"{epoch},\n{{}}"))
        await begin(managed, task_id, epoch + 1)
    history = (await loaded(repository, task_id)).history
    assert [note.epoch for note in history] == [1, *range(12, 61)]
    assert history[-1].reason == "60,\n{}"


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_cancelled_attempt_that_was_lost_is_in_the_history(
    managed: ManagedTasks,
    repository: RedisTaskRepository,
    keyspace: Keyspace,
    cancelled_first: bool,
) -> None:
    task_id = await running(managed)
    if cancelled_first:
        await managed.cancel(task_id)
    keyspace.expire_lease(task_id)
    if cancelled_first:
        await rescue(managed, keyspace)
    else:
        await managed.cancel(task_id)
    found = await loaded(repository, task_id)
    assert found.status is TaskStatus.CANCELLED
    assert [note.outcome for note in found.history] == ["lost"]


async def test_saving_a_record_leaves_both_as_they_are(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    await managed.retry(task_id, 1, failing=Failing("failed", "a"))
    await begin(managed, task_id, 2)
    await save(managed, task_id, 5, 2)
    record = await loaded(repository, task_id)
    record.jobs.append("job-1")
    record.history.clear()
    record.checkpoint = None
    await repository.save(record)
    found = await loaded(repository, task_id)
    assert (found.jobs, found.checkpoint, len(found.history)) == (["job-1"], 5, 1)
