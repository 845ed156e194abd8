"""Tasks that attack their worker, on a real worker process: each ends as docs/tasks.md says, and
the worker goes on."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

from dms_scheduler.children.tree import parent_of
from task_state import TaskRecord, TaskStatus
from task_state.models import MAX_CHECKPOINT_BYTES
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
    settings = {
        "DMS_TASK_MODULES": "tests.support.handlers,tests.support.attacks",
        "DMS_HEARTBEAT_SECONDS": "1",
        "DMS_CANCEL_GRACE_SECONDS": "1",
    }
    with WorkerProcess(url, settings) as process:
        yield process


@pytest.fixture
async def client(url: str, worker: WorkerProcess) -> AsyncGenerator[Client]:
    async with Client(url) as made:
        yield made
        assert worker.process.poll() is None, "the worker goes on"


async def run(client: Client, service: str, **parameters: Any) -> TaskRecord:
    """Submit a task and wait for its end."""
    return await client.ended(await client.submit(service, **parameters))


def lives(pid: int) -> bool:
    """Whether such a process is left, zombies aside."""
    return parent_of(pid) is not None


async def test_no_daemon_is_left_when_the_record_says_completed(
    client: Client, tmp_path: Path
) -> None:
    record = await run(client, "a.daemon", folder=str(tmp_path))
    assert record.status is TaskStatus.COMPLETED
    assert not lives(record.result.data["daemon"])
    assert (tmp_path / "daemon.term").exists(), "it was asked first"
    after = await run(client, "t.add", first=1)
    assert after.status is TaskStatus.COMPLETED


@pytest.mark.parametrize(
    ("then", "error"),
    [("raise", "ValueError: boom"), ("die", "the child process was killed by signal 9 SIGKILL")],
)
async def test_no_daemon_is_left_when_the_record_says_failed(
    client: Client, tmp_path: Path, then: str, error: str
) -> None:
    record = await run(client, "a.daemon", folder=str(tmp_path), then=then, on_term="keep")
    assert record.status is TaskStatus.FAILED
    assert (record.result.error or "").startswith(error)
    assert not lives(int((tmp_path / "daemon.pid").read_text()))


@pytest.mark.parametrize("then", ["check", "hang"])
async def test_no_daemon_is_left_when_the_record_says_cancelled(
    client: Client, tmp_path: Path, then: str
) -> None:
    task_id = await client.submit("a.daemon", folder=str(tmp_path), then=then, on_term="keep")
    await eventually((tmp_path / "daemon.pid").exists, "the daemon runs")
    await client.cancel(task_id)
    assert (await client.ended(task_id)).status is TaskStatus.CANCELLED
    assert not lives(int((tmp_path / "daemon.pid").read_text()))
    assert (tmp_path / "daemon.term").exists(), "it was asked first"


async def test_no_daemon_is_left_after_a_time_out(client: Client, tmp_path: Path) -> None:
    record = await run(client, "a.hang", folder=str(tmp_path), then="hang", on_term="keep")
    assert record.result.error == "the attempt was stopped after its limit of 0.3 s"
    for note in tmp_path.glob("daemon.pid"):  # it may have been stopped before there was one
        assert not lives(int(note.read_text()))


@pytest.mark.parametrize("service", ["a.raise-inline", "a.raise-in-the-loop"])
@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("SystemExit", "the handler left its process by sys.exit(3)"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("GeneratorExit", "GeneratorExit"),
        ("StopIteration", None),
        ("no words", "Unspeakable: (its message cannot be shown"),
        ("worse than no words", "Unprintable: (its message cannot be shown"),
        ("CancelledError", "the handler stopped as if cancelled, but nobody asked it to"),
        ("recursion", "RecursionError: maximum recursion depth exceeded"),
    ],
)
async def test_whatever_an_inline_handler_raises_is_its_own_failure(
    client: Client, service: str, what: str, error: str | None
) -> None:
    record = await run(client, service, what=what)
    assert record.status is TaskStatus.FAILED
    assert (record.result.error or "").startswith(error or "")
    assert [note.outcome for note in record.history] == ["failed"]


@BOTH
@pytest.mark.parametrize("what", ["NaN", "recursive", "deep", "bytes", "huge", "socket"])
async def test_whatever_is_returned_that_is_no_result_fails_at_once(
    client: Client, what: str, where: str
) -> None:
    record = await run(client, f"a.return{where}", what=what)
    assert (record.status, record.attempts) == (TaskStatus.FAILED, 1)
    assert (record.result.error or "").startswith("the handler's result ")


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("text", "the child's words make no sense"),
        ("a wrong end", "the child's words make no sense"),
        ("progress of numbers", "the child's words make no sense"),
    ],
)
async def test_nonsense_in_the_channel_is_a_failed_attempt(
    client: Client, what: str, error: str
) -> None:
    record = await run(client, "a.nonsense", what=what, seconds=3600)
    assert record.status is TaskStatus.FAILED
    assert (record.result.error or "").startswith(error)


async def test_a_closed_channel_is_a_failed_attempt(client: Client, tmp_path: Path) -> None:
    record = await run(client, "a.close-all", folder=str(tmp_path))
    assert record.status is TaskStatus.FAILED
    assert "descriptors that it has opened" in (record.result.error or "")


@BOTH
async def test_progress_that_is_too_large_ends_no_good_task(client: Client, where: str) -> None:
    record = await run(client, f"a.show-much{where}", characters=20_000)
    assert record.status is TaskStatus.COMPLETED
    assert record.progress == {"phase": "before"}
    told = [line for line in messages(record) if line.startswith("Progress of ")]
    assert len(told) == 1
    assert "only up to 16384" in told[0]


@BOTH
async def test_a_line_of_any_length_is_cut_with_a_mark(client: Client, where: str) -> None:
    record = await run(client, f"a.novel{where}")
    assert record.status is TaskStatus.COMPLETED
    (line,) = (line for line in messages(record) if line.startswith("xxx"))
    assert line == "x" * 16_384 + "... [line cut here]"


@BOTH
async def test_a_checkpoint_of_the_largest_size_is_kept(client: Client, where: str) -> None:
    record = await run(client, f"a.edge{where}", bytes=MAX_CHECKPOINT_BYTES)
    assert record.status is TaskStatus.COMPLETED
    assert len(json.dumps(record.result.data, ensure_ascii=False).encode()) == MAX_CHECKPOINT_BYTES


@BOTH
async def test_a_checkpoint_of_one_byte_more_is_refused_in_the_handler(
    client: Client, where: str
) -> None:
    record = await run(client, f"a.edge{where}", bytes=MAX_CHECKPOINT_BYTES + 1)
    assert record.result.data is None, "the second attempt found none"
    assert record.history[0].reason.startswith("CheckpointError: the checkpoint is 65537 bytes")


@BOTH
async def test_of_checkpoints_of_many_threads_the_last_one_is_found(
    client: Client, where: str
) -> None:
    record = await run(client, f"a.save-threads{where}")
    assert record.status is TaskStatus.COMPLETED
    said = record.history[0].reason.removeprefix("ValueError: ")
    assert record.result.data == {"found": json.loads(said)}


async def test_a_handler_that_swallows_its_cancellation_is_killed_in_a_child(
    client: Client, tmp_path: Path
) -> None:
    task_id = await client.submit("a.swallow-in-child", folder=str(tmp_path))
    await eventually((tmp_path / "started").exists, "the handler started")
    await client.cancel(task_id)
    assert (await client.ended(task_id)).status is TaskStatus.CANCELLED


async def test_an_inline_handler_that_swallows_its_cancellation_ends_by_itself(
    client: Client, tmp_path: Path
) -> None:
    """It cannot be killed; what it did in the end counts, and other tasks go on beside it."""
    task_id = await client.submit("a.swallow", folder=str(tmp_path))
    await eventually((tmp_path / "started").exists, "the handler started")
    await client.cancel(task_id)
    await client.until(task_id, lambda record: "did not stop within" in str(messages(record)))
    assert (await run(client, "t.add", first=1)).status is TaskStatus.COMPLETED
    assert (await client.get(task_id)).status is TaskStatus.CANCEL_REQUESTED
    (tmp_path / "enough").touch()
    record = await client.ended(task_id)
    assert (record.status, record.result.data) == (TaskStatus.COMPLETED, "ended by itself")


async def test_a_task_whose_retry_waits_is_cancelled_at_once(client: Client) -> None:
    task_id = await client.submit("a.slow-retry", what="again")
    await client.until(task_id, lambda record: bool(record.history))
    await client.cancel(task_id)
    record = await client.get(task_id)
    assert (record.status, record.attempts, record.epoch) == (TaskStatus.CANCELLED, 1, 1)


async def test_a_cancel_and_a_time_out_at_once_are_one_end(client: Client, tmp_path: Path) -> None:
    ids = [await client.submit("t.timeout", folder=str(tmp_path)) for _ in range(4)]
    await asyncio.gather(*(client.running(each) for each in ids[:1]))
    await asyncio.gather(*(client.cancel(each) for each in ids))
    for record in await asyncio.gather(*(client.ended(each) for each in ids)):
        outcomes = [note.outcome for note in record.history]
        assert (record.status, outcomes) in [
            (TaskStatus.CANCELLED, ["cancelled"]),
            (TaskStatus.CANCELLED, []),  # before it began
            (TaskStatus.FAILED, ["timeout"]),
        ]


async def test_a_stopped_child_is_killed_all_the_same(client: Client, tmp_path: Path) -> None:
    task_id = await client.submit("t.until-file", file="/nowhere/x", folder=str(tmp_path))
    await eventually((tmp_path / "started.1").exists, "the handler started")
    child = int((tmp_path / "started.1").read_text())
    os.kill(child, signal.SIGSTOP)
    await client.cancel(task_id)
    assert (await client.ended(task_id)).status is TaskStatus.CANCELLED
    assert not lives(child)


async def test_a_task_that_is_deleted_while_it_runs_is_stopped_and_gone(
    client: Client, tmp_path: Path
) -> None:
    task_id = await client.submit("t.polite", folder=str(tmp_path))
    await eventually((tmp_path / "started.1").exists, "the handler started")
    await client.managed.cancel(task_id, delete=True)

    async def gone() -> bool:
        return await client.repository.get(task_id) is None

    await eventually(gone, "the record is gone")
    await eventually((tmp_path / "cleaned.1").exists, "the handler cleaned up")


async def test_a_record_that_vanishes_under_its_attempt_stops_it(
    client: Client, tmp_path: Path
) -> None:
    """Nobody asked the task to end: the store has lost it, so its handler is killed at once."""
    task_id = await client.submit("t.until-file", file="/nowhere/x", folder=str(tmp_path))
    await eventually((tmp_path / "started.1").exists, "the handler started")
    child = int((tmp_path / "started.1").read_text())
    await client.repository.delete(task_id)
    await eventually(lambda: not lives(child), "the handler was stopped")
    assert (await run(client, "t.add", first=1)).status is TaskStatus.COMPLETED
