"""What becomes of reports, series and adjustments of tasks that a real worker runs."""

import gzip
import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

from task_state import TaskReport, TaskStatus
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.reports import Reports
from tests.contract.servers import running
from tests.support.worker_process import Client, WorkerProcess

MODULES = {"DMS_TASK_MODULES": "tests.support.report_handlers", "DMS_HEARTBEAT_SECONDS": "0.5"}
BOTH = ["", "-inline"]


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    """A server of this module's own: its worker lives as long as the module."""
    with running("valkey") as server:
        yield server.url


@pytest.fixture(scope="module")
def worker(url: str) -> Generator[WorkerProcess]:
    with WorkerProcess(url, MODULES) as process:
        yield process


@pytest.fixture
async def client(url: str, worker: WorkerProcess) -> AsyncGenerator[Client]:
    assert worker.process.poll() is None
    async with Client(url) as made:
        yield made


@pytest.fixture
async def reports(url: str) -> AsyncGenerator[Reports]:
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=url))
    yield await provider.get_reports()
    await provider.close()


async def lines(reports: Reports, task_id: str) -> list[dict[str, Any]]:
    packed = b"".join([piece async for piece in reports.pieces(task_id)])
    return [json.loads(line) for line in gzip.decompress(packed).splitlines()]


@pytest.mark.parametrize("service", ["r.lines", "r.lines-inline", "r.async", "r.async-inline"])
async def test_every_line_is_there_when_the_task_has_ended(
    client: Client, reports: Reports, service: str
) -> None:
    record = await client.ended(await client.submit(service, lines=20_000))
    assert (record.status, record.result.data) == (TaskStatus.COMPLETED, 20_000)
    assert record.report == TaskReport(lines=20_000)
    found = await lines(reports, record.task_id)
    assert sorted(line["size"] for line in found) == list(range(20_000))
    assert all(line["path"] == f"파일-{line['size']}" for line in found)
    assert {(line["attempt"], line["epoch"]) for line in found} == {(1, 1)}
    assert sum(line["action"] == "failed" for line in found) == 2_000


@pytest.mark.parametrize("kind", BOTH)
async def test_lines_come_from_all_threads(client: Client, reports: Reports, kind: str) -> None:
    record = await client.ended(await client.submit(f"r.threads{kind}", lines=5_000))
    assert record.status is TaskStatus.COMPLETED
    paths = [line["path"] for line in await lines(reports, record.task_id)]
    assert len(paths) == len(set(paths)) == 20_000


@pytest.mark.parametrize("kind", BOTH)
async def test_the_lines_of_all_attempts_can_be_told_apart(
    client: Client, reports: Reports, kind: str
) -> None:
    task_id = await client.submit(f"r.lines{kind}", lines=3, then="raise")
    record = await client.ended(task_id)
    assert record.status is TaskStatus.COMPLETED
    found = await lines(reports, task_id)
    assert [(line["attempt"], line["size"]) for line in found] == [
        (attempt, number) for attempt in (1, 2) for number in range(3)
    ]


@pytest.mark.parametrize("kind", BOTH)
async def test_odd_lines_get_through_and_nonsense_is_refused(
    client: Client, reports: Reports, kind: str
) -> None:
    record = await client.ended(await client.submit(f"r.odd{kind}"))
    assert record.status is TaskStatus.COMPLETED
    assert len(record.result.data) == 5
    marks = {"attempt": 1, "epoch": 1}
    assert await lines(reports, record.task_id) == [
        {"path": "\\udcff\\udcfe", "size": 2**70, **marks},
        marks,
        {"text": "\r\n\x1b[31m", **marks},
    ]


async def test_a_fork_of_the_handler_reports_nothing(client: Client, reports: Reports) -> None:
    record = await client.ended(await client.submit("r.fork"))
    assert record.result.data == "the answer"
    paths = [line["path"] for line in await lines(reports, record.task_id)]
    assert paths == ["before", "after"]


async def test_a_report_can_be_read_while_the_task_runs(
    client: Client, reports: Reports, tmp_path: Path
) -> None:
    file = tmp_path / "go"
    task_id = await client.submit("r.lines", lines=50, then="wait", file=str(file))
    record = await client.until(task_id, lambda record: record.report == TaskReport(lines=50))
    assert record.status is TaskStatus.RUNNING
    assert len(await lines(reports, task_id)) == 50
    file.touch()
    assert (await client.ended(task_id)).report == TaskReport(lines=50)


@pytest.mark.parametrize("kind", BOTH)
async def test_a_running_task_learns_what_was_adjusted(client: Client, kind: str) -> None:
    task_id = await client.submit(f"r.flow{kind}", fail=True)
    await client.until(task_id, lambda record: record.progress is not None)
    await client.managed.adjust(task_id, "bandwidth", 5, log_entry="slower")
    record = await client.ended(task_id)
    assert record.result.data == [2, {"bandwidth": 5}], "the next attempt knows it at once"


@pytest.mark.parametrize("kind", BOTH)
async def test_the_series_tells_of_all_attempts(
    client: Client, reports: Reports, kind: str
) -> None:
    task_id = await client.submit(f"r.flow{kind}", fail=True)
    first = await client.until(task_id, lambda record: (record.progress or {}).get("files", 0) > 5)
    await client.managed.adjust(task_id, "bandwidth", 5, log_entry="slower")
    record = await client.ended(task_id)
    series = await reports.series(task_id)
    assert series is not None
    assert first.progress is not None
    points = series["points"]
    assert record.started_at is not None
    assert points == sorted(points)
    assert points[0][1:] == [0, 0]
    assert points[-1][1] >= first.progress["bytes"]
    assert points[-1][2] >= first.progress["files"]
