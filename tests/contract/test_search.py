"""Searches: every option, offsets, order by id, exact totals, counts, and what they refuse."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from task_state import InvalidRequestError, TaskRecord, TaskSearch, TaskStatus, _listing, keys
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace, record
from tests.stateful.search_model import Records

START = datetime(2025, 1, 1, tzinfo=UTC)
MIDDLE = START + timedelta(seconds=40)
STATUSES = list(TaskStatus)
FAILED = [TaskStatus.FAILED]


async def some(repository: RedisTaskRepository, count: int) -> Records:
    """Records of three services and two users in all states; some share an instant."""
    rng, records = random.Random(20260102), Records()
    for number in range(count):
        task = record(
            f"{rng.choice('Aaz_-.')}{number}",
            service=rng.choice(["sync", "sync", "copy", "rm"]),
            user_id=rng.choice(["alice", "bob"]),
            status=rng.choice([*STATUSES, TaskStatus.COMPLETED, TaskStatus.COMPLETED]),
            created_at=START + timedelta(seconds=rng.randrange(count // 2)),
            parameters={"src": f"/data/{number}", "note": "x" * rng.randrange(200)},
        )
        await repository.save(task)
        records.tasks[task.task_id] = task
    return records


async def ids(repository: RedisTaskRepository, search: TaskSearch) -> list[str]:
    """The ids of all pages."""
    found: list[str] = []
    while True:
        page = await repository.search(search)
        found += [task.task_id for task in page]
        if page.next_cursor is None:
            return found
        search = replace(search, cursor=page.next_cursor, offset=0)


SEARCHES: Sequence[dict[str, Any]] = [
    {},
    {"service": "sync"},
    {"user_id": "bob"},
    {"service": "sync", "user_id": "bob"},
    {"status": FAILED},
    {"user_id": "bob", "status": [TaskStatus.FAILED, TaskStatus.COMPLETED]},
    {"created_after": START + timedelta(seconds=9), "created_before": MIDDLE},
    {"service": "rm", "q": "/DATA/1"},
    {"q": "alice"},
]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
async def test_every_offset_of_every_order(
    repository: RedisTaskRepository, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = await some(repository, 120)
    for gather in (0, 1000):
        monkeypatch.setattr(_listing, "GATHER_LIMIT", gather)
        for sort in ("created_at", "updated_at", "id"):
            for order in ("asc", "desc"):
                search = TaskSearch(sort=sort, order=order, limit=200, **options)
                expected = records.found(search)
                for offset in range(0, len(expected) + 2, 7):
                    page = await repository.search(replace(search, offset=offset))
                    assert [task.task_id for task in page] == expected[offset:]
                    assert page.total in {None, len(expected)}
                assert await ids(repository, replace(search, limit=11)) == expected


async def test_an_offset_that_no_index_serves_goes_on_in_the_cursor(
    repository: RedisTaskRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listing, "SCAN_BUDGET", 10)
    monkeypatch.setattr(_listing, "GATHER_LIMIT", 0)
    records = await some(repository, 60)
    search = TaskSearch(q="bob", offset=12, limit=5)
    page = await repository.search(search)
    assert (len(page), page.total) == (0, None)
    assert page.next_cursor is not None
    assert await ids(repository, search) == records.found(search)[12:]


async def test_one_id(repository: RedisTaskRepository) -> None:
    records = await some(repository, 20)
    task = next(iter(records.tasks.values()))
    page = await repository.search(TaskSearch(task_id=task.task_id))
    assert ([found.task_id for found in page], page.total) == ([task.task_id], 1)
    others: list[dict[str, Any]] = [
        {"service": "none"},
        {"user_id": "nobody"},
        {"status": [status for status in STATUSES if status is not task.status]},
        {"created_after": task.created_at + timedelta(microseconds=1)},
        {"updated_before": task.updated_at},
        {"q": "no such text"},
        {"offset": 1},
    ]
    for options in others:
        page = await repository.search(TaskSearch(task_id=task.task_id, **options))
        assert list(page) == []
    page = await repository.search(TaskSearch(task_id="gone"))
    assert (list(page), page.total, page.next_cursor) == ([], 0, None)


async def test_totals_are_exact_where_little_may_match(
    repository: RedisTaskRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = await some(repository, 60)
    text = TaskSearch(q="/data/1", limit=2)
    narrower: list[dict[str, Any]] = [
        {},
        {"service": "copy"},
        {"sort": "id"},
        {"status": FAILED, "order": "asc"},
    ]
    for options in narrower:
        search = replace(text, **options)
        assert (await repository.search(search)).total == len(records.found(search))
    monkeypatch.setattr(_listing, "GATHER_LIMIT", 2)
    assert (await repository.search(text)).total is None
    by_user = TaskSearch(user_id="bob", sort="updated_at", limit=2)
    assert (await repository.search(by_user)).total == len(records.found(by_user))


async def test_counts(repository: RedisTaskRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    records = await some(repository, 60)
    for service in (None, "sync", "none"):
        for user in (None, "bob", "nobody"):
            assert await repository.counts(service, user) == records.counts(service, user)
    monkeypatch.setattr("task_state._redis_repository.MAX_COUNTED_USERS", 1)
    assert (await repository.counts("sync")).by_user is None
    with pytest.raises(InvalidRequestError, match="service 'a:b'"):
        await repository.counts("a:b")
    with pytest.raises(InvalidRequestError, match="user_id ''"):
        await repository.counts(user_id="")


async def test_a_listing_refuses_what_a_search_refuses(repository: RedisTaskRepository) -> None:
    with pytest.raises(InvalidRequestError, match="service ''"):
        await repository.list_by_service("")
    with pytest.raises(InvalidRequestError, match="user_id 'a b'"):
        await repository.list_by_service_and_user("sync", "a b")


# ------------------------------------------------------------------------------------------- layout
SIZES = [0, 1, 52, 53, 54, 55, 116, 117, 118, 500, 501, 502, 4000]


async def test_values_of_any_length_come_back(
    repository: RedisTaskRepository, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    """Long ones are stored in pieces; each replaces the one before, longer or shorter."""
    task = await managed.submit(service="sync", user_id="alice", parameters={"p": "한" * 50})
    await managed.begin(task.task_id, 1, worker="w")
    rng = random.Random(20260103)
    for size in SIZES + rng.sample(SIZES, len(SIZES)):
        value = "x" * size
        await managed.heartbeat(task.task_id, 1, progress={"phase": value})
        await repository.update_result(task.task_id, data={"value": value}, error=value + "e")
        for found in [await repository.get(task.task_id), *await repository.list_all()]:
            assert found is not None
            assert found.progress == {"phase": value}
            assert (found.result.data, found.result.error) == ({"value": value}, value + "e")
            assert found.parameters == {"p": "한" * 50}
    loaded = await repository.get("external-1")
    assert loaded is None
    await repository.save(record(parameters={"p": "x" * 300}, jobs=["j" * 60]))
    loaded = await repository.get("external-1")
    assert loaded is not None
    loaded.parameters = {"p": "x" * 80}
    await repository.save(loaded)
    await repository.add_jobs("external-1", ["k" * 60, "j" * 60])
    (found,) = await repository.search(TaskSearch(task_id="external-1", q='x"}'))
    assert (found.parameters, found.jobs) == ({"p": "x" * 80}, ["j" * 60, "k" * 60])


async def test_a_record_stays_small(
    repository: RedisTaskRepository, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    """Servers keep a hash compact until one value has more than 64 bytes."""
    task = await managed.submit(
        service="sync", user_id="alice", parameters={"src": "/a" * 50, "dst": "/b" * 50}
    )
    await managed.begin(task.task_id, 1, worker="w")
    await managed.heartbeat(task.task_id, 1, progress={"phase": "copy", "current": "/a" * 50})
    assert keyspace.client.object("encoding", keys.task(task.task_id)) == b"listpack"
    await managed.finish(task.task_id, 1, TaskStatus.COMPLETED, data={"files": ["/a" * 50]})
    assert keyspace.client.type(keys.task(task.task_id)) == b"string"
    await repository.update_result(task.task_id, data={"files": ["/a" * 500]})
    (found,) = await repository.list_all()
    assert found.result.data == {"files": ["/a" * 500]}


async def test_pages_tell_the_length_of_a_log(
    repository: RedisTaskRepository, managed: ManagedTasks
) -> None:
    task = await managed.submit(service="s", user_id="u", parameters={}, log_entry="one")
    await repository.append_logs(task.task_id, ["2025,two", "2025,three"])
    await repository.save(record())
    await repository.append_log("external-1", "one")
    found = {task.task_id: task.logs_total for task in await repository.list_all()}
    assert found == {task.task_id: 3, "external-1": 1}


def as_older(keyspace: Keyspace, task: TaskRecord) -> None:
    """Make the record look as layout 1 would have written it."""
    name = keys.task(task.task_id)
    for field in cast("list[bytes]", keyspace.client.hkeys(name)):
        if b":" in field or field == b"log_lines":
            keyspace.client.hdel(name, field)
    whole = '{"p":"' + "x" * 100 + '"}'
    keyspace.client.hset(name, mapping={"parameters": whole})
    keyspace.client.zrem(keys.IDS, task.task_id)


async def test_records_of_the_older_layout_are_read(
    repository: RedisTaskRepository,
    keyspace: Keyspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = record("old", parameters={"p": "x" * 100}, logs=["2025,a", "2025,b"])
    await repository.save(old)
    as_older(keyspace, old)
    keyspace.client.set(keys.SCHEMA, 1)
    store = repository._store  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(store, "_schema_known", False)
    await repository.save(record("new", parameters={"p": "x" * 100}))
    assert keyspace.client.get(keys.SCHEMA) == str(keys.SCHEMA_VERSION).encode()
    found = {task.task_id: task for task in await repository.list_all()}
    assert (found["old"].logs_total, found["new"].logs_total) == (2, 0)
    assert found["old"].parameters == found["new"].parameters == {"p": "x" * 100}
    assert await ids(repository, TaskSearch(sort="id", order="asc")) == ["new", "old"]
    monkeypatch.setattr(_listing, "GATHER_LIMIT", 0)
    with pytest.raises(InvalidRequestError, match="doctor --repair"):
        await repository.search(TaskSearch(sort="id"))
    await repository.append_log("old", "c")
    assert (await repository.search(TaskSearch(task_id="old")))[0].logs_total == 3
    assert await repository.delete("old")


async def test_doctor_brings_the_older_layout_up_to_date(
    provider: RedisRepositoryProvider, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listing, "GATHER_LIMIT", 0)
    repository = await provider.get_repository()
    for name in ("b", "a"):
        old = record(name, parameters={"p": "x" * 100}, logs=["2025,a", "2025,b"])
        await repository.save(old)
        as_older(keyspace, old)
    keyspace.client.set(keys.OLDER, 1)
    with pytest.raises(InvalidRequestError, match="doctor --repair"):
        await repository.search(TaskSearch(sort="id"))
    audit = await provider.get_audit("dispatch", mend=True)
    assert [finding.mended async for finding in audit.walk()] == [True] * 4
    assert keyspace.client.exists(keys.OLDER) == 0
    page = await repository.search(TaskSearch(sort="id", order="asc"))
    assert [(task.task_id, task.logs_total) for task in page] == [("a", 2), ("b", 2)]


async def test_what_is_counted_is_what_is_there(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    records = await some(repository, 30)
    by_state = Counter(task.status for task in records.tasks.values())
    for task_id in records.tasks:
        assert await repository.delete(task_id)
    assert by_state.total() == 30
    assert (await repository.counts()).total == 0
    assert keyspace.leaks() == set()
