"""Records that have ended are lines: nothing of them is lost, and they can still be written to."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from task_state import InvalidRequestError, TaskRecord, TaskResult, TaskSearch, TaskStatus, keys
from task_state._layout import FIELDS, LINE_BREAK
from task_state.managed import Failing, ManagedTasks
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace, record

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=600)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
FUNCTION_SCOPED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
ODD = ["null", '"', "\\", ",\r", "a,\rb", "\0", "\x7f", "\u2028", "한글", "😀", "x" * 64, "y" * 128]


def is_line(keyspace: Keyspace, task_id: str) -> bool:
    """Whether the record is one text now."""
    return keyspace.client.type(keys.task(task_id)) == b"string"


async def loaded(repository: RedisTaskRepository, task_id: str) -> TaskRecord:
    """The record, which is there."""
    found = await repository.get(task_id)
    assert found is not None
    return found


def raw(keyspace: Keyspace, task_id: str) -> bytes:
    """The line of a record."""
    return cast("bytes", keyspace.client.get(keys.task(task_id)))


def content(task: TaskRecord) -> dict[str, Any]:
    """All that a record says."""
    return task.model_dump()


async def check_both_forms(repository: RedisTaskRepository, **values: Any) -> None:
    """Saved as it runs and as it ended, all three ways of reading tell the same."""
    await repository.save(record("active", status=TaskStatus.RUNNING, **values))
    await repository.save(record("ended", status=TaskStatus.COMPLETED, **values))
    differing = {"task_id", "status", "created_at", "updated_at", "started_at", "completed_at"}
    active = await loaded(repository, "active")
    for found in (
        await loaded(repository, "ended"),
        (await repository.search(TaskSearch(task_id="ended")))[0],
        (await repository.list_by_ids(["ended"]))[0],
    ):
        assert found.model_dump(exclude=differing) == active.model_dump(exclude=differing)
    assert {name: getattr(active, name) for name in values} == values


@settings(max_examples=40, deadline=None, suppress_health_check=FUNCTION_SCOPED)
@given(parameters=st.dictionaries(TEXTS, VALUES, max_size=4), data=VALUES, text=TEXTS)
async def test_any_values_survive_in_both_forms(
    repository: RedisTaskRepository, parameters: dict[str, Any], data: Any, text: str
) -> None:
    result = TaskResult(data=data, error=text, pod_status=text)
    values = {"parameters": parameters, "result": result, "description": text, "jobs": [text]}
    await check_both_forms(repository, **values)
    await repository.delete("active")
    await repository.delete("ended")


@pytest.mark.parametrize("text", ODD)
async def test_odd_texts_survive_being_thawed(
    repository: RedisTaskRepository, keyspace: Keyspace, text: str
) -> None:
    result = TaskResult(data=[text], error=text, pod_status=text)
    values = {"parameters": {text: text}, "result": result, "description": text, "jobs": [text]}
    await check_both_forms(repository, **values)
    before = content(await loaded(repository, "ended"))
    assert is_line(keyspace, "ended")
    await repository.append_log("ended", "late")
    after = content(await loaded(repository, "ended"))
    assert is_line(keyspace, "ended")
    assert {**after, "logs": [], "logs_total": 0} == before
    assert after["logs_total"] == 1


async def test_values_as_deep_as_json_may_be_are_read(repository: RedisTaskRepository) -> None:
    await repository.save(record("plain"))
    deep: Any = 1
    with contextlib.suppress(InvalidRequestError):
        for _ in range(1000):  # until one level more cannot be saved
            await repository.update_result("plain", data=[deep])
            deep = [deep]
    await repository.save(record("deep", status=TaskStatus.FAILED, result=TaskResult(data=deep)))
    await repository.update_result("plain", data=0)
    found = {task.task_id: task.result.data for task in await repository.list_all()}
    assert found["deep"] == deep
    assert (await loaded(repository, "deep")).result.data == deep


async def test_a_text_that_is_not_utf8_spoils_no_page(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await repository.save(record("spoilt"))
    await repository.save(record("plain", description="한글"))
    keyspace.client.hset(keys.task("spoilt"), "description", b"\xff\xfe")
    await repository.set_status("spoilt", TaskStatus.FAILED)
    assert is_line(keyspace, "spoilt")
    found = {task.task_id: task.description for task in await repository.list_all()}
    assert found == {"spoilt": "\ufffd\ufffd", "plain": "한글"}
    await repository.append_log("spoilt", "late")
    assert raw(keyspace, "spoilt").count(b"\xff\xfe") == 1


# ------------------------------------------------------------------------------------- late writes
Write = Callable[[RedisTaskRepository], Awaitable[object]]


async def _save(repository: RedisTaskRepository) -> None:
    task = await loaded(repository, "done")
    task.description, task.parameters = None, {}
    await repository.save(task)


LATE: dict[str, tuple[Write, dict[str, Any]]] = {
    "log": (lambda r: r.append_logs("done", ["2025,a", "2025,b"]), {"logs_total": 3}),
    "result": (
        lambda r: r.update_result("done", pod_status="Gone", launcher_output="out"),
        {"result": {"pod_status": "Gone", "launcher_output": "out", "data": [1], "error": None}},
    ),
    "jobs": (lambda r: r.add_jobs("done", ["2", "1"]), {"jobs": ["1", "2"]}),
    "progress": (lambda r: r.set_progress("done", {"at": 1}), {"progress": {"at": 1}}),
    "same state": (
        lambda r: r.set_status("done", TaskStatus.COMPLETED, "again"), {"logs_total": 2}
    ),
    "save": (_save, {"description": None, "parameters": {}}),
}  # fmt: skip


@pytest.mark.parametrize("name", LATE)
async def test_late_writes_change_what_they_say_and_nothing_else(
    repository: RedisTaskRepository, keyspace: Keyspace, name: str
) -> None:
    await repository.save(
        record(
            "done", status=TaskStatus.COMPLETED, description="a\nb" * 50, jobs=["1"], logs=["x"],
            parameters={"p": "x" * 100}, result=TaskResult(data=[1]),
        )
    )  # fmt: skip
    before = content(await loaded(repository, "done"))
    life = keyspace.client.pttl(keys.task("done"))
    write, changes = LATE[name]
    await write(repository)
    after = content(await loaded(repository, "done"))
    assert is_line(keyspace, "done")
    assert abs(keyspace.client.pttl(keys.task("done")) - life) < 60_000  # pyright: ignore[reportOperatorIssue]
    moving = {"updated_at", "revision", "logs"}
    assert {key for key in after if after[key] != before[key]} - moving == set(changes)
    assert {key: after[key] for key in changes} == changes
    (listed,) = await repository.list_all()
    assert listed.revision == after["revision"]


async def test_an_attempt_may_log_after_its_end_and_repeat_it(
    repository: RedisTaskRepository, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    task_id = (await managed.submit(service="s", user_id="u", parameters={})).task_id
    await managed.begin(task_id, 1, worker="w")
    await managed.retry(task_id, 1, failing=Failing("failed", 'why, "not"'), error="first")
    await managed.begin(task_id, 2, worker="w")
    await managed.append_logs(task_id, 2, ["2025,one"], batch="2.1")
    await managed.finish(task_id, 2, TaskStatus.COMPLETED, data=1)
    assert is_line(keyspace, task_id)
    for _ in range(2):
        await managed.append_logs(task_id, 2, ["2025,one"], batch="2.1")
        await managed.append_logs(task_id, 2, ["2025,two"], batch="2.2")
        await managed.append_logs(task_id, 2, ["2025,two"], batch="2.2")
        await managed.append_logs(task_id, 2, ["2025,one"], batch="2.1")
    found = await loaded(repository, task_id)
    assert [note.reason for note in found.history] == ['why, "not"']
    assert await managed.finish(task_id, 2, TaskStatus.COMPLETED) is TaskStatus.COMPLETED
    assert found.logs[0] == "2025,one"
    assert is_line(keyspace, task_id)


# ------------------------------------------------------------------------------------ what stays
async def test_large_records_and_unknown_fields_stay_hashes(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    for task_id in ("large", "newer"):
        await repository.save(record(task_id))
    keyspace.client.hset(keys.task("newer"), "colour", "blue")
    await repository.update_result("large", data="x" * 2000)
    for task_id in ("large", "newer"):
        await repository.set_status(task_id, TaskStatus.FAILED)
        assert not is_line(keyspace, task_id)
    assert keyspace.field("newer", "colour") == b"blue"
    found = {task.task_id: task.result.data for task in await repository.list_all()}
    assert found == {"large": "x" * 2000, "newer": None}


async def test_a_line_of_a_newer_version_is_read(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await repository.save(record("done", status=TaskStatus.COMPLETED, logs=["x"]))
    before = content(await loaded(repository, "done"))
    line = raw(keyspace, "done")
    missing = len(FIELDS) - line.count(LINE_BREAK.encode())
    newer = b",\r".join([line, *[b"null"] * missing, b'{"new":1}'])
    keyspace.client.set(keys.task("done"), newer, keepttl=True)
    assert content(await loaded(repository, "done")) == before
    (found,) = await repository.search(TaskSearch(task_id="done"))
    assert content(found) | {"logs": ["x"]} == before | {"logs": ["x"]}


@pytest.mark.parametrize("name", LATE)
async def test_a_late_write_keeps_what_only_a_newer_version_knows(
    repository: RedisTaskRepository, keyspace: Keyspace, name: str
) -> None:
    await repository.save(record("done", status=TaskStatus.COMPLETED, jobs=["1"], logs=["x"]))
    line = raw(keyspace, "done")
    missing = len(FIELDS) - line.count(LINE_BREAK.encode()) - 1
    newer = b",\r".join([line, *[b"null"] * missing, b"null", b'{"new":"\xed\x95\x9c"}', b"7"])
    keyspace.client.set(keys.task("done"), newer, keepttl=True)
    write, changes = LATE[name]
    await write(repository)
    await repository.update_result("done", error="x" * 2000)
    after = content(await loaded(repository, "done"))
    assert raw(keyspace, "done").endswith(b',\rnull,\r{"new":"\xed\x95\x9c"},\r7')
    assert after["jobs"] == changes.get("jobs", ["1"])
    assert after["logs_total"] == changes.get("logs_total", 1)
    assert len(after["result"]["error"]) == 2000


async def test_doctor_makes_lines_of_the_records_of_layout_3(
    provider: RedisRepositoryProvider, keyspace: Keyspace
) -> None:
    repository = await provider.get_repository()
    await repository.save(record("done", status=TaskStatus.COMPLETED, logs=["x"]))
    before = content(await loaded(repository, "done"))
    key, life = keys.task("done"), keyspace.client.pttl(keys.task("done"))
    fields = keyspace.fields("done")
    keyspace.client.delete(key)
    keyspace.client.hset(key, mapping=cast("Any", fields))
    keyspace.client.pexpire(key, life)  # pyright: ignore[reportArgumentType]
    assert content(await loaded(repository, "done")) == before
    audit = await provider.get_audit("dispatch", mend=True)
    assert [finding async for finding in audit.walk()] == []
    assert is_line(keyspace, "done")
    assert keyspace.client.pttl(key) > 0  # pyright: ignore[reportOperatorIssue]
    assert content(await loaded(repository, "done")) == before
