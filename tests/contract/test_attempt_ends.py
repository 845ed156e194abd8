"""Each way an attempt can end, on a real worker, in a child process and inline: what the record
says, what the history says, and what the next attempt finds."""

from collections.abc import AsyncGenerator, Generator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from task_state import TaskRecord, TaskStatus
from tests.contract.servers import running
from tests.support.worker_process import Client, WorkerProcess, eventually, messages

BOTH = pytest.mark.parametrize("where", ["", "-inline"], ids=["process", "inline"])


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    """A server of this module's own: its worker lives as long as the module."""
    with running("valkey") as server:
        yield server.url


@pytest.fixture(scope="module")
def worker(url: str) -> Generator[WorkerProcess]:
    settings = {"DMS_HEARTBEAT_SECONDS": "1", "DMS_CANCEL_GRACE_SECONDS": "1"}
    with WorkerProcess(url, settings) as process:
        yield process


@pytest.fixture
async def client(url: str, worker: WorkerProcess) -> AsyncGenerator[Client]:
    async with Client(url) as made:
        yield made


async def run(client: Client, service: str, **parameters: Any) -> TaskRecord:
    """Submit a task and wait for its end."""
    return await client.ended(await client.submit(service, **parameters))


def notes(record: TaskRecord) -> list[tuple[int, int, str]]:
    """Epoch, attempt and outcome of each note in the history."""
    return [(note.epoch, note.attempt, note.outcome) for note in record.history]


def said_at(record: TaskRecord, words: str) -> datetime:
    """When a log line that has these words was written."""
    (line,) = (line for line in record.logs if words in line)
    return datetime.fromisoformat(line.partition(",")[0])


@BOTH
async def test_an_exception_is_logged_without_secrets_and_kept_in_the_history(
    client: Client, where: str
) -> None:
    record = await run(client, f"e.fail{where}", password="hunter2")
    assert (record.status, record.attempts) == (TaskStatus.FAILED, 2)
    assert record.result.error == "ValueError: the password *** was wrong"
    assert notes(record) == [(1, 1, "failed"), (2, 2, "failed")]
    assert {note.reason for note in record.history} == {record.result.error}
    assert all(note.worker and note.ended_at.tzinfo for note in record.history)
    lines = messages(record)
    assert sum("Traceback" in line for line in lines) == 2
    assert any('raise ValueError(f"the password' in line for line in lines), "the frames"
    assert "hunter2" not in record.model_dump_json(exclude={"parameters"})


@BOTH
async def test_a_time_out_is_retried_and_named_so(
    client: Client, tmp_path: Path, where: str
) -> None:
    record = await run(client, f"e.timeout{where}", folder=str(tmp_path))
    assert (record.status, record.attempts) == (TaskStatus.FAILED, 2)
    assert notes(record) == [(1, 1, "timeout"), (2, 2, "timeout")]
    assert record.result.error == "the attempt was stopped after its limit of 0.3 s"
    assert (tmp_path / "cleaned.2").exists()


@BOTH
async def test_a_returned_success(client: Client, where: str) -> None:
    record = await run(client, f"e.answer-success{where}")
    assert (record.status, record.result.data) == (TaskStatus.COMPLETED, {"rows": 3})
    assert "all is well" in messages(record)
    assert record.history == []


@BOTH
@pytest.mark.parametrize(
    ("service", "error", "data"),
    [
        ("e.answer-failure", "it is full", {"left": 0}),
        ("e.permanent", "nothing to be done", {"paths": ["a", "b"]}),
        ("e.no-json", "the handler's result cannot be written as JSON", None),
    ],
)
async def test_a_final_failure_is_not_retried(
    client: Client, where: str, service: str, error: str, data: Any
) -> None:
    record = await run(client, f"{service}{where}")
    assert (record.status, record.attempts) == (TaskStatus.FAILED, 1)
    assert (record.result.error or "").startswith(error)
    assert record.result.data == data
    assert notes(record) == [(1, 1, "failed")]


@BOTH
@pytest.mark.parametrize("answer", [{"rows": 3}, {"status": "success", "data": {"rows": "3"}}])
async def test_a_result_that_fits_its_type(client: Client, where: str, answer: Any) -> None:
    record = await run(client, f"e.typed{where}", answer=answer)
    assert (record.status, record.result.data) == (TaskStatus.COMPLETED, {"rows": 3})


@BOTH
@pytest.mark.parametrize("answer", [None, {"rows": "many"}, {"status": "success", "data": [1]}])
async def test_a_result_that_does_not_fit_ends_the_task(
    client: Client, where: str, answer: Any
) -> None:
    record = await run(client, f"e.typed{where}", answer=answer)
    assert (record.status, record.attempts) == (TaskStatus.FAILED, 1)
    assert (record.result.error or "").startswith("the handler's result does not fit")
    assert record.result.data is None


@BOTH
async def test_parameters_that_do_not_fit_end_the_task_before_the_handler(
    client: Client, where: str
) -> None:
    record = await run(client, f"e.add{where}", first="many")
    assert (record.status, record.attempts) == (TaskStatus.FAILED, 1)
    assert (record.result.error or "").startswith("the parameters do not fit 'e.add")
    assert not any("adding" in line for line in messages(record))
    assert notes(record) == [(1, 1, "failed")]


@BOTH
async def test_the_handlers_own_delay_is_kept(client: Client, where: str) -> None:
    """Its definition would wait for an hour; too soon would be wrong too."""
    record = await run(client, f"e.later{where}", delay=0.7)
    assert (record.status, record.result.data) == (TaskStatus.COMPLETED, 2)
    assert record.history[0].reason == "busy"
    failed = said_at(record, "Attempt 1 of 3 failed: busy; the next in 0.7 s")
    assert said_at(record, "epoch 2") - failed >= timedelta(seconds=0.7)


@BOTH
async def test_waiting_uses_up_no_attempt_and_is_no_hot_loop(client: Client, where: str) -> None:
    record = await run(client, f"e.wait{where}", times=3)
    assert (record.status, record.result.data) == (TaskStatus.COMPLETED, [4, 1])
    assert (record.attempts, record.max_attempts) == (1, 1)
    assert notes(record) == [(3, 1, "released")]
    assert record.history[0].reason == "another is at work"
    waits = "Waits, looks again in 1.0 s: another is at work"
    assert sum(waits in line for line in record.logs) == 3
    assert said_at(record, "epoch 3") - said_at(record, "epoch 2") >= timedelta(seconds=1)


@BOTH
async def test_a_task_that_waits_can_be_cancelled(client: Client, where: str) -> None:
    task_id = await client.submit(f"e.wait{where}", times=10_000)

    async def waits() -> bool:
        return (await client.get(task_id)).history != []

    await eventually(waits, "the task waits")
    await client.cancel(task_id)
    record = await client.ended(task_id)
    assert (record.status, record.attempts <= 1) == (TaskStatus.CANCELLED, True)


@BOTH
async def test_a_cancelled_attempt(client: Client, tmp_path: Path, where: str) -> None:
    task_id = await client.submit(f"e.polite{where}", folder=str(tmp_path))
    await eventually((tmp_path / "started.1").exists, "the handler started")
    await client.cancel(task_id)
    record = await client.ended(task_id)
    assert record.status is TaskStatus.CANCELLED
    assert [(note.outcome, note.reason) for note in record.history] == [
        ("cancelled", "the task was cancelled")
    ]


@BOTH
async def test_a_handler_can_ask_whether_it_is_cancelled(
    client: Client, tmp_path: Path, where: str
) -> None:
    """It had finished by the time it was to be stopped: that is a success."""
    task_id = await client.submit(f"e.until-cancelled{where}", folder=str(tmp_path))
    await eventually((tmp_path / "started.1").exists, "the handler started")
    await client.cancel(task_id)
    assert (await client.ended(task_id)).status is TaskStatus.COMPLETED


@BOTH
@pytest.mark.parametrize("service", ["e.resume", "e.resume-threads", "e.resume-async"])
async def test_the_next_attempt_reads_the_checkpoint(
    client: Client, where: str, service: str
) -> None:
    record = await run(client, f"{service}{where}", then="raise")
    assert record.status is TaskStatus.COMPLETED
    assert record.result.data["resumed"]["done"] == 100
    assert record.checkpoint is None, "it is dropped at the end"
    assert notes(record) == [(1, 1, "failed")]


async def test_a_child_that_is_killed_loses_no_checkpoint_that_it_had_said(client: Client) -> None:
    record = await run(client, "e.resume", then="die")
    assert record.result.data == {"resumed": {"done": 100, "이름": [1]}, "epoch": 2}
    assert "killed by signal 9" in record.history[0].reason


async def test_a_time_out_keeps_the_checkpoint(client: Client) -> None:
    record = await run(client, "e.resume-timeout", then="wait")
    assert record.result.data == {"resumed": {"done": 100, "이름": [1]}, "epoch": 2}
    assert notes(record) == [(1, 1, "timeout")]


@BOTH
async def test_a_checkpoint_does_not_outlive_a_success(client: Client, where: str) -> None:
    record = await run(client, f"e.resume{where}", then="return")
    assert (record.status, record.checkpoint) == (TaskStatus.COMPLETED, None)


@BOTH
async def test_a_checkpoint_that_is_too_large_is_an_error_in_the_handler(
    client: Client, where: str
) -> None:
    record = await run(client, f"e.save-too-much{where}")
    assert record.status is TaskStatus.FAILED
    assert (record.result.error or "").startswith("CheckpointError: the checkpoint is 70002 bytes")


@BOTH
async def test_progress_that_is_no_object_is_an_error_in_the_handler(
    client: Client, where: str
) -> None:
    record = await run(client, f"e.show-nonsense{where}")
    assert record.status is TaskStatus.COMPLETED
    told: list[str] = record.result.data
    assert [line[:22] for line in told] == ["progress() shows a JSO"] * 3 + [
        "the progress cannot be"
    ] * 2


@pytest.mark.parametrize("how", ["exit", "stop"])
async def test_an_inline_handler_cannot_end_its_worker(client: Client, how: str) -> None:
    record = await run(client, "e.end-the-loop", how=how)
    assert record.status is TaskStatus.FAILED
    assert record.result.error == "the handler left its process by sys.exit(9)"
    assert [note.outcome for note in record.history] == ["failed"]
