"""The contract of TaskRepository: states, log lines, results, jobs and progress."""

import re
from typing import Any

import pytest

from task_state import (
    TRANSITIONS,
    InvalidRequestError,
    TaskNotFoundError,
    TaskResult,
    TaskStatus,
    TransitionError,
)
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace, indexes, record
from tests.contract.test_task_repository import KOREAN, STATUSES, loaded


# ------------------------------------------------------------------------------------------ states
async def reach(repository: RedisTaskRepository, status: TaskStatus) -> None:
    await repository.save(record(status=status))


@pytest.mark.parametrize("current", STATUSES)
@pytest.mark.parametrize("requested", STATUSES)
async def test_set_status_follows_the_table(
    repository: RedisTaskRepository, keyspace: Keyspace, current: TaskStatus, requested: TaskStatus
) -> None:
    await reach(repository, current)
    before = await loaded(repository)
    events = keyspace.outbox()
    if requested is current:
        await repository.set_status("external-1", requested, log_entry="again")
        found = await loaded(repository)
        assert (found.status, found.revision) == (current, before.revision)
        assert found.logs_total == 1
        assert keyspace.outbox() == events, "no event for what did not happen"
    elif requested in TRANSITIONS[current]:
        await repository.set_status("external-1", requested, log_entry="moved")
        found = await loaded(repository)
        assert (found.status, found.revision) == (requested, before.revision + 1)
        assert found.updated_at > before.updated_at
        assert (found.started_at is not None) is (TaskStatus.RUNNING in {current, requested})
        assert (found.completed_at is not None) is requested.is_terminal
        new = [("finished", "external-1", str(requested))] if requested.is_terminal else []
        assert keyspace.outbox() == events + new
        assert keyspace.indexes_of("external-1") == indexes(found)
    else:
        with pytest.raises(TransitionError) as raised:
            await repository.set_status("external-1", requested, log_entry="refused")
        assert (raised.value.current, raised.value.requested) == (current, requested)
        assert (await loaded(repository)).model_dump() == before.model_dump()
        assert keyspace.outbox() == events


async def test_a_status_is_read_in_any_case(repository: RedisTaskRepository) -> None:
    await reach(repository, TaskStatus.PENDING)
    await repository.set_status("external-1", TaskStatus("running"))
    assert (await loaded(repository)).status is TaskStatus.RUNNING


async def test_writes_to_a_missing_id_raise_and_create_nothing(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    for write in (
        repository.set_status("gone", TaskStatus.RUNNING, log_entry="x"),
        repository.append_log("gone", "x"),
        repository.append_logs("gone", ["x"]),
        repository.update_result("gone", pod_status="x", launcher_output="y"),
        repository.set_progress("gone", {}),
        repository.add_jobs("gone", ["j"]),
    ):
        with pytest.raises(TaskNotFoundError, match="gone"):
            await write
    assert not await repository.delete("gone")
    assert keyspace.leaks() == set()
    assert keyspace.changes() == []


# -------------------------------------------------------------------------------------------- logs
async def test_lines_are_prefixed_with_the_time_and_stay_lines(
    repository: RedisTaskRepository,
) -> None:
    await repository.save(record())
    for message in ("worker started", "a\nb\r\nc", KOREAN, "name \udcff\udc80 of a file", ""):
        await repository.append_log("external-1", message)
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+09:00,"
    lines = (await loaded(repository)).logs
    assert all(re.match(stamp, line) for line in lines)
    messages = [re.sub(f"^{stamp}", "", line) for line in lines]
    assert messages == [
        "worker started",
        "a\\nb\\r\\nc",
        KOREAN,
        "name \\udcff\\udc80 of a file",
        "",
    ]


async def test_set_status_logs_in_the_same_step(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await repository.save(record())
    await repository.set_status("external-1", TaskStatus.RUNNING, log_entry="worker started")
    assert (await loaded(repository)).logs[0].endswith(",worker started")
    assert keyspace.changes() == [
        ("created", "external-1", "PENDING"),
        ("status", "external-1", "RUNNING"),
    ]


async def test_get_logs_pages(repository: RedisTaskRepository) -> None:
    lines = [f"line {number}" for number in range(25)]
    await repository.save(record())
    await repository.append_logs("external-1", lines)
    for offset, limit, start, expected in (
        (0, 10, 0, lines[:10]),
        (20, 10, 20, lines[20:]),
        (25, 10, 25, []),
        (-5, 10, 20, lines[20:]),
        (-5, 2, 20, lines[20:22]),
        (-100, 3, 0, lines[:3]),
        (0, 1000, 0, lines),
    ):
        page = await repository.get_logs("external-1", offset=offset, limit=limit)
        assert (list(page.lines), page.offset, page.total) == (expected, start, 25)
    assert (await repository.get_logs("gone")).total == 0
    for limit in (0, -1):
        with pytest.raises(InvalidRequestError, match="limit"):
            await repository.get_logs("external-1", limit=limit)


async def test_many_lines_in_one_call_stay_in_order(repository: RedisTaskRepository) -> None:
    lines = [f"line {number}" for number in range(20_001)]
    await repository.save(record())
    await repository.append_logs("external-1", lines)
    page = await repository.get_logs("external-1", limit=30_000)
    assert list(page.lines) == lines
    await repository.append_logs("external-1", [])
    assert (await loaded(repository)).logs_total == 20_001


# ----------------------------------------------------------------------------------- results, jobs
async def test_update_result_is_additive(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await repository.save(record())
    before = await loaded(repository)
    await repository.update_result("external-1", pod_status="phase=Running")
    await repository.update_result("external-1", launcher_output="streamed ")
    await repository.update_result("external-1", data={"rows": 3}, error="one")
    await repository.update_result("external-1", launcher_output="stdout")
    await repository.update_result("external-1")
    found = await loaded(repository)
    assert found.result == TaskResult(
        pod_status="phase=Running", launcher_output="streamed stdout", data={"rows": 3}, error="one"
    )
    assert found.revision == before.revision + 2
    assert keyspace.indexes_of("external-1") == indexes(found)


@pytest.mark.parametrize("data", [0, False, "", [], {}, [None], 1.5, "한", 2**60])
async def test_any_json_is_data(repository: RedisTaskRepository, data: Any) -> None:
    await repository.save(record(result=TaskResult(data=data)))
    assert (await loaded(repository)).result.data == data
    await repository.save(record(result=TaskResult(data="other")))
    await repository.update_result("external-1", data=data)
    assert (await loaded(repository)).result.data == data


async def test_text_that_is_no_text_survives_escaped(repository: RedisTaskRepository) -> None:
    broken = b"caf\xe9 \xff".decode("utf-8", "surrogateescape")
    await repository.save(
        record(logs=[broken], description=broken, result=TaskResult(error=broken))
    )
    await repository.update_result(
        "external-1", pod_status=broken, error=broken, launcher_output=broken
    )
    await repository.append_logs("external-1", [broken])
    found = await loaded(repository)
    escaped = "caf\\udce9 \\udcff"
    assert found.logs == [escaped, escaped]
    assert (found.description, found.result.error) == (escaped, escaped)
    assert (found.result.pod_status, found.result.launcher_output) == (escaped, escaped)


async def test_jobs_are_added_once(repository: RedisTaskRepository) -> None:
    await repository.save(record())
    await repository.add_jobs("external-1", ["a/1", "b"])
    await repository.add_jobs("external-1", ["b", '"한"\n', "b", '"한"\n'])
    await repository.add_jobs("external-1", [])
    assert (await loaded(repository)).jobs == ["a/1", "b", '"한"\n']
    assert (await loaded(repository)).revision == 3


async def test_progress_is_replaced(repository: RedisTaskRepository, keyspace: Keyspace) -> None:
    await repository.save(record())
    await repository.set_progress("external-1", {"files": 1, "현재": "a"})
    await repository.set_progress("external-1", {"files": 2})
    assert (await loaded(repository)).progress == {"files": 2}
    assert keyspace.changes()[-1] == ("progress", "external-1", "PENDING")
