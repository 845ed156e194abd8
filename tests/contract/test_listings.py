"""Pages of listings: order, cursors, filters, totals, and what moves between two pages."""

import base64
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from task_state import InvalidRequestError, Paging, TaskPage, TaskRecord, TaskStatus, _listing, keys
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.contract.servers import running
from tests.contract.store import Keyspace, record

START = datetime(2025, 1, 1, tzinfo=UTC)
STATUSES = list(TaskStatus)
Scope = tuple[str | None, str | None]
SCOPES: list[Scope] = [(None, None), ("sync", None), ("sync", "bob"), ("none", None)]


async def listing(repository: RedisTaskRepository, scope: Scope, paging: Paging) -> TaskPage:
    service, user = scope
    if service is None:
        return await repository.list_all(paging)
    if user is None:
        return await repository.list_by_service(service, paging)
    return await repository.list_by_service_and_user(service, user, paging)


async def walk(
    repository: RedisTaskRepository, scope: Scope = (None, None), **options: Any
) -> list[str]:
    """The ids of all pages of a listing."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await listing(repository, scope, Paging(cursor=cursor, **options))
        assert len(page) <= options.get("limit", 50)
        found += [task.task_id for task in page]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def fill(repository: RedisTaskRepository, count: int) -> list[TaskRecord]:
    """Tasks of two services and two users in all states; three share each instant."""
    made: list[TaskRecord] = []
    for number in range(count):
        task = record(
            f"{'Aa_-.'[number % 5]}{number}",
            service=["sync", "copy"][number % 2],
            user_id=["alice", "bob"][number // 2 % 2],
            status=STATUSES[number % 7],
            created_at=START + timedelta(seconds=number // 3),
            parameters={"경로": f"/데이터/{number}", "Mode": "Fast" if number % 4 else "slow"},
        )
        await repository.save(task)
        made.append(task)
    return made


def ordered(
    tasks: Sequence[TaskRecord],
    sort: Literal["created_at", "updated_at"] = "created_at",
    order: Literal["asc", "desc"] = "desc",
) -> list[str]:
    by_time = sorted(
        tasks, key=lambda task: (getattr(task, sort), task.task_id), reverse=order == "desc"
    )
    return [task.task_id for task in by_time]


def in_scope(tasks: Sequence[TaskRecord], scope: Scope) -> list[TaskRecord]:
    service, user = scope
    return [
        task for task in tasks if service in {None, task.service} and user in {None, task.user_id}
    ]


async def test_every_scope_order_and_limit(repository: RedisTaskRepository) -> None:
    tasks = await fill(repository, 61)
    for scope in SCOPES:
        expected = in_scope(tasks, scope)
        for sort in ("created_at", "updated_at"):
            for order in ("asc", "desc"):
                for limit in (1, 7, 30, 200):
                    found = await walk(repository, scope, sort=sort, order=order, limit=limit)
                    assert found == ordered(expected, sort, order)


async def test_status_filter_and_totals(repository: RedisTaskRepository) -> None:
    tasks = await fill(repository, 40)
    for scope in SCOPES:
        for status in (
            [TaskStatus.RUNNING],
            [TaskStatus.RUNNING, TaskStatus.FAILED],
            [TaskStatus.RUNNING, TaskStatus.RUNNING],
            STATUSES,
        ):
            expected = [task for task in in_scope(tasks, scope) if task.status in status]
            page = await listing(repository, scope, Paging(status=status, limit=2))
            assert page.total == len(expected)
            assert await walk(repository, scope, status=status, limit=2) == ordered(expected)


async def test_records_of_a_page_are_light(repository: RedisTaskRepository) -> None:
    await repository.save(record(logs=["a", "b"], parameters={"a": 1}))
    await repository.update_result("external-1", launcher_output="x" * 1000, error="e")
    (task,) = await repository.list_all()
    assert (task.logs, task.logs_total) == ([], 2)
    assert (task.result.launcher_output, task.result.error) == (None, "e")
    assert task.parameters == {"a": 1}
    task.description = "saved from a page"
    task.logs.append("c")
    await repository.save(task)
    found = await repository.get("external-1")
    assert found is not None
    assert (found.logs, found.description) == (["a", "b", "c"], "saved from a page")
    assert found.result.launcher_output == "x" * 1000


async def test_created_range_is_half_open(repository: RedisTaskRepository) -> None:
    tasks = await fill(repository, 30)
    after, before = START + timedelta(seconds=2), START + timedelta(seconds=5)
    expected = [task for task in tasks if after <= task.created_at < before]
    assert expected
    for order in ("asc", "desc"):
        found = await walk(
            repository, created_after=after, created_before=before, order=order, limit=2
        )
        assert found == ordered(expected, order=order)
    page = await repository.list_all(Paging(created_after=after, created_before=before, limit=1))
    assert page.total == len(expected)
    naive = datetime(2025, 1, 1, 9, 0, 2)  # noqa: DTZ001  (taken in Asia/Seoul)
    assert await walk(repository, created_after=naive, created_before=before) == ordered(expected)


async def test_filters_that_no_index_serves(repository: RedisTaskRepository) -> None:
    tasks = await fill(repository, 40)
    middle = tasks[20].updated_at
    for sort in ("created_at", "updated_at"):
        for scope in SCOPES:
            scoped = in_scope(tasks, scope)
            expected = [task for task in scoped if task.updated_at >= middle]
            found = await walk(repository, scope, sort=sort, updated_after=middle, limit=3)
            assert found == ordered(expected, sort)
            expected = [task for task in scoped if task.updated_at < middle]
            found = await walk(repository, scope, sort=sort, updated_before=middle, limit=3)
            assert found == ordered(expected, sort)
            expected = [task for task in scoped if task.created_at < START + timedelta(seconds=5)]
            before = START + timedelta(seconds=5)
            found = await walk(repository, scope, sort=sort, created_before=before, limit=3)
            assert found == ordered(expected, sort)
    page = await repository.list_all(Paging(updated_after=middle, limit=1))
    assert page.total == len([task for task in tasks if task.updated_at >= middle])


MATCHES: dict[str, Callable[[TaskRecord], bool]] = {
    "a1": lambda task: "a1" in task.task_id.lower(),
    "BOB": lambda task: task.user_id == "bob",
    "slow": lambda task: task.parameters["Mode"] == "slow",
    "mode": lambda task: True,
    "/데이터/7": lambda task: "/데이터/7" in task.parameters["경로"],
    "한": lambda task: False,
    "[%a.]*": lambda task: False,
}


@pytest.mark.parametrize("text", MATCHES)
async def test_text_search(repository: RedisTaskRepository, text: str) -> None:
    tasks = await fill(repository, 25)
    expected = [task for task in tasks if MATCHES[text](task)]
    assert await walk(repository, q=text, limit=4) == ordered(expected)


async def test_a_page_stays_short_when_its_budget_is_spent(
    repository: RedisTaskRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listing, "SCAN_BUDGET", 10)
    monkeypatch.setattr(_listing, "GATHER_LIMIT", 10)
    tasks = await fill(repository, 45)
    page = await repository.list_all(Paging(q="nothing like it", limit=5))
    assert len(page) == 0
    assert page.total is None, "counting would mean reading every record"
    assert page.next_cursor is not None
    assert await walk(repository, q='데이터/3"', limit=5) == ["-3"]
    assert await walk(repository, q="nothing like it", limit=5) == []
    assert await walk(repository, limit=7) == ordered(tasks), "unfiltered pages stay full enough"


async def test_what_comes_and_goes_between_pages(repository: RedisTaskRepository) -> None:
    tasks = await fill(repository, 30)
    expected = ordered(tasks)
    first = await repository.list_all(Paging(limit=10))
    await repository.save(record("newest", created_at=START + timedelta(days=1)))
    await repository.delete(expected[3])
    await repository.delete(expected[9])
    await repository.delete(expected[10])
    second = await repository.list_all(Paging(limit=10, cursor=first.next_cursor))
    moved = expected[25]
    await repository.save(record("oldest", created_at=START - timedelta(days=1)))
    for task in tasks:
        if task.task_id == moved and not task.status.is_terminal:
            await repository.set_status(moved, TaskStatus.CANCELLED)
    third = await repository.list_all(Paging(limit=200, cursor=second.next_cursor))
    found = [task.task_id for page in (first, second, third) for task in page]
    assert found == [*expected[:10], *expected[11:], "oldest"]
    assert third.next_cursor is None


async def test_the_last_page_ends(repository: RedisTaskRepository) -> None:
    await fill(repository, 20)
    for limit in (10, 20, 21):
        page = await repository.list_all(Paging(limit=limit))
        assert (page.next_cursor is None) is (limit >= 20)
    empty = await repository.list_by_service("none")
    assert (list(empty), empty.next_cursor, empty.total) == ([], None, 0)


async def test_records_that_expired_natively_are_passed_over(
    repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    tasks = await fill(repository, 12)
    for task in tasks[::3]:
        keyspace.client.delete(keys.task(task.task_id))
    left = [task for task in tasks if task not in tasks[::3]]
    assert await walk(repository, limit=5) == ordered(left)
    assert await walk(repository, limit=5, q="a") == ordered(left)


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_a_limit_out_of_range(repository: RedisTaskRepository, limit: int) -> None:
    with pytest.raises(InvalidRequestError, match="1 to 200"):
        await repository.list_all(Paging(limit=limit))


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "한글",
        "\udc80",
        "!!!!",
        _encoded("cd:123"),
        _encoded("cd:x:1"),
        _encoded("cd:1_0:x"),
        _encoded("cd: 5 :x"),
        _encoded("cd:+5:x"),
        _encoded("cd:" + "9" * 400 + ":x"),
        _encoded("cd:nan:x"),
        _encoded("cd:٣:x"),
        _encoded("ua:5:x"),
        _encoded("ca:5:x"),
    ],
)
async def test_a_cursor_that_is_none_of_ours(repository: RedisTaskRepository, cursor: str) -> None:
    await fill(repository, 3)
    with pytest.raises(InvalidRequestError, match="cursor"):
        await repository.list_all(Paging(cursor=cursor))


async def test_random_listings_match_a_plain_sort(repository: RedisTaskRepository) -> None:
    """Many ties over all states, ids of all lengths: pages never lose or repeat a record."""
    rng = random.Random(20260101)
    letters = "AZaz09._-"
    tasks: list[TaskRecord] = []
    ids = {"".join(rng.choices(letters, k=rng.randint(1, 4))) for _ in range(150)}
    for task_id in sorted(each for each in ids if each.strip(".")):
        when = START + timedelta(microseconds=rng.randrange(3))
        task = record(task_id, status=rng.choice(STATUSES), created_at=when)
        await repository.save(task)
        tasks.append(task)
    for order in ("asc", "desc"):
        for limit in (1, 13, 26, 200):
            assert await walk(repository, order=order, limit=limit) == ordered(tasks, order=order)


@pytest.mark.redis_server
async def test_ids_are_ordered_by_their_bytes_whatever_the_servers_locale() -> None:
    """Sorted sets order ids by bytes; Lua's own `<` follows the locale that Redis runs in."""
    if shutil.which("localedef") is None:
        pytest.skip("needs localedef (Debian: apt-get install locales)")
    with tempfile.TemporaryDirectory(prefix="dms-locale-") as folder:
        done = subprocess.run(
            ["localedef", "-i", "en_US", "-f", "UTF-8", str(Path(folder) / "en_US.UTF-8")],
            capture_output=True,
            text=True,
            check=False,
        )
        if not os.listdir(folder):
            pytest.skip(f"localedef has no sources of en_US: {done.stderr}")
        with running("redis", environment={"LC_ALL": "en_US.UTF-8", "LOCPATH": folder}) as server:
            with server.client() as client:
                assert client.eval("return tostring('a' < 'B')", 0) == b"true", "the locale is on"
            provider = RedisRepositoryProvider(
                RedisRepositorySettings(write_url=server.url, timeout_seconds=60)
            )
            try:
                await test_random_listings_match_a_plain_sort(await provider.get_repository())
            finally:
                await provider.close()
