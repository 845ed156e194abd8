"""Both faces of the client ask for reports and throughput, and change a bandwidth."""

import gzip
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest

from app.client import ConflictError, NotFoundError, Point, RefusedError, TaskRef, Throughput
from task_state import TaskStatus
from task_state.managed import ManagedTasks
from tests.support.client_faces import FACES, Face, FaceName, face_of
from tests.support.frontend import TOKEN, Frontend, make_settings, served_frontend

COUNT = 20_000


@pytest.fixture
async def served(dms_redis_url: str) -> AsyncGenerator[Frontend]:
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        yield frontend


@pytest.fixture(params=FACES)
async def face(request: pytest.FixtureRequest, served: Frontend) -> AsyncGenerator[Face]:
    """A client with the operator's token."""
    name: FaceName = request.param
    async with face_of(name, f"{served.client.base_url}/api/v1", token=TOKEN) as client:
        yield client


@pytest.fixture
async def task(face: Face, dms_managed: ManagedTasks) -> Any:
    made = await face.call("submit", "sync", "alice", {})
    assert await dms_managed.begin(made.task_id, 1, worker="w1")
    return made


async def lines(face: Face, task: Any, **options: Any) -> list[dict[str, Any]]:
    return [line async for line in face.each("report", task, **options)]


async def test_a_report_comes_line_by_line(
    face: Face, task: Any, dms_managed: ManagedTasks
) -> None:
    assert await lines(face, task) == []
    told = [
        {"action": "failed" if n % 2 else "copy", "path": f"파일 {n}", "attempt": n % 3}
        for n in range(COUNT)
    ]
    half = COUNT // 2
    for at in (0, half):
        text = "".join(json.dumps(line) + "\n" for line in told[at : at + half])
        await dms_managed.append_report(
            task.task_id, 1, gzip.compress(text.encode()), half, before=at
        )
    assert await lines(face, task) == told
    assert await lines(face, task.task_id) == told, "an operator needs no more than the id"
    chosen = await lines(face, task, actions=["failed"], attempt=2)
    assert chosen == [line for line in told if (line["action"], line["attempt"]) == ("failed", 2)]
    assert (await face.call("get", task)).report.lines == COUNT


async def test_the_throughput_has_points_in_time(
    face: Face, task: Any, dms_managed: ManagedTasks
) -> None:
    assert await face.call("throughput", task) == Throughput([], 1)
    series = {"points": [[1_700_000_000_500, 7, 1]], "interval_seconds": 2, "last": [7, 1]}
    await dms_managed.heartbeat(task.task_id, 1, series=json.dumps(series).encode())
    at = datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert await face.call("throughput", task) == Throughput([Point(at, 7, 1)], 2)


async def test_a_bandwidth_is_changed_while_the_task_runs(
    face: Face, task: Any, dms_managed: ManagedTasks
) -> None:
    assert await face.call("adjust", task, bandwidth="10M") == {"bandwidth": 10 * 2**20}
    assert (await face.call("get", task)).adjust == {"bandwidth": 10 * 2**20}
    assert await face.call("adjust", task.task_id, bandwidth=0) == {"bandwidth": 0}
    assert await face.call("adjust", task, bandwidth=None) == {}
    with pytest.raises(RefusedError, match="fast"):
        await face.call("adjust", task, bandwidth="fast")
    await dms_managed.finish(task.task_id, 1, TaskStatus.COMPLETED)
    with pytest.raises(ConflictError) as caught:
        await face.call("adjust", task, bandwidth=1)
    assert caught.value.kind == "task-ended"


async def test_what_is_not_there_is_told(face: Face) -> None:
    gone = TaskRef("1", "sync", "alice")
    with pytest.raises(NotFoundError):
        await lines(face, gone)
    for call, options in (("throughput", {}), ("adjust", {"bandwidth": 1})):
        with pytest.raises(NotFoundError):
            await face.call(call, gone, **options)
