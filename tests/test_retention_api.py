"""Export and prune by the API: whole tasks in bounded pages, and nothing removed that changed."""

import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from task_state import StoreUnavailableError, TaskRecord, TaskResult, TaskStatus
from task_state.export import FLAT_SCHEMA
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from task_state.timezone import now
from tests.support.frontend import (
    API,
    OPERATOR,
    Frontend,
    is_problem,
    is_pydantics,
    make_settings,
    served_frontend,
)

EXPORT, PRUNE = f"{API}/admin/export", f"{API}/admin/prune"
COMPLETED = TaskStatus.COMPLETED


def finished(task_id: str, **values: Any) -> TaskRecord:
    """A finished record, by default of two hours ago."""
    ended = now() - timedelta(hours=2)
    defaults: dict[str, Any] = {
        "service": "sync",
        "user_id": "alice",
        "status": COMPLETED,
        "created_at": ended,
        "completed_at": ended,
    }
    return TaskRecord(task_id=task_id, **{**defaults, **values})


async def export(frontend: Frontend, **query: Any) -> list[dict[str, Any]]:
    """Every page of an export."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        options = query | ({} if cursor is None else {"cursor": cursor})
        answer = await frontend.client.get(EXPORT, params=options, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        rows += [json.loads(line) for line in answer.text.splitlines()]
        cursor = answer.headers.get("x-next-cursor")
        if cursor is None:
            return rows


async def prune(frontend: Frontend, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    names = ("task_id", "revision", "logs_total", "output_bytes", "updated_at")
    tasks = [{name: row[name] for name in names if name in row} for row in rows]
    answer = await frontend.client.post(PRUNE, json={"tasks": tasks, **more}, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return answer.json()


RICH: dict[str, Any] = {
    "parameters": {
        "경로": "/데이터/파일",
        "n": [1, None, 2.5, 10**22],
        "\u2028": "",
    },
    "logs": ["2026-01-01T00:00:00+09:00,첫 줄", 'x,\\udcff \t"quoted"', "y,"],
    "result": TaskResult(
        pod_status="Succeeded", launcher_output="출력\n\u0000끝", data={"a": [True]}, error="e"
    ),
    "jobs": ["job-1", "job-2"],
    "progress": {"phase": "copy"},
    "description": "설명",
    "retry_of": "7",
    "schedule_id": "nightly",
    "max_attempts": 9,
}


async def test_a_whole_export_makes_equal_records_in_another_store(
    quiet: Frontend, dms_repository: RedisTaskRepository, dms_redis_url: str
) -> None:
    await dms_repository.save(finished("rich", **RICH))
    await dms_repository.save(finished("long", logs=[f"t,line {n}" for n in range(1234)]))
    await dms_repository.save(finished("bare", started_at=now() - timedelta(hours=3)))
    answer = await quiet.client.get(EXPORT, headers=OPERATOR)
    before = {
        task.task_id: task for task in map(TaskRecord.model_validate_json, answer.text.splitlines())
    }
    assert len(before["long"].logs) == 1234
    assert before["rich"].result == RICH["result"]

    provider = RedisRepositoryProvider(
        RedisRepositorySettings(
            write_url=dms_redis_url.rsplit("/", 1)[0] + "/1", timeout_seconds=60
        )
    )
    other = await provider.get_repository()
    try:
        for task in before.values():
            task.revision = task.logs_total = 0
            await other.save(task)
        for task_id in before:
            there, here = await other.get(task_id), await dms_repository.get(task_id)
            assert there is not None
            assert here is not None
            assert there.model_dump(exclude={"updated_at"}) == here.model_dump(
                exclude={"updated_at"}
            )
            lines = await other.get_logs(task_id, limit=5000)
            assert lines == await dms_repository.get_logs(task_id, limit=5000)
            await other.delete(task_id)
    finally:
        await provider.close()


TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "bool": bool,
    "int64": int,
    "list of string": list,
    "timestamp[us, UTC]": str,
    "JSON": str,
}


async def test_flat_rows_have_the_same_columns_of_the_same_types(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    await dms_repository.save(finished("rich", **RICH))
    await dms_repository.save(finished("bare"))
    await dms_repository.save(TaskRecord(task_id="waits", service="sync", user_id="bob"))
    task = await quiet.client.post(f"{API}/services/sync/users/bob/tasks?x=1")
    assert task.status_code == 202
    rows = await export(quiet, format="flat")
    assert len(rows) == 4
    for row in rows:
        assert list(row) == list(FLAT_SCHEMA)
        for column, words in FLAT_SCHEMA.items():
            value = row[column]
            if value is None:
                assert words.endswith(", null"), column
                continue
            assert type(value) is TYPES[words.removesuffix(", null")], column
            if words.startswith("JSON"):
                json.loads(value)
            if words.startswith("timestamp"):
                assert len(value) == 27
                assert value.endswith("Z")
            if words.startswith("list"):
                assert all(isinstance(item, str) for item in value)
    rich = next(row for row in rows if row["task_id"] == "rich")
    assert json.loads(rich["parameters"]) == RICH["parameters"]
    assert rich["logs"] == RICH["logs"]
    assert rich["launcher_output"] == RICH["result"].launcher_output


async def test_pages_of_an_export_hold_every_task_once(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    names = [f"t{n}" for n in range(7)]
    for name in names:
        await dms_repository.save(finished(name))
    for form in ("jsonl", "flat", "brief"):
        rows = await export(quiet, limit=3, format=form, order="asc")
        assert sorted(row["task_id"] for row in rows) == names


async def test_an_export_by_age_counts_from_the_end(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    old = now() - timedelta(days=9)
    await dms_repository.save(finished("old", created_at=old, completed_at=old))
    await dms_repository.save(finished("long-running", created_at=old))
    await dms_repository.save(finished("recent"))
    await dms_repository.save(finished("failed", status="FAILED", created_at=old, completed_at=old))
    await dms_repository.save(
        TaskRecord(task_id="waits", service="sync", user_id="a", created_at=old)
    )
    limit = (now() - timedelta(days=5)).isoformat()
    rows = await export(quiet, completed_before=limit, format="brief", limit=1)
    assert {row["task_id"] for row in rows} == {"old", "failed"}
    rows = await export(quiet, completed_before=limit, format="brief", status="FAILED")
    assert {row["task_id"] for row in rows} == {"failed"}
    exact = (await dms_repository.get("old") or finished("x")).completed_at
    assert exact
    assert await export(quiet, completed_before=exact.isoformat(), q="old") == []
    after = (exact + timedelta(microseconds=1)).isoformat()
    assert len(await export(quiet, completed_before=after, id="old")) == 1


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"status": "RUNNING", "completed_before": "2026-01-01T00:00:00Z"}, "RUNNING"),
        ({"completed_before": "soon"}, "soon"),
        ({"format": "parquet"}, "format: 'parquet' is not known: use 'jsonl', 'flat' or 'brief'"),
        ({"limit": 201}, "limit: '201' is too large: 200 is the most"),
        ({"colour": "red"}, "colour"),
        ({"completedBefore": "2026-01-01"}, "did you mean completed_before?"),
    ],
)
async def test_an_export_that_makes_no_sense_is_told_why(
    quiet: Frontend, query: dict[str, Any], word: str
) -> None:
    answer = await quiet.client.get(EXPORT, params=query, headers=OPERATOR)
    assert word in is_problem(answer, 422, "invalid-request")["detail"]


async def test_export_and_prune_are_the_operators(quiet: Frontend) -> None:
    is_problem(await quiet.client.get(EXPORT), 401, "not-authenticated")
    is_problem(await quiet.client.post(PRUNE, json={"tasks": []}), 401, "not-authenticated")


async def test_prune_removes_what_was_exported_and_nothing_that_changed(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    names = ("gone", "kept", "result", "log", "output", "deleted", "again")
    for name in names:
        await dms_repository.save(finished(name, logs=["x"]))
    await dms_repository.save(TaskRecord(task_id="active", service="sync", user_id="alice"))
    rows = await export(quiet, format="brief")
    await dms_repository.update_result("result", error="late")
    await dms_repository.append_log("log", "late")
    await dms_repository.update_result("output", launcher_output="late")
    await dms_repository.delete("deleted")
    await dms_repository.save(finished("again"))
    wanted = [row for row in rows if row["task_id"] != "kept"]

    told = await prune(quiet, wanted, dry_run=True)
    assert told["dry_run"] is True
    assert await dms_repository.get("gone") is not None
    answer = await prune(quiet, wanted)
    assert {**answer, "dry_run": True} == told
    assert answer["removed"] == ["gone"]
    assert {each["task_id"]: each["reason"] for each in answer["skipped"]} == {
        "result": "changed",
        "log": "changed",
        "output": "changed",
        "again": "changed",
        "deleted": "missing",
        "active": "active",
    }
    assert await dms_repository.get("gone") is None
    left = {task.task_id for task in await dms_repository.list_all()}
    assert left == {"kept", "result", "log", "output", "again", "active"}
    answer = await prune(quiet, wanted)
    assert answer["removed"] == []


SEEN: dict[str, Any] = {"task_id": "a", "revision": 1, "logs_total": 0}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], "the body is not an object"),
        ({}, "tasks: is missing"),
        ({"tasks": {}}, "tasks: this value is no list"),
        ({"tasks": ["a"]}, "tasks.0: this value is no object"),
        ({"tasks": [{"task_id": "a"}]}, "tasks.0.revision: is missing"),
        ({"tasks": [SEEN | {"revision": "1"}]}, "tasks.0.revision: this value is no whole number"),
        ({"tasks": [SEEN | {"task_id": "a b"}]}, "tasks.0.task_id: this value is no task's id"),
        ({"tasks": [SEEN | {"task_id": ".."}]}, "tasks.0.task_id: this value is no task's id"),
        ({"tasks": [SEEN | {"revision": -1}]}, "tasks.0.revision: this value is too small: 0 is"),
        ({"tasks": [SEEN | {"force": True}]}, "tasks.0.force: no such name here: use task_id, rev"),
        ({"tasks": [SEEN | {"outputBytes": 1}]}, "did you mean output_bytes?"),
        ({"tasks": [SEEN] * 201}, "tasks: this value has too many items: 200 are allowed"),
        ({"tasks": [], "dry_run": "yes"}, "dry_run: this value is neither true nor false"),
        ({"tasks": [], "dryRun": True}, "dryRun: no such name here: did you mean dry_run?"),
    ],
)
async def test_a_prune_that_makes_no_sense_is_refused(
    quiet: Frontend, body: Any, told: str
) -> None:
    answer = await quiet.client.post(PRUNE, json=body, headers=OPERATOR)
    detail = is_problem(answer, 422, "invalid-request")["detail"]
    assert told in detail
    assert 'send {"tasks": [{"task_id"' in detail or body == []
    assert not is_pydantics(detail)


@pytest.mark.parametrize("form", ["jsonl", "flat"])
@pytest.mark.parametrize("letters", [10, 3000], ids=["in memory", "in a file"])
async def test_a_task_that_is_deleted_meanwhile_leaves_no_part_of_a_line(
    quiet: Frontend,
    dms_repository: RedisTaskRepository,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    letters: int,
) -> None:
    for name in ("a", "b", "c"):
        await dms_repository.save(finished(name, logs=["t," + "줄" * letters] * 1200))
    real = RedisTaskRepository.get_logs

    async def late(self: RedisTaskRepository, task_id: str, **options: Any) -> Any:
        if task_id == "b" and options["offset"]:
            await self.delete("b")
        return await real(self, task_id, **options)

    monkeypatch.setattr(RedisTaskRepository, "get_logs", late)
    rows = await export(quiet, format=form, sort="id", order="asc")
    assert [(row["task_id"], len(row["logs"])) for row in rows] == [("a", 1200), ("c", 1200)]
    assert {row["logs_total"] for row in rows} == {1200}


async def test_no_room_for_a_long_line_breaks_the_answer(
    dms_redis_url: str, dms_repository: RedisTaskRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dms_repository.save(finished("long", logs=["t,x" * 1000] * 600))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        with pytest.raises(httpx2.RemoteProtocolError):
            await frontend.client.get(EXPORT, headers=OPERATOR)


async def test_another_task_of_the_same_id_is_not_pruned(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    await dms_repository.save(finished("x", logs=["t,old"]))
    rows = await export(quiet, format="brief")
    await dms_repository.delete("x")
    await dms_repository.save(finished("x", logs=["t,new"]))
    answer = await prune(quiet, rows)
    assert answer["skipped"] == [{"task_id": "x", "reason": "changed"}]
    (whole,) = await export(quiet)
    assert (whole["logs"], whole["revision"]) == (["t,new"], rows[0]["revision"])
    assert (await prune(quiet, [whole]))["removed"] == ["x"]


async def test_an_export_reads_long_logs_part_by_part(
    quiet: Frontend, dms_repository: RedisTaskRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is bounded: no part of the log is read with more lines than one step has."""
    await dms_repository.save(finished("long"))
    for _ in range(5):
        await dms_repository.append_logs("long", [f"t,{'줄' * 50}"] * 1000)
    asked: list[int] = []
    real = RedisTaskRepository.get_logs

    async def counted(self: RedisTaskRepository, *args: Any, **options: Any) -> Any:
        asked.append(options["limit"])
        return await real(self, *args, **options)

    monkeypatch.setattr(RedisTaskRepository, "get_logs", counted)
    (row,) = await export(quiet)
    assert row["logs_total"] == len(row["logs"]) == 5000
    assert len(asked) > 5
    assert max(asked) <= 1000


async def test_a_store_that_fails_on_the_way_breaks_the_answer(
    dms_redis_url: str, dms_repository: RedisTaskRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the end has all of it: a fault must not look like one."""
    await dms_repository.save(finished("long", logs=["t,x" * 1000] * 600))
    real = RedisTaskRepository.get_logs

    async def failing(self: RedisTaskRepository, *args: Any, **options: Any) -> Any:
        if options["offset"]:
            raise StoreUnavailableError("away")
        return await real(self, *args, **options)

    monkeypatch.setattr(RedisTaskRepository, "get_logs", failing)
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        with pytest.raises(httpx2.RemoteProtocolError):
            await frontend.client.get(EXPORT, headers=OPERATOR)


async def test_the_head_of_an_export_has_no_body(
    quiet: Frontend, dms_repository: RedisTaskRepository
) -> None:
    await dms_repository.save(finished("x"))
    answer = await quiet.client.head(EXPORT, headers=OPERATOR)
    assert answer.status_code == 200
    assert answer.content == b""
