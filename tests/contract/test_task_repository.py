"""The contract of TaskRepository: records, their states, logs, results and jobs, on each server."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from task_state import (
    ConflictError,
    InvalidRequestError,
    TaskNotFoundError,
    TaskRecord,
    TaskResult,
    TaskStatus,
    TransitionError,
    keys,
)
from task_state.changes import Changes
from task_state.log_entry import format_log_entry
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace, index_names, indexes, record

STATUSES = list(TaskStatus)
KOREAN = "한국어 로그 🚚 \x00 \t \x1b[31m"


async def loaded(repository: RedisTaskRepository, task_id: str = "external-1") -> TaskRecord:
    found = await repository.get(task_id)
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------------- ids
async def test_ids_increase_and_follow_the_time(repository: RedisTaskRepository) -> None:
    before = int(datetime.now(UTC).timestamp() * 1e6)
    ids = [int(await repository.next_task_id()) for _ in range(50)]
    ids += sorted(
        int(task_id)
        for task_id in await asyncio.gather(*(repository.next_task_id() for _ in range(50)))
    )
    assert ids == sorted(set(ids))
    # The server's clock is this machine's: the first id is the time in µs.
    assert before - 1_000_000 <= ids[0] <= int(datetime.now(UTC).timestamp() * 1e6) + 1_000_000


async def test_an_id_follows_the_last_one_even_when_the_clock_is_behind(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    ahead = int(datetime.now(UTC).timestamp() * 1e6) + 10**12
    keyspace.client.set(keys.SEQUENCE, ahead)
    assert [await repository.next_task_id() for _ in range(2)] == [str(ahead + 1), str(ahead + 2)]


# --------------------------------------------------------------------------------------- save, get
async def test_every_field_survives(repository: RedisTaskRepository, keyspace: Keyspace) -> None:
    saved = TaskRecord(
        task_id="A.b_c-1",
        service="svc@x.y_z-1",
        user_id="bob@example.org",
        status=TaskStatus.RUNNING,
        parameters={"경로": "/데이터", "n": 1, "deep": [{"x": None, "y": [True, 1.5]}], "": ""},
        logs=[format_log_entry("first"), KOREAN],
        result=TaskResult(
            pod_status="phase=Running", launcher_output=KOREAN, data={"a": [1]}, error="왜"
        ),
        jobs=["j-1", "작업/2"],
        created_at=datetime(2020, 2, 29, 1, 2, 3, 456789, tzinfo=UTC),
        started_at=datetime(2020, 2, 29, 1, 2, 4, 1, tzinfo=UTC),
        max_attempts=7,
        progress={"bytes": 2**53, "phase": "copy"},
        description="설명",
        retry_of="0",
        schedule_id="nightly",
    )
    await repository.save(saved)
    found = await loaded(repository, "A.b_c-1")
    assert found.model_dump() == saved.model_dump()
    assert found.revision == 1
    assert found.logs_total == 2
    assert str(found.created_at.tzinfo) == "Asia/Seoul"
    assert keyspace.indexes_of("A.b_c-1") == indexes(saved)
    assert await repository.get_launcher_output("A.b_c-1") == KOREAN


async def test_a_missing_record_is_none(repository: RedisTaskRepository) -> None:
    for task_id in ("nothing", "", "a b", "dms:{0}:task:1", "한", "\udc80", "x" * 1000):
        assert await repository.get(task_id) is None


async def test_created_now_unless_the_caller_says_when(repository: RedisTaskRepository) -> None:
    implicit = record("1", status=TaskStatus.PENDING)
    await asyncio.sleep(0)
    await repository.save(implicit)
    found = await loaded(repository, "1")
    assert found.created_at == found.updated_at == implicit.created_at
    naive = record("2", created_at=datetime(2024, 1, 1))  # noqa: DTZ001  (taken in the zone)
    await repository.save(naive)
    assert (await loaded(repository, "2")).created_at.isoformat() == "2024-01-01T00:00:00+09:00"


async def test_a_loaded_record_is_compared_by_revision(repository: RedisTaskRepository) -> None:
    await repository.save(record())
    mine, theirs = await loaded(repository), await loaded(repository)
    theirs.description = "theirs"
    await repository.save(theirs)
    assert theirs.revision == 2
    mine.description = "mine"
    with pytest.raises(ConflictError, match="load it again"):
        await repository.save(mine)
    assert (await loaded(repository)).description == "theirs"
    theirs.description = None
    await repository.save(theirs)
    assert (await loaded(repository)).description is None


async def test_additions_do_not_conflict(repository: RedisTaskRepository) -> None:
    await repository.save(record())
    mine = await loaded(repository)
    await repository.append_log("external-1", "log")
    await repository.set_progress("external-1", {"files": 1})
    await repository.update_result("external-1", launcher_output="out")
    untouched = await loaded(repository)
    assert (untouched.revision, untouched.updated_at) == (mine.revision, mine.updated_at)
    mine.description = "mine"
    await repository.save(mine)
    found = await loaded(repository)
    assert found.progress == {"files": 1}
    assert found.result.launcher_output == "out"
    assert found.logs_total == 1


async def test_save_appends_only_the_new_lines(repository: RedisTaskRepository) -> None:
    await repository.save(record(logs=["a", "b"]))
    mine = await loaded(repository)
    await repository.append_log("external-1", "between")
    mine.logs.append("c")
    await repository.save(mine)
    mine.logs.append("d")
    await repository.save(mine)
    found = await loaded(repository)
    assert [line.rpartition(",")[2] for line in found.logs] == ["a", "b", "between", "c", "d"]


@pytest.mark.parametrize("logs", [[], ["b"], ["changed", "b"], ["b", "a"]])
async def test_saved_lines_are_never_changed(
    repository: RedisTaskRepository, logs: list[str]
) -> None:
    await repository.save(record(logs=["a", "b"]))
    mine = await loaded(repository)
    mine.logs = logs
    with pytest.raises(ConflictError, match="append"):
        await repository.save(mine)
    assert (await loaded(repository)).logs == ["a", "b"]


async def test_a_record_with_a_long_log_saves_its_new_lines(
    repository: RedisTaskRepository,
) -> None:
    lines = [f"line {number}" for number in range(450)]
    await repository.save(record(logs=lines))
    mine = await loaded(repository)
    assert mine.logs == lines[-200:]
    assert mine.logs_total == 450
    mine.logs.append("line 450")
    await repository.save(mine)
    assert mine.logs_total == 451
    assert (await repository.get_logs("external-1", offset=449)).lines == ["line 449", "line 450"]


async def test_save_changes_the_launcher_output(repository: RedisTaskRepository) -> None:
    await repository.save(record(result=TaskResult(launcher_output="one")))
    mine = await loaded(repository)
    mine.result.launcher_output = "one two"
    await repository.update_result("external-1", launcher_output="!")
    await repository.save(mine)
    assert await repository.get_launcher_output("external-1") == "one! two", "appended"
    mine = await loaded(repository)
    mine.result.launcher_output = "other"
    await repository.save(mine)
    assert await repository.get_launcher_output("external-1") == "other", "replaced"
    mine.result.launcher_output = None
    await repository.save(mine)
    assert (await loaded(repository)).result.launcher_output is None


async def test_saving_again_keeps_the_times_that_the_store_set(
    repository: RedisTaskRepository,
) -> None:
    mine = record(status=TaskStatus.RUNNING)
    await repository.save(mine)
    started = (await loaded(repository)).started_at
    assert started is not None
    mine.description = "again"
    await repository.save(mine)
    assert (await loaded(repository)).started_at == started
    mine.status = TaskStatus.COMPLETED
    await repository.save(mine)
    completed = (await loaded(repository)).completed_at
    assert completed is not None
    mine.description = "and again"
    await repository.save(mine)
    found = await loaded(repository)
    assert (found.started_at, found.completed_at) == (started, completed)
    assert (mine.started_at, mine.completed_at) == (started, completed)


async def test_times_that_the_caller_gave_are_kept(repository: RedisTaskRepository) -> None:
    given = datetime(2024, 5, 6, tzinfo=UTC)
    mine = record(started_at=given)
    await repository.save(mine)
    mine.description = "again"
    await repository.save(mine)
    assert mine.started_at == (await loaded(repository)).started_at == given


async def test_save_of_a_loaded_record_moves_its_state(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await repository.save(record())
    mine = await loaded(repository)
    mine.status = TaskStatus.RUNNING
    await repository.save(mine)
    assert keyspace.indexes_of("external-1") == indexes(mine)
    mine.status = TaskStatus.COMPLETED
    await repository.save(mine)
    assert keyspace.indexes_of("external-1") == indexes(mine)
    assert keyspace.outbox() == [("finished", "external-1", "COMPLETED")]
    mine.status = TaskStatus.RUNNING
    with pytest.raises(TransitionError) as raised:
        await repository.save(mine)
    assert (raised.value.current, raised.value.requested) == ("COMPLETED", "RUNNING")


async def test_the_owner_never_changes(repository: RedisTaskRepository) -> None:
    await repository.save(record())
    mine = await loaded(repository)
    mine.user_id = "mallory"
    with pytest.raises(ConflictError, match="never change"):
        await repository.save(mine)


async def test_a_deleted_record_is_not_recreated_by_a_loaded_one(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await repository.save(record())
    mine = await loaded(repository)
    assert await repository.delete("external-1")
    with pytest.raises(TaskNotFoundError):
        await repository.save(mine)
    assert keyspace.leaks() == set()


async def test_a_new_record_replaces_an_unmanaged_one(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    old = record(logs=["old"], result=TaskResult(launcher_output="old", data=1), jobs=["old"])
    await repository.save(old)
    await repository.set_progress("external-1", {"old": 1})
    new = record(service="etl", user_id="bob", status=TaskStatus.RUNNING)
    await repository.save(new)
    found = await loaded(repository)
    assert found.revision == 2, "the revision goes on, so that a stale copy still conflicts"
    assert found.logs == []
    assert found.result == TaskResult()
    assert found.jobs == []
    assert found.progress is None
    assert keyspace.indexes_of("external-1") == indexes(new)
    assert await repository.list_users_by_service("analytics") == []
    assert await repository.list_users_by_service("etl") == ["bob"]
    old.description = "stale"
    with pytest.raises(ConflictError):
        await repository.save(old)


async def test_a_terminal_record_may_be_created_at_once(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await repository.save(record(status=TaskStatus.FAILED))
    assert (await loaded(repository)).completed_at is not None
    assert keyspace.outbox() == [("finished", "external-1", "FAILED")]


async def test_a_refused_save_leaves_the_copy_as_it_was(repository: RedisTaskRepository) -> None:
    await repository.save(record())
    mine, other = await loaded(repository), await loaded(repository)
    other.description = "other"
    await repository.save(other)
    before = mine.model_dump()
    with pytest.raises(ConflictError):
        await repository.save(mine)
    assert mine.model_dump() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\udc80", object()])
async def test_what_json_cannot_carry_is_refused(
    repository: RedisTaskRepository, keyspace: Keyspace, value: Any
) -> None:
    with pytest.raises(InvalidRequestError, match="parameters"):
        await repository.save(record(parameters={"x": value}))
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequestError, match="data"):
        await repository.update_result("external-1", data=deep)
    with pytest.raises(InvalidRequestError, match="progress"):
        await repository.set_progress("external-1", {"x": value})
    assert keyspace.leaks() == set()


async def test_jobs_that_could_not_be_read_back_are_refused(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    wrong = record()
    wrong.jobs.append(cast("Any", 5))
    with pytest.raises(InvalidRequestError, match="jobs"):
        await repository.save(wrong)
    assert keyspace.leaks() == set()


async def test_progress_is_an_object(repository: RedisTaskRepository) -> None:
    await repository.save(record())
    with pytest.raises(InvalidRequestError, match="progress"):
        await repository.set_progress("external-1", cast("Any", [1]))
    assert (await loaded(repository)).progress is None


async def test_json_deeper_than_can_be_read_back_is_refused(
    repository: RedisTaskRepository,
) -> None:
    await repository.save(record())
    for depth in (50, 150, 300, 600):
        deep: Any = 1
        for _ in range(depth):
            deep = {"a": deep}
        try:
            await repository.update_result("external-1", data=deep)
        except InvalidRequestError:
            assert depth > 100
        else:
            assert (await loaded(repository)).result.data == deep
    assert (await loaded(repository)).result.data is not None


async def test_a_status_given_as_text_is_understood(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    mine = record()
    mine.status = cast("Any", "running")
    await repository.save(mine)
    found = await loaded(repository)
    assert found.status is TaskStatus.RUNNING
    assert keyspace.indexes_of("external-1") == indexes(found)


# ------------------------------------------------------------------------------------------ delete
@pytest.mark.parametrize("status", STATUSES)
async def test_delete_leaves_nothing(
    repository: RedisTaskRepository, keyspace: Keyspace, changes: Changes, status: TaskStatus
) -> None:
    await repository.save(record(status=status, logs=["x"], result=TaskResult(launcher_output="y")))
    other = record("other", service="etl")
    await repository.save(other)
    assert await repository.delete("external-1")
    assert await repository.get("external-1") is None
    assert not await repository.delete("external-1")
    assert await repository.list_users_by_service("analytics") == []
    assert await repository.list_users_by_service("etl") == ["alice"]
    assert keyspace.indexes_of("external-1") == set()
    assert [change.kind for change in await changes.read("0", block_ms=0)][-1] == "deleted"
    await repository.delete("other")
    assert keyspace.leaks() == set()


async def test_users_are_counted_by_their_tasks(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    for number, user in enumerate(["bob", "alice", "bob", "zoë".replace("ë", "e")]):
        await repository.save(record(str(number), user_id=user))
    assert await repository.list_users_by_service("analytics") == ["alice", "bob", "zoe"]
    await repository.delete("0")
    assert await repository.list_users_by_service("analytics") == ["alice", "bob", "zoe"]
    await repository.delete("2")
    assert await repository.list_users_by_service("analytics") == ["alice", "zoe"]
    assert await repository.list_users_by_service("unknown") == []
    assert keyspace.client.hgetall(keys.SERVICES) == {b"analytics": b"2"}


async def test_list_by_ids_keeps_the_order_and_leaves_out_what_is_gone(
    repository: RedisTaskRepository,
) -> None:
    for number in range(5):
        await repository.save(record(str(number), logs=["a", "b"]))
    found = await repository.list_by_ids(["3", "gone", "0", "4", "3"])
    assert [task.task_id for task in found] == ["3", "0", "4", "3"]
    assert {task.logs_total for task in found} == {2}
    assert await repository.list_by_ids([]) == []
    with pytest.raises(InvalidRequestError, match="200"):
        await repository.list_by_ids([str(number) for number in range(201)])


async def test_the_updated_indexes_follow(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    for name in ("1", "2", "3"):
        await repository.save(record(name))
    await repository.update_result("1", pod_status="x")
    await repository.set_status("2", TaskStatus.RUNNING)
    assert keyspace.ids("u:PENDING") == ["3", "1"]
    assert keyspace.ids("u:PENDING:analytics") == ["3", "1"]
    assert keyspace.ids("c:PENDING:analytics:alice") == ["1", "3"]
    assert keyspace.indexes_of("2") == index_names(TaskStatus.RUNNING, "analytics", "alice")


async def test_old_times_sort_and_survive(repository: RedisTaskRepository) -> None:
    for number, when in enumerate(
        (
            datetime(1901, 12, 13, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            datetime(2200, 1, 1, tzinfo=UTC),
        )
    ):
        await repository.save(record(str(number), created_at=when))
        assert (await loaded(repository, str(number))).created_at == when
    page = await repository.list_all()
    assert [task.task_id for task in page] == ["2", "1", "0"]
    assert page[1].created_at + timedelta(microseconds=1) == datetime(1970, 1, 1, tzinfo=UTC)
