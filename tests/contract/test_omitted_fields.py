"""Listings leave out what is long, say so, and lose nothing when their records are saved."""

import json
from typing import Any

import pytest

from task_state import InvalidRequestError, TaskRecord, TaskResult, TaskSearch, TaskStatus
from task_state.managed import Checkpoint, Failing, ManagedTasks
from task_state.repository import RedisTaskRepository
from tests.contract.store import record
from tests.contract.test_managed_tasks import begin, loaded, running

LONG = "긴 글 " * 1000
BOUND = 4096
FIELDS = (
    "description", "jobs", "parameters", "result.data", "result.error", "result.pod_status",
)  # fmt: skip


def long_record(**values: Any) -> TaskRecord:
    """Whatever `save` writes is long in it."""
    result = TaskResult(data=[LONG], error=LONG, pod_status=LONG)
    options: dict[str, Any] = {"parameters": {"열쇠": LONG}, "result": result, "jobs": [LONG]}
    return record("long", **{"description": LONG, "status": "COMPLETED", **options, **values})


async def listed(repository: RedisTaskRepository, task_id: str = "long") -> TaskRecord:
    (found,) = await repository.search(TaskSearch(task_id=task_id))
    (paged,) = [task for task in await repository.list_all() if task.task_id == task_id]
    assert paged.model_dump() == found.model_dump()
    return found


def value(task: TaskRecord, name: str) -> Any:
    model, _, field = name.rpartition(".")
    return getattr(task.result if model else task, field)


async def test_what_is_long_is_left_out_and_named(repository: RedisTaskRepository) -> None:
    await repository.save(long_record())
    await repository.save(record("short", parameters={"열쇠": "값"}))
    shown = await listed(repository)
    assert sorted(shown.omitted) == sorted(FIELDS)
    assert not any(value(shown, name) for name in FIELDS)
    assert len(shown.model_dump_json()) < 2000
    assert (shown.service, shown.status, shown.revision) == ("analytics", "COMPLETED", 1)
    short = await listed(repository, "short")
    assert (short.omitted, short.parameters) == ([], {"열쇠": "값"})
    for whole in (await loaded(repository, "long"), (await repository.list_by_ids(["long"]))[0]):
        assert whole.omitted == []
        assert whole.parameters == {"열쇠": LONG}
        assert whole.result.data == [LONG]


@pytest.mark.parametrize(("size", "omitted"), [(BOUND, []), (BOUND + 1, ["result.error"])])
async def test_the_bound(repository: RedisTaskRepository, size: int, omitted: list[str]) -> None:
    await repository.save(record("long", result=TaskResult(error="x" * size, data="d" * 600)))
    shown = await listed(repository)
    assert shown.omitted == omitted
    assert shown.result.error == (None if omitted else "x" * size)
    assert shown.result.data == "d" * 600


@pytest.mark.parametrize("status", ["RUNNING", "COMPLETED"])
@pytest.mark.parametrize("name", FIELDS)
async def test_each_field_alone(repository: RedisTaskRepository, name: str, status: str) -> None:
    whole = long_record()
    result = TaskResult(pod_status="ok")
    task = record("long", status=status, result=result)
    model, _, field = name.rpartition(".")
    setattr(result if model else task, field, value(whole, name))
    task.result = result
    await repository.save(task)
    shown = await listed(repository)
    assert shown.omitted == [name]
    assert not value(shown, name)
    shown.max_attempts = 5
    await repository.save(shown)
    found = await loaded(repository, "long")
    assert (value(found, name), found.max_attempts) == (value(whole, name), 5)


async def test_what_only_attempts_write_is_left_out_too(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    notes = 12
    for epoch in range(1, notes + 1):
        if epoch > 1:
            await begin(managed, task_id, epoch)
        failing = Failing("released", f"{epoch} " + "까" * 490)
        await managed.release(task_id, epoch, failing=failing)
    await begin(managed, task_id, notes + 1)
    progress = {"phase": LONG}
    await managed.heartbeat(
        task_id, notes + 1, progress=progress, checkpoint=Checkpoint({"at": LONG})
    )
    shown = await listed(repository, task_id)
    assert sorted(shown.omitted) == ["checkpoint", "history", "progress"]
    assert (shown.progress, shown.checkpoint) == (None, None)
    (latest,) = shown.history
    whole = await loaded(repository, task_id)
    assert latest == whole.history[-1]
    assert len(whole.history) == notes
    assert (whole.progress, whole.checkpoint) == (progress, {"at": LONG})
    shown.description = "changed"
    await repository.save(shown)
    after = await loaded(repository, task_id)
    assert (after.progress, after.checkpoint, after.history) == (
        whole.progress, whole.checkpoint, whole.history
    )  # fmt: skip


@pytest.mark.parametrize(("size", "found"), [(5_000, True), (16_374, True), (16_375, False)])
async def test_a_text_is_looked_for_in_what_is_not_too_long(
    repository: RedisTaskRepository, size: int, found: bool
) -> None:
    """Each record would cost milliseconds of Redis' time, and a search looks at a thousand."""
    filler = "x" * (size - len("needle"))
    await repository.save(record("long", parameters={"key": filler + "needle"}))
    for search in (TaskSearch(q="NEEDLE"), TaskSearch(q="needle", sort="updated_at")):
        assert bool(list(await repository.search(search))) is found
    assert len(await repository.search(TaskSearch(q="LONG"))) == 1, "the id is always looked at"


# ------------------------------------------------------------------------------------------ saving
async def test_saving_a_record_of_a_listing_keeps_what_was_left_out(
    repository: RedisTaskRepository,
) -> None:
    await repository.save(long_record(status="RUNNING"))
    shown = await listed(repository)
    shown.status = TaskStatus.COMPLETED
    shown.logs.append("t,done")
    await repository.save(shown)
    assert sorted(shown.omitted) == sorted(FIELDS)
    shown.max_attempts = 7
    await repository.save(shown)
    found = await loaded(repository, "long")
    assert {name: value(found, name) for name in FIELDS} == {
        name: value(long_record(), name) for name in FIELDS
    }
    assert (found.status, found.max_attempts, found.logs) == ("COMPLETED", 7, ["t,done"])


async def test_what_is_set_since_is_written(repository: RedisTaskRepository) -> None:
    await repository.save(long_record())
    shown = await listed(repository)
    shown.parameters = {"n": 1}
    shown.result.data = None
    shown.result.error = "short"
    await repository.save(shown)
    assert sorted(shown.omitted) == ["description", "jobs", "result.pod_status"]
    found = await loaded(repository, "long")
    assert (found.parameters, found.result.data, found.result.error) == ({"n": 1}, None, "short")
    assert (found.description, found.jobs, found.result.pod_status) == (LONG, [LONG], LONG)
    shown.parameters = {}
    await repository.save(shown)
    assert (await loaded(repository, "long")).parameters == {}


async def test_a_new_result_replaces_what_it_names(repository: RedisTaskRepository) -> None:
    await repository.save(long_record())
    shown = await listed(repository)
    shown.result = TaskResult(data={"new": True})
    await repository.save(shown)
    found = await loaded(repository, "long")
    assert (found.result.data, found.result.error) == ({"new": True}, LONG)


async def test_forgetting_what_was_left_out_does_not_erase_it(
    repository: RedisTaskRepository,
) -> None:
    await repository.save(long_record())
    shown = await listed(repository)
    shown.omitted = []
    await repository.save(shown)
    assert (await loaded(repository, "long")).parameters == {"열쇠": LONG}


@pytest.mark.parametrize("name", ["parameters", "jobs"])
async def test_a_change_in_place_of_what_was_left_out_is_refused(
    repository: RedisTaskRepository, name: str
) -> None:
    await repository.save(long_record())
    shown = await listed(repository)
    if name == "parameters":
        shown.parameters["more"] = 1
    else:
        shown.jobs.append("job-2")
    with pytest.raises(InvalidRequestError, match=f"{name} was left out of the listing"):
        await repository.save(shown)
    assert (await loaded(repository, "long")).revision == 1


@pytest.mark.parametrize("target", ["long", "copy"])
async def test_a_record_that_is_not_whole_makes_no_new_one(
    repository: RedisTaskRepository, target: str
) -> None:
    await repository.save(long_record())
    text = (await listed(repository)).model_dump_json()
    copy = TaskRecord.model_validate(json.loads(text) | {"task_id": target})
    with pytest.raises(InvalidRequestError, match=r"not whole.*parameters.*get\(\) it"):
        await repository.save(copy)
    assert (await loaded(repository, "long")).parameters == {"열쇠": LONG}
    assert await repository.get("copy") is None
