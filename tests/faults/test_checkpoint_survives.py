"""What an attempt saved outlives its worker: killed, frozen out, or shut down; and Redis away."""

import os
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from task_state import TaskStatus
from tests.contract.servers import RealServer
from tests.support.worker_process import SHORT, Client, WorkerProcess, eventually

SAVED = {"done": 100, "이름": [1]}


@pytest.fixture
async def client(dms_redis_url: str) -> AsyncGenerator[Client]:
    async with Client(dms_redis_url) as made:
        yield made


@pytest.fixture
def server() -> Generator[RealServer]:
    """A server with its data on disk, to be killed and started again."""
    made = RealServer("valkey", "--appendonly", "yes", "--appendfsync", "always")
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("service", ["e.resume", "e.resume-inline"])
async def test_a_worker_that_is_killed_leaves_the_checkpoint_to_the_next(
    dms_redis_url: str, client: Client, service: str
) -> None:
    with WorkerProcess(dms_redis_url, SHORT) as first:
        task_id = await client.submit(service, then="wait")
        await client.until(task_id, lambda record: record.checkpoint == SAVED)
        first.send(signal.SIGKILL)
        with WorkerProcess(dms_redis_url, SHORT):
            record = await client.ended(task_id)
    assert record.status is TaskStatus.COMPLETED
    assert record.result.data == {"resumed": SAVED, "epoch": 2}
    assert [(note.epoch, note.attempt, note.outcome) for note in record.history] == [(1, 1, "lost")]
    assert record.attempts == 1


@pytest.mark.parametrize("service", ["e.resume", "e.resume-inline"])
async def test_a_worker_that_shuts_down_gives_the_checkpoint_on(
    dms_redis_url: str, client: Client, tmp_path: Path, service: str
) -> None:
    """The signal comes right after the last word: the release waits for what was said."""
    with WorkerProcess(dms_redis_url, SHORT) as first:
        task_id = await client.submit(service, then="wait", folder=str(tmp_path))
        await eventually((tmp_path / "started.1").exists, "the handler has saved")
        first.send(signal.SIGTERM)
        assert first.wait() == 0
    released = await client.get(task_id)
    assert (released.status, released.checkpoint) == (TaskStatus.PENDING, SAVED)
    with WorkerProcess(dms_redis_url, SHORT):
        record = await client.ended(task_id)
    assert record.result.data == {"resumed": SAVED, "epoch": 2}
    assert [note.outcome for note in record.history] == ["released"]


async def test_a_checkpoint_waits_for_a_redis_that_is_away(
    server: RealServer, tmp_path: Path
) -> None:
    """Saved while Redis was dead, by a child that is killed before Redis comes back."""
    lease = {**SHORT, "DMS_LEASE_SECONDS": "600"}
    with WorkerProcess(server.url, lease) as worker:
        async with Client(server.url) as client:
            task_id = await client.submit("e.save-late", folder=str(tmp_path))
            await eventually((tmp_path / "started.1").exists, "the handler started")
            server.kill()
            (tmp_path / "go").touch()
            await eventually((tmp_path / "saved.1").exists, "the handler has saved")
            os.kill(int((tmp_path / "saved.1").read_text()), signal.SIGKILL)
            await eventually(lambda: "is away" in worker.log(), "the outage was noticed")
            server.start()
        async with Client(server.url) as client:
            record = await client.ended(task_id)
    assert record.status is TaskStatus.COMPLETED
    assert record.result.data == "said in the dark"
