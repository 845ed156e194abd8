"""The blocks of the external status service's document run verbatim, against a real server."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Awaitable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from task_state import TaskRecord, TaskResult, TaskStatus
from task_state.publisher import TaskStatusPublisher
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository

FOLDER = Path(__file__).resolve().parents[2] / "examples/external_status_service"

CORE = """\
settings = RedisRepositorySettings.from_env()
provider = RedisRepositoryProvider(settings)
publisher = TaskStatusPublisher(provider)

# 새로운 작업 등록
await publisher.publish_start(
    TaskRecord(
        task_id=task_id,
        service=service,
        user_id=user_id,
        status=TaskStatus.PENDING,
    )
)

# 실제 작업 실행 후 완료 처리
result = await _simulate_work(task_id)
await publisher.publish_completion(task_id, result)
"""

CREATE_AND_LOG = """\
from task_state import TaskRecord, TaskStatus
from task_state.repository import format_log_entry
from task_state.timezone import now

# 새 작업 생성
record = TaskRecord(
    task_id="123",
    service="report",
    user_id="alice",
    status=TaskStatus.PENDING,
)

# 상태 갱신과 로그 추가
record.status = TaskStatus.RUNNING
record.updated_at = now()
record.logs.append(format_log_entry("Worker picked up the job"))
record.logs.append(format_log_entry("Streaming partial result"))
"""

SAVE_AND_CHANGE = """\
import asyncio
from task_state import TaskRecord, TaskStatus
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings

async def main() -> None:
    settings = RedisRepositorySettings.from_env()
    provider = RedisRepositoryProvider(settings)
    repo = await provider.get_repository()

    # ID 시퀀스에서 새 ID 발급 후 저장
    task_id = await repo.next_task_id()
    task = TaskRecord(
        task_id=task_id,
        service="etl",
        user_id="bob",
        status=TaskStatus.PENDING,
        parameters={"source": "s3"},
    )
    await repo.save(task)

    # 상태 변경과 로그 추가
    await repo.set_status(task_id, TaskStatus.RUNNING, log_entry="started")
    await repo.append_log(task_id, "halfway done")
    await repo.set_status(task_id, TaskStatus.COMPLETED, log_entry="finished")

    # 확인
    restored = await repo.get(task_id)
    print(restored.model_dump())

    await provider.close()

asyncio.run(main())
"""

DRY_RUN = """\
from task_state import TaskRecord, TaskStatus
from task_state.timezone import now

# 초기 상태
record = TaskRecord(
    task_id="dry-run",
    service="diagnostics",
    user_id="cli",
    status=TaskStatus.PENDING,
)

# Dispatch → Running → Completed 순서로 갱신
for status in (TaskStatus.DISPATCHING, TaskStatus.RUNNING, TaskStatus.COMPLETED):
    record.status = status
    record.updated_at = now()
    print(f"{record.task_id}: {record.status} at {record.updated_at}")
"""


def run_program(program: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"DMS_TIMEZONE": "Asia/Seoul"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


async def test_the_core_of_the_worker(
    dms_redis_url: str, dms_repository: RedisTaskRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMS_REDIS_WRITE_URL", dms_redis_url)

    async def simulate_work(task_id: str) -> TaskResult:
        found = await dms_repository.get(task_id)
        assert found is not None
        assert found.status is TaskStatus.RUNNING
        return TaskResult(pod_status="phase=Succeeded", data={"rows": 3})

    # What the block leaves undefined: the worker's own names.
    names: dict[str, Any] = {
        "RedisRepositoryProvider": RedisRepositoryProvider,
        "RedisRepositorySettings": RedisRepositorySettings,
        "TaskRecord": TaskRecord,
        "TaskStatus": TaskStatus,
        "TaskStatusPublisher": TaskStatusPublisher,
        "_simulate_work": simulate_work,
        "service": "external",
        "task_id": "demo",
        "user_id": "worker",
    }
    for _ in range(2):
        code = compile(CORE, "<document>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await cast("Awaitable[None]", eval(code, names))
        await names["provider"].close()
        found = await dms_repository.get("demo")
        assert found is not None
        assert found.status is TaskStatus.COMPLETED
        assert found.result == TaskResult(pod_status="phase=Succeeded", data={"rows": 3})


async def test_a_failure_is_published(dms_provider: RedisRepositoryProvider) -> None:
    publisher = TaskStatusPublisher(dms_provider)
    await publisher.publish_start(TaskRecord(task_id="demo", service="s", user_id="u"))
    await publisher.publish_progress("demo", "half", {"percent": 50})
    await publisher.publish_failure("demo", "왜\n그래", TaskResult(launcher_output="out"))
    found = await (await dms_provider.get_repository()).get("demo")
    assert found is not None
    assert found.status is TaskStatus.FAILED
    assert found.result == TaskResult(error="왜\n그래", launcher_output="out")
    assert found.progress == {"percent": 50}
    messages = [line.partition(",")[2] for line in found.logs]
    assert messages == ["Task started", "half", "Task failed: 왜\\n그래"]


def test_1_creating_a_record_and_adding_logs() -> None:
    names: dict[str, Any] = {}
    exec(CREATE_AND_LOG, names)
    record = names["record"]
    assert record.status is TaskStatus.RUNNING
    assert [line.partition(",")[2] for line in record.logs] == [
        "Worker picked up the job",
        "Streaming partial result",
    ]


async def test_1_is_then_saved_as_it_is(dms_repository: RedisTaskRepository) -> None:
    names: dict[str, Any] = {}
    exec(CREATE_AND_LOG, names)
    await dms_repository.save(names["record"])
    found = await dms_repository.get("123")
    assert found is not None
    assert found.logs == names["record"].logs


async def test_2_saving_reading_and_changing(
    dms_redis_url: str, dms_repository: RedisTaskRepository
) -> None:
    printed = run_program(SAVE_AND_CHANGE, {"DMS_REDIS_WRITE_URL": dms_redis_url})
    assert printed.startswith("{'task_id': '")
    assert "'status': <TaskStatus.COMPLETED: 'COMPLETED'>" in printed
    (task,) = await dms_repository.list_by_service_and_user("etl", "bob")
    assert task.parameters == {"source": "s3"}
    page = await dms_repository.get_logs(task.task_id)
    messages = [line.partition(",")[2] for line in page.lines]
    assert messages == ["started", "halfway done", "finished"]


def test_3_a_flow_in_memory_alone() -> None:
    printed = run_program(DRY_RUN, {"DMS_REDIS_WRITE_URL": ""}).splitlines()
    assert [line.split(" at ")[0] for line in printed] == [
        "dry-run: DISPATCHING",
        "dry-run: RUNNING",
        "dry-run: COMPLETED",
    ]
    for line in printed:
        assert datetime.fromisoformat(line.split(" at ")[1]).utcoffset() == timedelta(hours=9)


def test_the_folder_is_a_project_with_its_extra_and_command() -> None:
    assert (FOLDER / "worker.py").is_file()
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text("utf-8"))["project"]
    assert "local" in project["optional-dependencies"]
    assert project["scripts"] == {"external-status-worker": "worker:main"}
    assert any(
        re.match(r"dms-frontend\b", item) for item in project["optional-dependencies"]["local"]
    )
