"""Both faces of the client against a real frontend on a real store: one suite."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.client import (
    AuthError,
    Change,
    ConflictError,
    NotFoundError,
    RefusedError,
    Submitted,
    TaskRef,
    TaskShown,
    WaitTimeoutError,
)
from task_state import TaskCounts, TaskPage, TaskStatus
from task_state.repository import RedisTaskRepository
from tests.support.client_faces import FACES, Face, FaceName, face_of
from tests.support.frontend import TOKEN, Frontend, eventually, make_settings, served_frontend
from tests.support.scheduler_stub import SchedulerStub

SYNC: dict[str, Any] = {
    "id": "sync",
    "description": "옮긴다",
    "max_attempts": 3,
    "parameters": {"type": "object", "required": ["src"]},
}


@pytest.fixture
async def served(dms_redis_url: str, stub: SchedulerStub) -> AsyncGenerator[Frontend]:
    stub.definitions = [SYNC]
    settings = make_settings(dms_redis_url, scheduler_base_url=stub.url)
    async with served_frontend(settings) as frontend:
        yield frontend


@pytest.fixture(params=FACES)
async def face(request: pytest.FixtureRequest, served: Frontend) -> AsyncGenerator[Face]:
    """A client with the operator's token."""
    name: FaceName = request.param
    async with face_of(name, f"{served.client.base_url}/api/v1", token=TOKEN) as client:
        yield client


@pytest.fixture(params=FACES)
async def stranger(request: pytest.FixtureRequest, served: Frontend) -> AsyncGenerator[Face]:
    """A client without a token."""
    name: FaceName = request.param
    async with face_of(name, f"{served.client.base_url}/api/v1") as client:
        yield client


async def submit(face: Face, user: str = "alice", service: str = "sync", **more: Any) -> Submitted:
    """Submit a task of this user's."""
    return await face.call("submit", service, user, {"src": "/원본", **more})


async def end(repository: RedisTaskRepository, task_id: str) -> None:
    """Let a task end as a worker would."""
    await repository.set_status(task_id, TaskStatus.RUNNING)
    await repository.update_result(task_id, data={"파일": 3}, launcher_output="산출\n")
    await repository.set_status(task_id, TaskStatus.COMPLETED, "끝")


async def ids(items: Any) -> list[str]:
    """The ids of tasks that come one after another."""
    return [task.task_id async for task in items]


# ---------------------------------------------------------------------------------------- one task
async def test_a_task_is_submitted_waited_for_and_read(
    face: Face, dms_repository: RedisTaskRepository
) -> None:
    made = await submit(face, number=10**20)
    seen: list[TaskShown] = []
    waiting = asyncio.create_task(face.call("wait", made, 60, on_change=seen.append))
    await eventually(lambda: seen)
    await end(dms_repository, made.task_id)
    task = await waiting
    assert isinstance(task, TaskShown)
    assert (task.status, task.result.data) == (TaskStatus.COMPLETED, {"파일": 3})
    assert task.parameters == {"src": "/원본", "number": 10**20}
    assert [told.status for told in seen][-1] == TaskStatus.COMPLETED
    assert await face.call("get", made) == task
    assert await face.call("get", task) == task
    assert await face.call("get", made.task_id) == task, "an operator needs the id alone"
    assert await face.call("output", made) == "산출\n"
    page = await face.call("logs", made, offset=-1)
    assert [entry.partition(",")[2] for entry in page.lines] == ["끝"]
    assert page.total == page.offset + 1


async def test_a_key_makes_one_task(face: Face) -> None:
    first, second = [
        await face.call("submit", "sync", "alice", {"src": "/a"}, idempotency_key="k-1")
        for _ in range(2)
    ]
    assert (first.task_id, first.idempotency_key) == (second.task_id, "k-1")
    with pytest.raises(RefusedError) as caught:
        await face.call("submit", "sync", "alice", {"src": "/b"}, idempotency_key="k-1")
    assert caught.value.kind == "idempotency-mismatch"
    assert caught.value.request_id


async def test_strict_refuses_what_does_not_fit(face: Face) -> None:
    with pytest.raises(RefusedError, match="src"):
        await face.call("submit", "sync", "alice", {}, strict=True)
    assert (await face.call("submit", "sync", "alice", {"src": "/a"}, strict=True)).task_id
    assert (await face.call("counts", "sync", "alice")).total == 1


async def test_a_wait_has_an_end(face: Face) -> None:
    made = await submit(face)
    with pytest.raises(WaitTimeoutError, match="has not ended"):
        await face.call("wait", made, 0.05)


async def test_cancel_delete_and_retry(face: Face, dms_repository: RedisTaskRepository) -> None:
    made = await submit(face)
    with pytest.raises(ConflictError) as caught:
        await face.call("retry", made)
    assert caught.value.kind == "not-retryable"
    assert await face.call("cancel", made) is TaskStatus.CANCELLED
    again = await face.call("retry", made, idempotency_key="once")
    assert (again.service, again.user_id) == ("sync", "alice")
    once_more = await face.call("retry", made.task_id, idempotency_key="once")
    assert once_more.task_id == again.task_id
    assert (await face.call("get", again)).retry_of == made.task_id
    assert await face.call("cancel", again.task_id) is TaskStatus.CANCELLED
    assert await face.call("delete", made) is True
    assert await face.call("delete", again.task_id) is True
    assert await dms_repository.get(made.task_id) is None
    for call in ("get", "cancel", "delete", "wait", "output", "logs", "retry"):
        with pytest.raises(NotFoundError):
            await face.call(call, made)


async def test_anothers_task_is_a_missing_one(face: Face) -> None:
    made = await submit(face)
    other = TaskRef(made.task_id, "sync", "bob")
    for call in ("get", "cancel", "delete", "wait", "output", "logs", "retry"):
        with pytest.raises(NotFoundError):
            await face.call(call, other)


async def test_what_is_an_operators_needs_the_token(stranger: Face) -> None:
    made = await submit(stranger)
    for call, *args in (
        ["get", made.task_id],
        ["cancel", made.task_id],
        ["search"],
        ["counts"],
        ["services"],
        ["pause", "sync"],
    ):
        with pytest.raises(AuthError):
            await stranger.call(call, *args)
    assert (await stranger.call("search", service="sync", user="alice")).total == 1
    assert (await stranger.call("counts", "sync", "alice")).total == 1


# -------------------------------------------------------------------------------------------- many
async def test_a_search_finds_pages_and_counts(
    face: Face, dms_repository: RedisTaskRepository
) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    made = [(await submit(face, user, note=f"메모 {n}")).task_id for n, user in enumerate("abcab")]
    await end(dms_repository, made[0])
    page = await face.call("search", service="sync", limit=2)
    assert isinstance(page, TaskPage)
    assert [task.task_id for task in page] == made[:2:-1]
    assert (page.total, bool(page.next_cursor)) == (5, True)
    after = await face.call("search", service="sync", limit=2, cursor=page.next_cursor)
    assert [task.task_id for task in after] == made[2:0:-1]
    assert await ids(face.each("search_all", limit=2)) == made[::-1]
    assert await ids(face.each("search_all", limit=2, order="asc", sort="id")) == made
    assert await ids(face.each("search_all", limit=2, offset=3)) == made[1::-1]
    assert await ids(face.each("search_all", service="sync", user="a")) == [made[3], made[0]]
    assert await ids(face.each("search_all", user="b", text="메모 4")) == [made[4]]
    assert await ids(face.each("search_all", status=["completed", "FAILED"])) == [made[0]]
    assert await ids(face.each("search_all", created_after=before)) == made[::-1]
    assert await ids(face.each("search_all", created_before=before)) == []
    assert await ids(face.each("search_all", task_id=made[2])) == [made[2]]
    with pytest.raises(RefusedError, match="limit"):
        await face.call("search", limit=1000)


async def test_counts_and_users(face: Face, dms_repository: RedisTaskRepository) -> None:
    made = [await submit(face, user) for user in ("alice", "alice")]
    await submit(face, "bob", "copy")
    await end(dms_repository, made[0].task_id)
    counts = await face.call("counts")
    assert isinstance(counts, TaskCounts)
    assert counts.total == 3
    assert counts.by_status[TaskStatus.COMPLETED] == 1
    assert dict(counts.by_service) == {"copy": 1, "sync": 2}
    assert dict((await face.call("counts", "sync")).by_user) == {"alice": 2}
    assert (await face.call("counts", user="bob")).total == 1
    assert await face.call("users", "sync") == ["alice"]


# ----------------------------------------------------------------------------------------- streams
async def test_a_log_is_followed_to_the_end(
    face: Face, dms_repository: RedisTaskRepository
) -> None:
    made = await submit(face)
    found: list[str] = []

    async def follow() -> None:
        async for line in face.each("follow", made, offset=0):
            found.append(line)  # noqa: PERF401  (looked at while it grows)

    following = asyncio.create_task(follow())
    for number in range(3):
        await dms_repository.append_log(made.task_id, f"줄 {number}")
        await eventually(lambda number=number: any(f"줄 {number}" in line for line in found))
    await end(dms_repository, made.task_id)
    await following
    assert found == list((await face.call("logs", made)).lines)
    last = [line async for line in face.each("follow", made, offset=-1)]
    assert last == found[-1:]


async def test_changes_are_followed(face: Face, dms_repository: RedisTaskRepository) -> None:
    made = await submit(face)
    seen: list[Change] = []

    async def follow() -> None:
        async for change in face.each("changes", "sync", "alice", after="0-1"):
            assert isinstance(change, Change)
            seen.append(change)
            if change.status == "COMPLETED":
                return

    following = asyncio.create_task(follow())
    await eventually(lambda: seen)
    await end(dms_repository, made.task_id)
    await following
    assert {change.task_id for change in seen} == {made.task_id}
    assert seen[0].kind == "created"


# ------------------------------------------------------------------------- definitions and services
async def test_definitions(face: Face) -> None:
    (found,) = await face.call("definitions")
    assert (found.id, found.description) == ("sync", "옮긴다")
    assert found.parameters == SYNC["parameters"]
    assert found.details["max_attempts"] == 3


async def test_a_service_is_paused_drained_and_resumed(face: Face) -> None:
    made = await submit(face)
    state = await face.call("pause", "sync", "점검 중")
    assert (state.mode, state.reason) == ("PAUSED", "점검 중")
    assert state.since.tzinfo is not None
    assert await face.call("service", "sync") == state
    assert [each.service for each in await face.call("wait_idle", "sync", 60)] == ["sync"]
    assert (await face.call("drain", "sync")).mode == "DRAINING"
    with pytest.raises(ConflictError) as caught:
        await submit(face)
    assert caught.value.kind == "service-draining"
    await face.call("cancel", made)
    await face.call("wait_idle", "sync", 60)
    assert (await face.call("resume", "sync")).mode == "ACTIVE"
    assert (await face.call("pause", "*")).service == "*"
    assert {each.service: each.mode for each in await face.call("services")}["*"] == "PAUSED"
    assert (await face.call("resume", "*")).mode == "ACTIVE"


async def test_health(face: Face) -> None:
    found = await face.call("health")
    assert found.ready
    assert found.parts["reads"] == "ok"
