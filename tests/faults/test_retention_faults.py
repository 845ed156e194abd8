"""The retention loop under attack: killed in mid-archive, a full disk, writers beside it, a clock
that is years ahead. No task may leave the store that is not whole in the archive."""

import asyncio
import json
import random
import resource
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from dms_scheduler.archive import Archive
from dms_scheduler.retention import Pace, RetentionLoop
from task_state import TaskNotFoundError, TaskRecord, TaskSearch, TaskStatus
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from task_state.retention_policy import RetentionPolicy
from task_state.timezone import now
from tests.support.stack import eventually
from tests.support.worker_process import ROOT

STEP = 10
LINES = 700
_RUN = """
import asyncio, logging, resource, sys
from pathlib import Path
from dms_scheduler.archive import Archive
from dms_scheduler.retention import Pace, RetentionLoop
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.retention_policy import RetentionPolicy

async def main(url, folder, step, limit):
    if int(limit):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=url, timeout_seconds=60))
    pace = Pace(period_seconds=0.05, pause_seconds=0.0, turn_seconds=0.3, step=int(step))
    await RetentionLoop(
        provider, RetentionPolicy.parse(["*=7d"]), Archive(Path(folder)), pace
    ).run()

logging.basicConfig(level=logging.INFO)
asyncio.run(main(*sys.argv[1:]))
"""


class Keeper:
    """A process that applies the policy `*=7d`; leaving kills it. `limit` bounds its files."""

    def __init__(self, url: str, folder: Path, log: Path, limit: int = 0) -> None:
        self._log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN, url, str(folder), str(STEP), str(limit)],
                cwd=ROOT,
                stderr=file,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """What all of them have logged."""
        return self._log.read_text()


def ended(task_id: str, **values: Any) -> TaskRecord:
    """A task that ended a month ago."""
    end = now() - timedelta(days=30)
    options: dict[str, Any] = {"service": "sync", "user_id": "alice", "status": "COMPLETED"}
    return TaskRecord(task_id=task_id, created_at=end, completed_at=end, **{**options, **values})


def archived(folder: Path) -> list[dict[str, Any]]:
    """Every line of the archive, which has whole ones alone."""
    data = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


@pytest.fixture
async def provider(dms_redis_url: str) -> AsyncGenerator[RedisRepositoryProvider]:
    settings = RedisRepositorySettings(write_url=dms_redis_url, timeout_seconds=60)
    opened = RedisRepositoryProvider(settings)
    yield opened
    await opened.close()


async def left(repository: RedisTaskRepository) -> int:
    page = await repository.search(TaskSearch(limit=1))
    assert page.total is not None
    return page.total


def is_settled(folder: Path) -> bool:
    """Whether the archive has whole lines: between two looks a writer may be in the middle."""
    data = b"".join(file.read_bytes()[-1:] for file in folder.iterdir())
    return not data or data.strip(b"\n") == b""


async def test_killed_in_mid_archive_nothing_is_lost_or_torn(
    dms_redis_url: str, dms_repository: RedisTaskRepository, tmp_path: Path
) -> None:
    folder, log = tmp_path / "archive", tmp_path / "log"
    folder.mkdir()
    names = [f"t{n:03}" for n in range(120)]
    for name in names:
        await dms_repository.save(ended(name, logs=[f"t,{name} {'줄' * 40}"] * LINES))
    chance, kills = random.Random(7), 0

    def grown(before: int) -> bool:
        return size(folder) > before + chance.randrange(1, 800_000)

    for _ in range(6):
        before = size(folder)
        with Keeper(dms_redis_url, folder, log):
            await asyncio.to_thread(eventually, lambda size=before: grown(size), 60.0)
        kills += 1
        if not await left(dms_repository):
            break
    with Keeper(dms_redis_url, folder, log):
        async with asyncio.timeout(120):
            while await left(dms_repository):
                await asyncio.sleep(0.05)
    lines = archived(folder)
    assert {line["task_id"] for line in lines} == set(names)
    assert all(len(line["logs"]) == LINES for line in lines)
    assert len(names) <= len(lines) <= len(names) + kills * STEP, "a step is repeated, no more"


async def test_a_disk_that_is_full_for_a_while(
    dms_redis_url: str, dms_repository: RedisTaskRepository, tmp_path: Path
) -> None:
    folder, log = tmp_path / "archive", tmp_path / "log"
    folder.mkdir()
    names = {f"t{n:03}" for n in range(60)}
    for name in names:
        await dms_repository.save(ended(name, logs=["t," + "x" * 40] * LINES))
    with Keeper(dms_redis_url, folder, log, limit=1_000_000) as keeper:
        await asyncio.to_thread(eventually, lambda: "Retention waits" in keeper.log(), 60.0)
        await asyncio.to_thread(eventually, lambda: is_settled(folder), 60.0)
        kept = {task.task_id for task in await dms_repository.list_all()}
        assert kept
        assert names - kept <= {line["task_id"] for line in archived(folder)}
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(keeper.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        async with asyncio.timeout(120):
            while await left(dms_repository):
                await asyncio.sleep(0.05)
        assert keeper.log().count("Retention waits") == 1, "said once"
    lines = archived(folder)
    assert {line["task_id"] for line in lines} == names
    assert len(lines) == len(names)


async def test_writers_and_deletes_beside_it(
    provider: RedisRepositoryProvider, dms_repository: RedisTaskRepository, tmp_path: Path
) -> None:
    names = [f"t{n:03}" for n in range(150)]
    for name in names:
        await dms_repository.save(ended(name, logs=["t,first"]))
    written = dict.fromkeys(names, 1)
    deleted: set[str] = set()

    async def write(chance: random.Random) -> None:
        for name in chance.choices(names, k=400):
            try:
                await dms_repository.append_log(name, "more")
            except TaskNotFoundError:
                continue
            written[name] += 1

    async def delete(chance: random.Random) -> None:
        for name in chance.sample(names, k=30):
            if await dms_repository.delete(name):
                deleted.add(name)

    pace = Pace(period_seconds=0.0, pause_seconds=0.0, step=STEP)
    keeping = asyncio.create_task(
        RetentionLoop(provider, RetentionPolicy.parse(["*=7d"]), Archive(tmp_path), pace).run()
    )
    try:
        await asyncio.gather(*(write(random.Random(n)) for n in range(4)), delete(random.Random(9)))
        async with asyncio.timeout(60):
            while await left(dms_repository):
                await asyncio.sleep(0.02)
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
    last = {line["task_id"]: line for line in archived(tmp_path)}
    for name in set(names) - deleted:
        assert len(last[name]["logs"]) == written[name], name


@contextmanager
def wrong_clock(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> Generator[None]:
    """This process's clock, as our code reads it, is wrong."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + by

    with monkeypatch.context() as patched:
        patched.setattr("task_state.timezone.datetime", Wrong)
        assert abs(now() - datetime.now(UTC)) > abs(by) / 2
        yield


@pytest.mark.parametrize("days", [-3650, 3650])
async def test_ages_are_counted_by_the_clock_that_the_tasks_ended_by(
    provider: RedisRepositoryProvider,
    dms_repository: RedisTaskRepository,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
) -> None:
    await dms_repository.save(ended("old"))
    fresh = TaskRecord(task_id="fresh", service="sync", user_id="a", status=TaskStatus.COMPLETED)
    await dms_repository.save(fresh)
    keeping = RetentionLoop(provider, RetentionPolicy.parse(["*=7d"]), None)
    with wrong_clock(monkeypatch, timedelta(days=days)):
        assert await keeping.round() == 1
    assert [task.task_id for task in await dms_repository.list_all()] == ["fresh"]
