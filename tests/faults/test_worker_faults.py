"""Workers, children and servers that die, freeze or leave in the middle of a task."""

import os
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from redis import Redis

from task_state import TaskStatus
from tests.contract.servers import RealServer
from tests.support.worker_process import SHORT, Client, WorkerProcess, eventually, messages


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


def has_step(file: Path, number: int = 0) -> bool:
    """Whether the handler `t.steps` has done this step."""
    return file.exists() and len(file.read_text().splitlines()) > number


async def test_a_killed_workers_task_is_finished_by_another(
    dms_redis_url: str, client: Client, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with WorkerProcess(dms_redis_url, SHORT) as first:
        task_id = await client.submit("t.until-file", file=str(go), folder=str(tmp_path))
        await eventually((tmp_path / "started.1").exists, "the first attempt started")
        child = int((tmp_path / "started.1").read_text())
        first.send(signal.SIGKILL)
        await eventually(lambda: not Path(f"/proc/{child}").exists(), "the child died with it")
        with WorkerProcess(dms_redis_url, SHORT):
            await eventually((tmp_path / "started.2").exists, "the second attempt started")
            go.touch()
            record = await client.ended(task_id)
    assert record.status is TaskStatus.COMPLETED
    assert (record.epoch, record.attempts) == (2, 1)  # a lost worker is not counted
    assert any("was lost in attempt 1" in line for line in messages(record))


async def test_a_frozen_workers_handler_stops_before_its_next_step_and_its_writes_are_refused(
    dms_redis_url: str, client: Client, tmp_path: Path
) -> None:
    """Worker and child are stopped past the lease. The child goes on first and alone: its next
    check must raise, so the only step it may still do is one whose check had passed already."""
    target = tmp_path / "steps"
    with WorkerProcess(dms_redis_url, SHORT) as first:
        task_id = await client.submit("t.steps", file=str(target), folder=str(tmp_path), count=60)
        await eventually(lambda: has_step(target, 2), "the first attempt works")
        child = int((tmp_path / "started.1").read_text())
        first.send(signal.SIGSTOP)
        os.kill(child, signal.SIGSTOP)
        before = len(target.read_text().splitlines())
        with WorkerProcess(dms_redis_url, SHORT):
            await eventually((tmp_path / "started.2").exists, "the second attempt works")
            os.kill(child, signal.SIGCONT)
            await eventually((tmp_path / "ended.1").exists, "the stale handler stopped")
            stale = [line for line in target.read_text().splitlines() if line.startswith("1 ")]
            first.send(signal.SIGCONT)
            await eventually(lambda: "its writes are refused" in first.log(), "it was refused")
            record = await client.ended(task_id, 120)
        fenced = await client.managed.fenced_count()
    assert len(stale) <= before + 1
    assert (record.status, record.epoch) == (TaskStatus.COMPLETED, 2)
    assert fenced >= 1


async def test_a_stale_handler_that_hears_nothing_is_killed(
    dms_redis_url: str, client: Client, tmp_path: Path
) -> None:
    """Only the worker is frozen here: when it goes on, the fence tells it to kill its child."""
    with WorkerProcess(dms_redis_url, SHORT) as first:
        task_id = await client.submit("t.deaf", folder=str(tmp_path))
        await eventually((tmp_path / "started.1").exists, "the first attempt works")
        child = int((tmp_path / "started.1").read_text())
        first.send(signal.SIGSTOP)
        with WorkerProcess(dms_redis_url, SHORT):
            await eventually((tmp_path / "started.2").exists, "the second attempt works")
            first.send(signal.SIGCONT)
            await eventually(lambda: not Path(f"/proc/{child}").exists(), "the child is killed")
            record = await client.get(task_id)
            assert (record.status, record.epoch) == (TaskStatus.RUNNING, 2)


async def test_the_engines_signal_brings_a_cancel_before_the_next_heartbeat(
    dms_redis_url: str, client: Client, tmp_path: Path
) -> None:
    slow = {**SHORT, "DMS_LEASE_SECONDS": "3600", "DMS_HEARTBEAT_SECONDS": "1800"}
    with WorkerProcess(dms_redis_url, slow):
        task_id = await client.submit("t.polite-inline", folder=str(tmp_path))
        await eventually((tmp_path / "started.1").exists, "the attempt started")
        await client.cancel(task_id)
        assert (await client.ended(task_id)).status is TaskStatus.CANCELLED


async def test_a_term_gives_the_attempt_back_uncounted(
    dms_redis_url: str, client: Client, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with WorkerProcess(dms_redis_url, SHORT) as first:
        task_id = await client.submit("t.until-file", file=str(go), folder=str(tmp_path))
        await eventually((tmp_path / "started.1").exists, "the first attempt started")
        first.send(signal.SIGTERM)
        assert first.wait() == 0
    waiting = await client.get(task_id)
    assert (waiting.status, waiting.attempts) == (TaskStatus.PENDING, 0)
    with WorkerProcess(dms_redis_url, SHORT):
        await eventually((tmp_path / "started.2").exists, "the second attempt started")
        go.touch()
        record = await client.ended(task_id)
    assert record.status is TaskStatus.COMPLETED
    assert (record.epoch, record.attempts) == (2, 1)


async def test_a_draining_worker_lets_a_short_task_end(
    dms_redis_url: str, client: Client, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with WorkerProcess(dms_redis_url, {**SHORT, "DMS_DRAIN_SECONDS": "60"}) as worker:
        task_id = await client.submit("t.until-file", file=str(go), folder=str(tmp_path))
        await eventually((tmp_path / "started.1").exists, "the attempt started")
        worker.send(signal.SIGTERM)
        await eventually(lambda: "Signal received" in worker.log(), "the signal arrived")
        late = await client.submit("t.add", first=1)
        go.touch()
        assert worker.wait() == 0
    record = await client.get(task_id)
    assert (record.status, record.attempts, record.epoch) == (TaskStatus.COMPLETED, 1, 1)
    assert (await client.get(late)).status is TaskStatus.PENDING
    with WorkerProcess(dms_redis_url, SHORT):
        assert (await client.ended(late)).status is TaskStatus.COMPLETED


async def test_a_second_signal_gives_back_at_once(
    dms_redis_url: str, client: Client, tmp_path: Path
) -> None:
    with WorkerProcess(dms_redis_url, {**SHORT, "DMS_DRAIN_SECONDS": "3600"}) as worker:
        task_id = await client.submit("t.polite", folder=str(tmp_path))
        await eventually((tmp_path / "started.1").exists, "the attempt started")
        worker.send(signal.SIGINT)
        await eventually(lambda: "Signal received" in worker.log(), "the signal arrived")
        worker.send(signal.SIGINT)
        assert worker.wait() == 0
    record = await client.get(task_id)
    assert (record.status, record.attempts) == (TaskStatus.PENDING, 0)


async def test_a_task_that_kills_its_workers_fails_after_three(
    dms_redis_url: str, client: Client
) -> None:
    task_id = await client.submit("t.kill-worker")
    for epoch in (1, 2, 3):
        with WorkerProcess(dms_redis_url, SHORT) as victim:
            assert victim.wait() == -signal.SIGKILL
            assert (await client.get(task_id)).epoch == epoch
    with WorkerProcess(dms_redis_url, SHORT) as survivor:
        record = await client.ended(task_id)
        after = await client.submit("t.add", first=1)
        assert (await client.ended(after)).status is TaskStatus.COMPLETED
        assert survivor.process.poll() is None
    assert record.status is TaskStatus.FAILED
    assert "3 workers died" in (record.result.error or "")


async def test_a_worker_that_stops_while_redis_is_away_ends_in_time(
    server: RealServer, tmp_path: Path
) -> None:
    async with Client(server.url) as client:
        with WorkerProcess(server.url, {**SHORT, "DMS_TERM_SECONDS": "1"}) as worker:
            await client.submit("t.polite", folder=str(tmp_path))
            await eventually((tmp_path / "started.1").exists, "the attempt started")
            server.kill()
            worker.send(signal.SIGTERM)
            assert worker.wait(60) == 0
    assert (tmp_path / "cleaned.1").exists()


async def test_a_worker_waits_for_a_redis_that_is_not_there_yet(server: RealServer) -> None:
    server.kill()
    with WorkerProcess(server.url, SHORT) as worker:
        await eventually(lambda: "The task store is away" in worker.log(), "the worker waits")
        server.start()
        async with Client(server.url) as client:
            task_id = await client.submit("t.add", first=1)
            assert (await client.ended(task_id)).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("away_past_lease", [False, True])
async def test_redis_killed_and_restarted_in_the_middle_loses_nothing(
    server: RealServer, tmp_path: Path, away_past_lease: bool
) -> None:
    """A short outage is not noticed by the handler; a long one makes it stop, and its attempt is
    given back and done again. Either way: one end, every line of the log."""
    target = tmp_path / "steps"
    lease = {**SHORT, "DMS_LEASE_SECONDS": "6" if away_past_lease else "120"}
    with WorkerProcess(server.url, lease) as worker:
        async with Client(server.url) as client:
            task_id = await client.submit(
                "t.steps", file=str(target), folder=str(tmp_path), count=120
            )
            await eventually(lambda: has_step(target, 10), "the handler works")
            server.kill()
            if away_past_lease:
                await eventually((tmp_path / "ended.1").exists, "the handler stopped")
            else:
                await eventually(lambda: "is away" in worker.log(), "the outage was noticed")
            server.start()
        async with Client(server.url) as client:
            record = await client.ended(task_id)
            page = await client.repository.get_logs(task_id, limit=1000)
    assert record.status is TaskStatus.COMPLETED
    assert record.epoch == (2 if away_past_lease else 1)
    assert record.attempts == 1
    lines = [line.partition(",")[2] for line in page.lines]
    steps = [line for line in lines if line.startswith("step ")]
    last = steps[-120:]
    assert last == [f"step {number}" for number in range(120)]
    done = [line for line in target.read_text().splitlines() if line.startswith("1 ")]
    assert len(steps) - (120 if away_past_lease else 0) == len(done)


async def test_after_an_outage_new_tasks_run_beside_the_old_ones(
    server: RealServer, tmp_path: Path
) -> None:
    with WorkerProcess(server.url, {**SHORT, "DMS_LEASE_SECONDS": "600"}) as worker:
        async with Client(server.url) as client:
            old = await client.submit("t.until-file", file="/nowhere/x", folder=str(tmp_path))
            await eventually((tmp_path / "started.1").exists, "the old task runs")
            server.kill()
            await eventually(lambda: "The rescuer waits" in worker.log(), "the outage was noticed")
            server.start()
        async with Client(server.url) as client:
            new = await client.submit("t.add", first=1)
            assert (await client.ended(new)).status is TaskStatus.COMPLETED
            assert (await client.get(old)).status is TaskStatus.RUNNING


async def test_a_lost_queue_entry_is_made_again(dms_redis_url: str, client: Client) -> None:
    """Accepted, but the engine forgot it: the rescuer finds it at its first look."""
    task_id = await client.submit("t.add", first=1)
    with Redis.from_url(dms_redis_url) as server:
        server.delete("dms-engine:stream", f"dms-engine:runs:{task_id}:1")
    with WorkerProcess(dms_redis_url, SHORT):
        assert (await client.ended(task_id)).status is TaskStatus.COMPLETED
