"""`search_tasks` and `get_task_by_id` on a real store: what they find, and how they let go."""

import asyncio
import gc
import json
import warnings
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from app.tasks import DateRange, SearchOptionError, Task, TaskList, TaskSearchOptions, define_task
from app.tasks.core import search as library
from app.tasks.core import task as core
from app.tasks.core.search import TaskStatus, bind, get_task_by_id, search_tasks
from task_state import ConfigurationError, StoreUnavailableError, TaskRecord, TaskResult
from task_state.repository import RedisTaskRepository
from task_state.timezone import now
from tests.support.frontend import REDIS_NOWHERE


@pytest.fixture(autouse=True)
def nothing_is_left_bound(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Each test has a registry of its own, and leaves no repository behind."""
    monkeypatch.setattr(core, "_registry", {})
    yield
    bind(None)


@pytest.fixture
def bound(dms_repository: RedisTaskRepository) -> RedisTaskRepository:
    """The test's store, bound."""
    bind(dms_repository)
    return dms_repository


async def saved(repository: RedisTaskRepository, task_id: str, **values: Any) -> TaskRecord:
    """A stored record."""
    named: dict[str, Any] = {"task_id": task_id, "service": "report", "user_id": "alice"}
    record = TaskRecord(**named | values)
    await repository.save(record)
    return record


async def test_a_task_that_was_found_is_the_documents_task(bound: RedisTaskRepository) -> None:
    define_task("report", _nothing, {"description": "A user's report"})
    created = now() - timedelta(hours=1)
    await saved(
        bound,
        "t-1",
        status=TaskStatus.FAILED,
        parameters={"userId": "철수", "n": 2**70},
        result=TaskResult(data={"url": "x"}, error="it broke"),
        created_at=created,
        max_attempts=5,
    )
    await saved(bound, "t-2", service="other", description="its own")
    task = await get_task_by_id("t-1")
    assert task is not None
    assert (task.id, task.type, task.user_id) == ("t-1", "report", "alice")
    assert task.status is TaskStatus.FAILED
    assert task.payload == {"userId": "철수", "n": 2**70}
    assert (task.result, task.error) == ({"url": "x"}, "it broke")
    assert (task.attempts, task.max_attempts) == (0, 5)
    assert task.created_at == created
    assert task.updated_at > created
    assert task.description == "A user's report"
    other = await get_task_by_id("t-2")
    assert other is not None
    assert other.description == "its own"
    assert [found.id for found in await search_tasks()] == ["t-2", "t-1"]


@pytest.mark.parametrize(
    "task_id", ["some-existing-task-id-123", "report", "a b", "\ud800", "", "\0"]
)
async def test_what_is_no_task_is_none(bound: RedisTaskRepository, task_id: str) -> None:
    define_task("report", _nothing)
    assert await get_task_by_id(task_id) is None


async def test_options_narrow_order_and_page(bound: RedisTaskRepository) -> None:
    begun = now() - timedelta(days=1)
    for n in range(6):
        await saved(
            bound,
            f"t-{n}",
            service="report" if n % 2 else "copy",
            status=TaskStatus.PENDING if n < 4 else TaskStatus.COMPLETED,
            created_at=begun + timedelta(seconds=n),
            parameters={"이름": f"값 {n}"},
        )

    async def ids(**options: Any) -> list[str]:
        return [task.id for task in await search_tasks(TaskSearchOptions(**options))]

    everything = ["t-5", "t-4", "t-3", "t-2", "t-1", "t-0"]
    assert await ids() == everything
    assert await ids(id="t-3") == ["t-3"]
    assert await ids(type="report") == await ids(service="report") == ["t-5", "t-3", "t-1"]
    assert await ids(status="completed") == ["t-5", "t-4"]
    assert await ids(status=["COMPLETED", TaskStatus.PENDING]) == everything
    assert await ids(user="bob") == []
    assert await ids(text="값 4") == ["t-4"]
    assert await ids(sort_by="createdAt", sort_order="asc") == everything[::-1]
    assert await ids(sort_by="id", sort_order="asc", limit=2) == ["t-0", "t-1"]
    second = begun + timedelta(seconds=2)
    assert await ids(created_at_range=DateRange(end=second)) == ["t-1", "t-0"]
    assert await ids(created_at_range=(second, second + timedelta(seconds=1))) == ["t-2"]
    assert await ids(updated_at_range={"end": begun}) == []
    assert await ids(limit=2, offset=1) == ["t-4", "t-3"]
    page = await search_tasks({"limit": 4})
    assert isinstance(page, TaskList)
    assert (len(page), page.total, page[0].id) == (4, 6, "t-5")
    assert [task.id for task in page[1:3]] == ["t-4", "t-3"]
    rest = await search_tasks({"limit": 4, "cursor": page.next_cursor})
    assert ([task.id for task in rest], rest.next_cursor) == (["t-1", "t-0"], None)


async def test_what_is_long_is_left_out_of_a_search_and_named(bound: RedisTaskRepository) -> None:
    await saved(bound, "long", parameters={"p": "x" * 5000}, description="y" * 5000)
    (found,) = await search_tasks()
    assert (found.payload, sorted(found.omitted)) == ({}, ["description", "payload"])
    whole = await get_task_by_id("long")
    assert whole
    assert (whole.payload, whole.omitted) == ({"p": "x" * 5000}, [])


async def test_a_cursor_of_another_search_is_refused(bound: RedisTaskRepository) -> None:
    for n in range(2):
        await saved(bound, f"t-{n}")
    page = await search_tasks({"limit": 1})
    with pytest.raises(SearchOptionError, match="cursor"):
        await search_tasks({"cursor": page.next_cursor, "sort_by": "id"})
    with pytest.raises(SearchOptionError, match="cursor"):
        await search_tasks({"cursor": "junk"})


# ------------------------------------------------------------------------ the environment's store


def _clients(url: str) -> int:
    with Redis.from_url(url) as client:
        return int(client.info("clients")["connected_clients"])


def test_each_event_loop_has_connections_of_its_own_and_closes_them(
    dms_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", dms_redis_url)
    before = _clients(dms_redis_url)

    async def look() -> int:
        found, none = await asyncio.gather(search_tasks(), get_task_by_id("none"))
        assert (list(found), none) == ([], None)
        assert len(library._opened) == 1
        return _clients(dms_redis_url)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert asyncio.run(look()) > before
            gc.collect()
            assert library._opened == {}
            assert _clients(dms_redis_url) == before


def test_threads_have_loops_and_connections_of_their_own(
    dms_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", dms_redis_url)
    before = _clients(dms_redis_url)

    def many(_: int) -> set[str]:
        return {asyncio.run(_search()) for _ in range(5)}

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(many, range(6))) == [{"[]"}] * 6
    assert library._opened == {}
    assert _clients(dms_redis_url) == before


def test_without_a_store_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DMS_REDIS_WRITE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="DMS_REDIS_WRITE_URL"):
        asyncio.run(_search())
    assert library._opened == {}


def test_a_store_that_is_away_is_said_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", REDIS_NOWHERE)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            asyncio.run(_search())
        assert library._opened == {}


def test_a_loop_that_was_left_without_an_end_is_forgotten(
    dms_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", dms_redis_url)
    left = asyncio.new_event_loop()
    try:
        left.run_until_complete(_search())
        (opened,) = library._opened.values()
        left.run_until_complete(opened.provider.close())
    finally:
        left.close()
    assert list(library._opened) == [left]
    asyncio.run(_search())
    assert library._opened == {}


async def _search() -> str:
    return json.dumps([task.id for task in await search_tasks()])


def _nothing(task: Task[dict[str, Any]]) -> None:
    """Does nothing."""
