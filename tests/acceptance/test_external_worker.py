"""The example of a foreign project, as its README says to run it, against a real server."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from redis.asyncio import Redis

from task_state import TaskRecord, TaskStatus
from task_state.repository import RedisTaskRepository

FOLDER = Path(__file__).resolve().parents[2] / "examples/external_status_service"
DOCUMENTED_LOG = [
    "INFO:__main__:Registering task demo as RUNNING",
    "INFO:__main__:Marking task demo as COMPLETED",
]


def _console_script(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What pip's `external-status-worker` does: import the module `worker`, call its `main`."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; from worker import main; sys.exit(main())", *arguments],
        cwd=FOLDER,
        env=os.environ | {"DMS_REDIS_WRITE_URL": url, "PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("external_worker", FOLDER / "worker.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_it_runs_twice_in_a_row(
    dms_redis_url: str, dms_repository: RedisTaskRepository
) -> None:
    seen: list[TaskRecord] = []
    for _ in range(2):
        done = _console_script(dms_redis_url, "--seconds", "0")
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines() == DOCUMENTED_LOG
        record = await dms_repository.get("demo")
        assert record is not None
        seen.append(record)
    first, second = seen
    assert second.status is TaskStatus.COMPLETED
    assert not second.managed
    assert second.logs_total == first.logs_total, "the second run started with a new record"
    assert second.created_at > first.created_at
    assert second.result.launcher_output == "task demo worked for 0 s\n"


async def test_a_failure_is_published_and_the_connection_closed(
    worker: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    dms_redis_url: str,
    dms_repository: RedisTaskRepository,
) -> None:
    async def fail(task_id: str, seconds: float) -> None:
        raise RuntimeError(f"{task_id} broke after {seconds} s")

    monkeypatch.setenv("DMS_REDIS_WRITE_URL", dms_redis_url)
    monkeypatch.setattr(worker, "_simulate_work", fail)
    opened = _record_clients(monkeypatch)
    with pytest.raises(RuntimeError, match="demo broke"):
        await worker.run(seconds=0)
    record = await dms_repository.get("demo")
    assert record is not None
    assert record.status is TaskStatus.FAILED
    assert record.result.error == "demo broke after 0 s"
    assert opened
    assert not any(_is_connected(client) for client in opened)


def _record_clients(monkeypatch: pytest.MonkeyPatch) -> list[Redis]:
    opened: list[Redis] = []
    build: Callable[..., Redis] = Redis.from_url  # pyright: ignore[reportUnknownVariableType]

    def record(*args: object, **kwargs: object) -> Redis:
        opened.append(build(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr("task_state.redis.Redis.from_url", record)
    return opened


def _is_connected(client: Redis) -> bool:
    pool = client.connection_pool
    connections = [*pool._available_connections, *pool._in_use_connections]
    return any(connection.is_connected for connection in connections)


def test_without_a_url_it_says_what_to_set() -> None:
    done = _console_script("")
    assert done.returncode != 0
    assert "DMS_REDIS_WRITE_URL is not set" in done.stderr
