"""The blocks of the document on `task_state` run verbatim, against a real server."""

import ast
import asyncio
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Awaitable
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from redis import Redis

from task_state import TaskResult, TaskStatus, keys
from task_state.publisher import TaskStatusPublisher
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository, format_log_entry

QUICKSTART = """\
from task_state import TaskRecord, TaskStatus
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings

settings = RedisRepositorySettings.from_env()
provider = RedisRepositoryProvider(settings)
repository = await provider.get_repository()

# Register a task
await repository.save(
    TaskRecord(task_id="external-1", service="analytics", user_id="alice", status=TaskStatus.PENDING)
)

# Push status updates and logs
await repository.set_status("external-1", TaskStatus.RUNNING, log_entry="worker started")
await repository.append_log("external-1", "processed input payload")
await repository.update_result(
    "external-1",
    pod_status="phase=Running",  # stringified pod status snapshot
    launcher_output="streamed stdout/stderr",
)
await repository.set_status("external-1", TaskStatus.COMPLETED, log_entry="worker finished")

await provider.close()
"""  # noqa: E501  (verbatim)
LOG_LINE = "2025-11-17T10:00:16.515926+09:00,worker started"


@pytest.fixture(autouse=True)
def environment(dms_redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the document says to set; all else has its default."""
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", dms_redis_url)
    for name in ("DMS_REDIS_READ_URL", "DMS_REDIS_TASK_TTL_SECONDS", "DMS_TIMEZONE"):
        monkeypatch.delenv(name, raising=False)


async def run_block(block: str) -> dict[str, Any]:
    """Run a block of code that awaits at its top level, and return its names."""
    names: dict[str, Any] = {}
    code = compile(block, "<document>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await cast("Awaitable[None]", eval(code, names))
    return names


async def test_the_quickstart(dms_repository: RedisTaskRepository) -> None:
    await run_block(QUICKSTART)
    task = await dms_repository.get("external-1")
    assert task is not None
    assert task.status is TaskStatus.COMPLETED
    assert (task.service, task.user_id, task.jobs) == ("analytics", "alice", [])
    assert task.result == TaskResult(
        pod_status="phase=Running", launcher_output="streamed stdout/stderr"
    )
    messages = [line.partition(",")[2] for line in task.logs]
    assert messages == ["worker started", "processed input payload", "worker finished"]
    assert not task.managed, "the program that saved it runs it, DMS does not"


async def test_the_quickstart_runs_twice_in_a_row(dms_repository: RedisTaskRepository) -> None:
    for _ in range(2):
        await run_block(QUICKSTART)
    task = await dms_repository.get("external-1")
    assert task is not None
    assert task.logs_total == 3, "the ended record was replaced"


def test_the_quickstart_as_a_program(dms_redis_url: str) -> None:
    body = textwrap.indent(QUICKSTART, "    ")
    program = f"import asyncio\nasync def main():\n{body}\nasyncio.run(main())\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"DMS_REDIS_WRITE_URL": dms_redis_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_ttls_and_indexes_are_refreshed(dms_redis_url: str) -> None:
    await run_block(QUICKSTART)
    with Redis.from_url(dms_redis_url) as client:
        assert client.ttl(keys.task("external-1")) >= 7_776_000
        assert client.hgetall(keys.users("analytics")) == {b"alice": b"1"}


def test_defaults_of_the_configuration(dms_redis_url: str) -> None:
    settings = RedisRepositorySettings.from_env()
    assert settings.write_url == settings.read_url == dms_redis_url
    assert settings.task_ttl_seconds == 7776000
    by_hand = RedisRepositorySettings(write_url="redis://a", read_url="redis://b")
    assert by_hand.task_ttl_seconds == 7776000


def test_log_entries_have_the_documents_form() -> None:
    entry = format_log_entry("worker started")
    digits = re.compile(r"\d")
    assert digits.sub("0", entry) == digits.sub("0", LOG_LINE)


async def test_update_result_is_additive(dms_repository: RedisTaskRepository) -> None:
    await run_block(QUICKSTART)
    writes = [
        dms_repository.update_result("external-1", pod_status='{"phase": "Succeeded"}'),
        dms_repository.update_result("external-1", launcher_output=", more"),
    ]
    await asyncio.gather(*writes)
    task = await dms_repository.get("external-1")
    assert task is not None
    assert task.result.pod_status == '{"phase": "Succeeded"}'
    assert task.result.launcher_output == "streamed stdout/stderr, more"


async def test_jobs_are_filled_when_the_scheduler_answers(
    dms_repository: RedisTaskRepository,
) -> None:
    await run_block(QUICKSTART)
    task = await dms_repository.get("external-1")
    assert task is not None
    task.jobs = ["slurm-17"]
    await dms_repository.save(task)
    task = await dms_repository.get("external-1")
    assert task is not None
    assert task.jobs == ["slurm-17"]


def test_task_state_imports_nothing_internal() -> None:
    program = (
        "import sys, task_state, task_state.publisher, task_state.redis\n"
        "import task_state.repository, task_state.timezone\n"
        "print(*sorted({'app', 'cli', 'dms_scheduler', 'fastapi', 'docket'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "\n"


async def test_the_publisher_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's way to stub: the clients are patched, and closed with the provider."""
    made = [AsyncMock(), AsyncMock()]
    monkeypatch.setattr("task_state.redis.Redis.from_url", Mock(side_effect=made))
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url="redis://nowhere"))
    TaskStatusPublisher(provider)
    await provider.get_repository()
    await provider.close()
    for client in made:
        client.ping.assert_awaited_once()
        client.aclose.assert_awaited_once()
