"""The client while its frontend is killed and started again: nothing is lost, nothing doubled."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from app.client import TaskRef, UnavailableError
from task_state import Paging, TaskRecord, TaskStatus
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.support.cli import clean_environment, entry
from tests.support.client_faces import FACES, Face, FaceName, face_of
from tests.support.frontend import eventually
from tests.support.stack import Stack

MINE = TaskRef("followed", "reports", "alice")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A store and a frontend; nothing runs what is submitted."""
    with Stack(tmp_path_factory.mktemp("stack"), without=("worker", "scheduler")) as stack:
        yield stack


@pytest.fixture
async def repository(stack: Stack) -> AsyncGenerator[RedisTaskRepository]:
    """The stack's own store."""
    settings = RedisRepositorySettings(write_url=stack.redis_url, timeout_seconds=60)
    provider = RedisRepositoryProvider(settings)
    yield await provider.get_repository()
    await provider.close()


@pytest.fixture(params=FACES)
async def face(request: pytest.FixtureRequest, stack: Stack) -> AsyncGenerator[Face]:
    """Every test is run on both faces."""
    name: FaceName = request.param
    async with face_of(name, stack.api_base) as client:
        yield client


@asynccontextmanager
async def frontend_away(stack: Stack) -> AsyncGenerator[None]:
    """The frontend is killed as hard as can be, and starts again after the block."""
    await asyncio.to_thread(stack.kill, "frontend")
    try:
        yield
    finally:
        # Not in a thread: a part ends with the thread that started it.
        stack.start("frontend", wait_ready=False)


async def test_a_followed_log_is_whole_and_a_wait_ends(
    stack: Stack, repository: RedisTaskRepository, face: Face
) -> None:
    await repository.delete(MINE.task_id)
    await repository.save(TaskRecord(task_id=MINE.task_id, service="reports", user_id="alice"))
    await repository.set_status(MINE.task_id, TaskStatus.RUNNING)
    found: list[str] = []

    async def follow() -> None:
        async for line in face.each("follow", MINE):
            found.append(line)  # noqa: PERF401  (looked at while it grows)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(face.call("wait", MINE))
        group.create_task(follow())
        written = 0
        for _ in range(2):
            written = await _write(repository, written, 40)
            await eventually(lambda written=written: len(found) >= written - 20, timeout=60)
            async with frontend_away(stack):
                written = await _write(repository, written, 20)
        await repository.set_status(MINE.task_id, TaskStatus.COMPLETED)
    assert [line.partition(",")[2] for line in found] == [f"줄 {n}" for n in range(written)]
    assert waiting.result().status is TaskStatus.COMPLETED


async def test_the_command_line_follows_on(
    stack: Stack, repository: RedisTaskRepository, tmp_path: Path
) -> None:
    """Its frontend is killed twice in between; each line is printed once, in order."""
    printed = tmp_path / "printed"
    task_id = f"followed-{uuid4().hex[:8]}"
    await repository.save(TaskRecord(task_id=task_id, service="reports", user_id="alice"))
    await repository.set_status(task_id, TaskStatus.RUNNING)
    command = ["tasks", "logs", "-f", "--service", "reports", "--user", "alice"]
    with printed.open("wb") as out:
        following = await asyncio.create_subprocess_exec(
            *entry(*command, "--task-id", task_id),
            env=clean_environment(DMS_API_BASE=stack.api_base),
            stdout=out,
        )
    try:
        written = 0
        for _ in range(2):
            written = await _write(repository, written, 20, task_id)
            await eventually(
                lambda written=written: f"줄 {written - 1}\n" in printed.read_text(), timeout=60
            )
            async with frontend_away(stack):
                written = await _write(repository, written, 20, task_id)
        await repository.set_status(task_id, TaskStatus.COMPLETED)
        async with asyncio.timeout(60):
            assert await following.wait() == 0
    finally:
        if following.returncode is None:
            following.kill()
            await following.wait()
    lines = [line.partition(",")[2] for line in printed.read_text().splitlines()]
    assert lines == [f"줄 {n}" for n in range(written)]


async def _write(
    repository: RedisTaskRepository, first: int, count: int, task_id: str = MINE.task_id
) -> int:
    for number in range(first, first + count):
        await repository.append_log(task_id, f"줄 {number}")
    return first + count


async def test_a_submission_makes_one_task_although_its_frontend_dies(
    stack: Stack, repository: RedisTaskRepository, face: Face
) -> None:
    user = f"user-{uuid4().hex[:8]}"
    made: dict[str, str] = {}

    async def submit(nonce: str) -> None:
        while nonce not in made:
            try:
                task = await face.call(
                    "submit", "sync", user, {"nonce": nonce}, idempotency_key=nonce
                )
            except UnavailableError:  # away for longer than the client repeats by itself
                continue
            made[nonce] = task.task_id

    nonces = [uuid4().hex for _ in range(60)]

    async def submit_all(mine: list[str]) -> None:
        for nonce in mine:
            await submit(nonce)

    async with asyncio.TaskGroup() as group:
        for start in range(4):
            group.create_task(submit_all(nonces[start::4]))
        await eventually(lambda: len(made) >= 10, timeout=60)
        async with frontend_away(stack):
            pass
    page = await repository.list_by_service_and_user("sync", user, Paging(limit=200))
    assert sorted(task.parameters["nonce"] for task in page) == sorted(nonces)
    assert {task.task_id for task in page} == set(made.values())
