"""What a worker promises about one task, on a real worker process and a real server."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

from dms_scheduler.engine import Call
from task_state import TaskRecord, TaskStatus
from tests.contract.servers import running
from tests.support.worker_process import Client, WorkerProcess, eventually, messages


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    """A server of this module's own: its worker lives as long as the module."""
    with running("valkey") as server:
        yield server.url


@pytest.fixture(scope="module")
def worker(url: str) -> Generator[WorkerProcess]:
    settings = {
        "DMS_HEARTBEAT_SECONDS": "1",
        "DMS_CANCEL_GRACE_SECONDS": "1",
        "DMS_OUTPUT_BYTES": "20000",
        "DMS_CHILD_MEMORY_BYTES": str(400 * 1024 * 1024),
    }
    with WorkerProcess(url, settings) as process:
        yield process


@pytest.fixture
async def client(url: str, worker: WorkerProcess) -> AsyncGenerator[Client]:
    async with Client(url) as made:
        yield made


async def run(client: Client, service: str, **parameters: Any) -> TaskRecord:
    """Submit a task and wait for its end."""
    return await client.ended(await client.submit(service, **parameters))


@pytest.mark.parametrize("service", ["t.add", "t.add-inline", "t.add-async-child"])
async def test_a_task_runs_and_completes(
    client: Client, worker: WorkerProcess, service: str
) -> None:
    record = await run(client, service, first="40")
    assert record.status is TaskStatus.COMPLETED
    assert record.result.data["sum"] == 42
    assert (record.result.data["pid"] == worker.pid) == (service == "t.add-inline")
    assert (record.attempts, record.epoch) == (1, 1)
    assert record.started_at is not None
    assert record.completed_at is not None
    first, *_, last = messages(record)
    assert first.startswith("Started by worker ")
    assert last.startswith("Completed in ")


async def test_log_and_progress_reach_the_record(client: Client) -> None:
    record = await run(client, "t.add", first=1)
    assert any(line.startswith("adding in process") for line in messages(record))
    assert record.progress == {"phase": "add", "done": 1}


async def test_parameters_that_do_not_fit_fail_at_once(client: Client) -> None:
    record = await run(client, "t.add", first="many", color="red")
    assert record.status is TaskStatus.FAILED
    assert record.attempts == 1
    assert "first" in (record.result.error or "")
    assert "color" in (record.result.error or "")


async def test_an_unknown_service_fails_with_what_is_known(client: Client) -> None:
    record = await run(client, "t.unknown")
    assert record.status is TaskStatus.FAILED
    assert "t.unknown" in (record.result.error or "")
    assert "t.add" in (record.result.error or "")


async def test_an_exception_is_retried_then_fails_with_its_traceback_masked(
    client: Client,
) -> None:
    record = await run(client, "t.fail", password="hunter2")
    assert record.status is TaskStatus.FAILED
    assert (record.attempts, record.max_attempts) == (2, 2)
    assert record.result.error == "ValueError: the password *** was wrong"
    lines = messages(record)
    assert any("Traceback" in line for line in lines)
    assert any(line.startswith("Attempt 1 of 2 failed") for line in lines)
    assert "hunter2" not in "".join(lines)


async def test_a_retry_can_succeed(client: Client) -> None:
    record = await run(client, "t.fail-until", attempt=3)
    assert record.status is TaskStatus.COMPLETED
    assert record.result.data == {"attempts": 3, "epoch": 3}
    assert record.result.error is None


@pytest.mark.parametrize(
    ("service", "error", "data"),
    [
        ("t.fail-for-good", "nothing to be done", {"paths": ["a", "b"]}),
        ("t.answer-failure", "it is full", {"left": 0}),
    ],
)
async def test_a_final_failure_keeps_its_data(
    client: Client, service: str, error: str, data: dict[str, Any]
) -> None:
    record = await run(client, service)
    assert (record.status, record.attempts) == (TaskStatus.FAILED, 1)
    assert (record.result.error, record.result.data) == (error, data)


async def test_a_result_that_is_no_json_is_a_clear_failure(client: Client) -> None:
    record = await run(client, "t.no-json")
    assert record.status is TaskStatus.FAILED
    assert "cannot be written as JSON" in (record.result.error or "")


async def test_a_time_out_ends_the_attempt(client: Client, tmp_path: Path) -> None:
    record = await run(client, "t.timeout", folder=str(tmp_path))
    assert record.status is TaskStatus.FAILED
    assert record.result.error == "the attempt was stopped after its limit of 0.3 s"
    assert (tmp_path / "cleaned.1").exists()


@pytest.mark.parametrize("service", ["t.polite", "t.polite-inline"])
async def test_a_cancelled_handler_cleans_up_first(
    client: Client, tmp_path: Path, service: str
) -> None:
    task_id = await client.submit(service, folder=str(tmp_path))
    await eventually((tmp_path / "started.1").exists, "the handler started")
    await client.cancel(task_id)
    record = await client.ended(task_id)
    assert record.status is TaskStatus.CANCELLED
    assert (tmp_path / "cleaned.1").exists()


async def test_the_record_alone_is_enough_to_cancel(client: Client, tmp_path: Path) -> None:
    """The engine's signal can be lost: the next heartbeat brings the request."""
    task_id = await client.submit("t.polite", folder=str(tmp_path))
    await eventually((tmp_path / "started.1").exists, "the handler started")
    await client.managed.cancel(task_id)
    assert (await client.ended(task_id)).status is TaskStatus.CANCELLED


async def test_a_handler_that_ignores_cancel_is_killed_with_its_group(
    client: Client, tmp_path: Path
) -> None:
    task_id = await client.submit("t.stubborn", folder=str(tmp_path))
    note = tmp_path / "grandchild.1"
    await eventually(note.exists, "the handler started")
    await client.cancel(task_id)
    record = await client.ended(task_id)
    assert record.status is TaskStatus.CANCELLED
    assert not Path(f"/proc/{note.read_text()}").exists() or _is_zombie(int(note.read_text()))
    assert "The handler did not stop within 1 s of being asked" in messages(record)


@pytest.mark.parametrize(
    ("service", "error"),
    [
        ("t.die", "the child process was killed by signal 9 SIGKILL (out of memory?)"),
        ("t.leave", "the child process left with exit code 7 in the middle of the task"),
        ("t.memory", "MemoryError: the task needed more memory than DMS_CHILD_MEMORY_BYTES allows"),
    ],
)
async def test_the_death_of_a_child_is_a_failed_attempt(
    client: Client, service: str, error: str
) -> None:
    record = await run(client, service)
    assert record.status is TaskStatus.FAILED
    assert (record.result.error or "").startswith(error)
    after = await run(client, "t.add", first=1)
    assert after.status is TaskStatus.COMPLETED


async def test_output_is_kept_up_to_its_limit(client: Client) -> None:
    record = await run(client, "t.print", bytes=50_000_000)
    assert record.status is TaskStatus.COMPLETED
    output = await client.repository.get_launcher_output(record.task_id)
    assert output.count("x") == 20_000
    assert output.endswith("[output truncated here: it reached 20000 bytes]\n")


async def test_every_log_line_is_there_in_order(client: Client) -> None:
    record = await run(client, "t.log", lines=3000)
    page = await client.repository.get_logs(record.task_id, limit=1000)
    lines = [line.partition(",")[2] for line in page.lines]
    assert lines[1:] == [f"line {number}" for number in range(999)]
    assert record.logs_total == 3002


async def test_any_bytes_survive(client: Client) -> None:
    record = await run(client, "t.odd")
    assert record.status is TaskStatus.COMPLETED
    assert record.result.data == {"name": "\\udcff\\udcfe", "korean": "데이터"}
    assert "파일 \\udcff\\udcfe" in messages(record)
    assert record.progress == {"current": "\\udcff\\udcfe"}
    assert await client.repository.get_launcher_output(record.task_id) == "출력 \\xff\n"


async def test_the_same_call_twice_runs_once(client: Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    task_id = await client.submit("t.until-file", file=str(go), folder=str(tmp_path))
    await client.running(task_id)
    await client.engine.enqueue_many([Call(task_id, 1)])  # docket knows it: dropped there
    await client.engine.enqueue_many([Call(task_id, 2)])  # not the record's turn: dropped by begin
    await client.engine.enqueue_many([], replace=True)
    go.touch()
    record = await client.ended(task_id)
    assert (record.status, record.attempts, record.epoch) == (TaskStatus.COMPLETED, 1, 1)
    await client.engine.enqueue_many([Call(task_id, 1)])
    after = await run(client, "t.add", first=1)
    assert after.status is TaskStatus.COMPLETED
    assert (await client.get(task_id)).revision == record.revision


async def test_a_cancelled_waiting_task_never_runs(client: Client, tmp_path: Path) -> None:
    task = await client.managed.submit(
        service="t.polite", user_id="hong", parameters={"folder": str(tmp_path)}
    )
    await client.managed.cancel(task.task_id)
    await client.engine.enqueue_many([Call(task.task_id, 1)])
    await run(client, "t.add", first=1)
    assert (await client.get(task.task_id)).status is TaskStatus.CANCELLED
    assert not (tmp_path / "started.1").exists()


async def test_many_tasks_at_once_all_complete(client: Client) -> None:
    services = ["t.add", "t.add-inline"] * 20
    ids = await asyncio.gather(*(client.submit(service, first=1) for service in services))
    records = await asyncio.gather(*(client.ended(task_id) for task_id in ids))
    assert {record.status for record in records} == {TaskStatus.COMPLETED}
    assert {record.attempts for record in records} == {1}


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
