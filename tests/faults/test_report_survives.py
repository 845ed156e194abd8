"""A report outlives its worker, a Redis that is away for a while, and a cancellation."""

import gzip
import json
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from task_state import TaskReport, TaskStatus
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from tests.contract.servers import RealServer
from tests.support.worker_process import SHORT, Client, WorkerProcess, eventually

MODULES = {"DMS_TASK_MODULES": "tests.support.report_handlers"}


@pytest.fixture
def server() -> Generator[RealServer]:
    """A server with its data on disk, to be killed and started again."""
    made = RealServer("valkey", "--appendonly", "yes", "--appendfsync", "always")
    made.start()
    yield made
    made.close()


async def lines(url: str, task_id: str) -> list[dict[str, Any]]:
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=url))
    reports = await provider.get_reports()
    packed = b"".join([piece async for piece in reports.pieces(task_id)])
    await provider.close()
    return [json.loads(line) for line in gzip.decompress(packed).splitlines()]


async def test_what_was_acknowledged_outlives_a_worker_that_is_killed(
    dms_redis_url: str, tmp_path: Path
) -> None:
    async with Client(dms_redis_url) as client:
        with WorkerProcess(dms_redis_url, MODULES | SHORT) as first:
            task_id = await client.submit(
                "r.lines", lines=1000, then="wait", file=str(tmp_path / "never")
            )
            await client.until(task_id, lambda record: record.report == TaskReport(lines=1000))
            first.send(signal.SIGKILL)
            with WorkerProcess(dms_redis_url, MODULES | SHORT):
                record = await client.ended(task_id)
    assert record.status is TaskStatus.COMPLETED
    found = await lines(dms_redis_url, task_id)
    assert [(line["epoch"], line["size"]) for line in found if line["action"] == "copy"] == [
        (epoch, number) for epoch in (1, 2) for number in range(1000) if number % 10 != 9
    ]
    assert record.report == TaskReport(lines=2000)


@pytest.mark.parametrize("service", ["r.late", "r.late-inline"])
async def test_lines_wait_for_a_redis_that_is_away(
    server: RealServer, tmp_path: Path, service: str
) -> None:
    """More of them than may wait in memory: the handler waits too, and none is lost or doubled."""
    lease = {**SHORT, "DMS_LEASE_SECONDS": "600"}
    go = tmp_path / "go"
    with WorkerProcess(server.url, MODULES | lease) as worker:
        async with Client(server.url) as client:
            task_id = await client.submit(service, lines=20_000, file=str(go))
            await client.running(task_id)
            server.kill()
            go.touch()
            await eventually(lambda: "is away" in worker.log(), "the outage was noticed")
            server.start()
        async with Client(server.url) as client:
            record = await client.ended(task_id)
    assert (record.status, record.report) == (TaskStatus.COMPLETED, TaskReport(lines=20_000))
    assert [line["size"] for line in await lines(server.url, task_id)] == list(range(20_000))


async def test_a_cancelled_task_keeps_what_it_reported(dms_redis_url: str, tmp_path: Path) -> None:
    async with Client(dms_redis_url) as client:
        with WorkerProcess(dms_redis_url, MODULES | SHORT):
            task_id = await client.submit(
                "r.lines", lines=100, then="wait", file=str(tmp_path / "never")
            )
            await client.running(task_id)
            await client.cancel(task_id)
            record = await client.ended(task_id)
    assert record.status is TaskStatus.CANCELLED
    found = await lines(dms_redis_url, task_id)
    assert [line["size"] for line in found if line["action"] == "copy"] == [
        number for number in range(len(found)) if number % 10 != 9
    ]
    assert record.report == (TaskReport(lines=len(found)) if found else None)
