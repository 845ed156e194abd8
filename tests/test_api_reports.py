"""The API's report, throughput and change of bandwidth, on a real store."""

import gzip
import json
import zlib
from typing import Any

import httpx2
import pytest

from task_state import TaskStatus
from task_state.managed import ManagedTasks
from task_state.repository import RedisTaskRepository
from tests.support.frontend import (
    API,
    OPERATOR,
    Frontend,
    is_problem,
    make_settings,
    served_frontend,
    task_url,
)

LINES = [
    {"action": "copy", "path": "가", "size": 1, "attempt": 1},
    {"action": "failed", "path": "나", "reason": "\x1b[31m", "attempt": 1},
    {"action": "copy", "path": "나", "size": 2, "attempt": 2},
]


def block(*lines: dict[str, Any]) -> bytes:
    return gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


async def begun(quiet: Frontend, managed: ManagedTasks) -> str:
    task_id = await quiet.submit()
    assert await managed.begin(task_id, 1, worker="w1")
    return task_id


async def reported(quiet: Frontend, managed: ManagedTasks, omitted: int = 0) -> str:
    """A running task with a report in three members."""
    task_id = await begun(quiet, managed)
    for number, line in enumerate(LINES):
        await managed.append_report(task_id, 1, block(line), 1, before=number)
    if omitted:
        await managed.append_report(task_id, 1, b"", omitted, before=len(LINES))
    return task_id


async def get(
    quiet: Frontend, task_id: str, query: str = "", encoding: str = "identity"
) -> list[Any]:
    url = f"{task_url(task_id)}/report?user_id=alice{query}"
    response = await quiet.client.get(url, headers={"Accept-Encoding": encoding})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert response.headers["x-report-lines"] == str(len(LINES))
    assert response.headers.get("content-encoding") == (None if encoding == "identity" else "gzip")
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.parametrize("encoding", ["identity", "gzip", "br, gzip;q=0.5"])
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", [0, 1, 2]),
        ("&action=failed", [1]),
        ("&action=failed&action=copy&attempt=1", [0, 1]),
        ("&attempt=2", [2]),
        ("&attempt=3", []),
    ],
)
async def test_the_chosen_lines_come_while_the_task_runs(
    quiet: Frontend, dms_managed: ManagedTasks, query: str, wanted: list[int], encoding: str
) -> None:
    task_id = await reported(quiet, dms_managed)
    assert await get(quiet, task_id, query, encoding) == [LINES[n] for n in wanted]


async def test_the_last_line_tells_what_had_no_room(
    quiet: Frontend, dms_managed: ManagedTasks
) -> None:
    task_id = await reported(quiet, dms_managed, omitted=7)
    told = {"action": "omitted", "lines": 7}
    assert await get(quiet, task_id) == [*LINES, told]
    assert await get(quiet, task_id, "&attempt=2") == [LINES[2], told]
    assert await get(quiet, task_id, "&action=failed") == [LINES[1]]
    assert await get(quiet, task_id, "&action=omitted", "gzip") == [told]
    assert (await quiet.task(task_id))["report"] == {"lines": 3, "omitted": 7}


async def test_a_task_without_a_report_has_an_empty_one(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    response = await quiet.client.get(f"{task_url(task_id)}/report?user_id=alice")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["x-report-lines"] == "0"
    series = await quiet.client.get(f"{task_url(task_id)}/throughput?user_id=alice")
    assert series.json() == {"points": [], "interval_seconds": 1}


async def test_a_large_report_comes_whole(quiet: Frontend, dms_managed: ManagedTasks) -> None:
    task_id = await begun(quiet, dms_managed)
    many = [{"action": "copy", "path": "x" * 100, "size": number} for number in range(30_000)]
    for number in range(3):
        part = many[number * 10_000 : (number + 1) * 10_000]
        await dms_managed.append_report(task_id, 1, block(*part), 10_000, before=number * 10_000)
    url = f"{task_url(task_id)}/report?user_id=alice"
    for encoding in ("identity", "gzip"):
        response = await quiet.client.get(url, headers={"Accept-Encoding": encoding})
        assert [json.loads(line)["size"] for line in response.text.splitlines()] == list(
            range(30_000)
        )


async def test_a_client_of_http_reads_all_members(
    dms_redis_url: str, dms_managed: ManagedTasks
) -> None:
    """Over a real socket, as one member: most clients stop at the end of the first."""
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        task_id = await reported(frontend, dms_managed)
        url = f"{task_url(task_id)}/report?user_id=alice"
        async with frontend.client.stream("GET", url) as response:
            raw = b"".join([piece async for piece in response.aiter_raw()])
    member = zlib.decompressobj(31)
    text = member.decompress(raw)
    assert member.eof
    assert not member.unused_data
    assert [json.loads(line) for line in text.splitlines()] == LINES


async def test_a_report_that_is_not_whole_breaks_the_connection(
    dms_redis_url: str, dms_managed: ManagedTasks
) -> None:
    async with served_frontend(make_settings(dms_redis_url)) as frontend:
        task_id = await begun(frontend, dms_managed)
        await dms_managed.append_report(task_id, 1, block(*LINES)[:-9], 3, before=0)
        with pytest.raises(httpx2.RemoteProtocolError):
            await frontend.client.get(f"{task_url(task_id)}/report?user_id=alice")


async def test_points_come_as_they_were_stored(quiet: Frontend, dms_managed: ManagedTasks) -> None:
    task_id = await begun(quiet, dms_managed)
    series = {"points": [[1_700_000_000_000, 0, 0], [1_700_000_001_000, 5, 1]], "last": [5, 1]}
    text = json.dumps({**series, "interval_seconds": 4}).encode()
    await dms_managed.heartbeat(task_id, 1, series=text)
    answer = await quiet.client.get(f"{task_url(task_id)}/throughput?user_id=alice")
    assert answer.json() == {"points": series["points"], "interval_seconds": 4}


# -------------------------------------------------------------------------------------- bandwidth
@pytest.mark.parametrize(
    ("value", "limit", "words"),
    [
        ("10M", 10 * 2**20, "set to 10 MiB/s"),
        ("1536 KiB/s", 1536 * 1024, "set to 1.5 MiB/s"),
        (1_000_000, 1_000_000, "set to 976.6 KiB/s"),
        (0, 0, "set to no limit"),
        ("0K", 0, "set to no limit"),
        (1 << 50, 1 << 50, "set to 1024 TiB/s"),
    ],
)
async def test_a_task_is_told_how_fast_it_may_go(
    quiet: Frontend, dms_managed: ManagedTasks, value: Any, limit: int, words: str
) -> None:
    task_id = await begun(quiet, dms_managed)
    url = f"{task_url(task_id)}?user_id=alice"
    answer = await quiet.client.patch(url, json={"bandwidth": value})
    assert answer.json() == {"task_id": task_id, "adjust": {"bandwidth": limit}}
    assert (await dms_managed.heartbeat(task_id, 1)).adjusted == {"bandwidth": limit}
    task = await quiet.task(task_id)
    assert task["adjust"] == {"bandwidth": limit}
    assert task["logs"][-1].endswith(f",Bandwidth {words}, by user alice")
    again = await quiet.client.patch(url, json={"bandwidth": None})
    assert again.json() == {"task_id": task_id, "adjust": {}}
    assert (await quiet.task(task_id))["adjust"] is None


async def test_another_users_task_cannot_be_changed(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    for user, service in (("bob", "sync"), ("alice", "copy")):
        url = f"{API}/services/{service}/tasks/{task_id}?user_id={user}"
        answer = await quiet.client.patch(url, json={"bandwidth": 5})
        is_problem(answer, 404, "task-not-found")
    assert (await quiet.task(task_id))["adjust"] is None


async def test_an_operator_changes_anybodys(quiet: Frontend) -> None:
    task_id = await quiet.submit()
    url = f"{API}/admin/tasks/{task_id}"
    refused = await quiet.client.patch(url, json={"bandwidth": 5})
    assert refused.status_code == 401
    answer = await quiet.client.patch(url, json={"bandwidth": 5}, headers=OPERATOR)
    assert answer.json() == {"task_id": task_id, "adjust": {"bandwidth": 5}}
    assert (await quiet.task(task_id))["logs"][-1].endswith("by an operator")


@pytest.mark.parametrize(
    "body", [{}, {"bandwidth": "fast"}, {"bandwidth": -1}, {"bandwidth": True}, {"bandwidth": 1.5},
             {"bandwidth": 1 << 51}, {"bandwidth": "9" * 40}, {"bandwidth": [1]},
             {"bandwidth": 1, "speed": 2}, {"speed": 1}, [], None],
)  # fmt: skip
async def test_a_bandwidth_that_means_nothing_is_refused(quiet: Frontend, body: Any) -> None:
    task_id = await quiet.submit()
    answer = await quiet.client.patch(f"{task_url(task_id)}?user_id=alice", json=body)
    is_problem(answer, 422, "invalid-request")
    assert (await quiet.task(task_id))["adjust"] is None


async def test_an_ended_task_cannot_be_changed(
    quiet: Frontend, dms_managed: ManagedTasks, dms_repository: RedisTaskRepository
) -> None:
    task_id = await begun(quiet, dms_managed)
    await dms_managed.finish(task_id, 1, TaskStatus.COMPLETED)
    answer = await quiet.client.patch(f"{task_url(task_id)}?user_id=alice", json={"bandwidth": 5})
    body = is_problem(answer, 409, "task-ended")
    assert "COMPLETED" in body["detail"]
    record = await dms_repository.get(task_id)
    assert record is not None
    assert record.adjust is None
