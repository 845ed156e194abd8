"""`tasks report`, `throughput` and `adjust` as they are typed, against a real server."""

import asyncio
import gzip
import json
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from task_state import TaskStatus
from task_state.managed import ManagedTasks
from tests.support.cli import clean_environment, dms
from tests.support.frontend import API, TOKEN, Frontend, make_settings, served_frontend

LINES = [
    {"action": "copy", "path": "파일", "size": 5, "attempt": 1},
    {"action": "failed", "path": "\x1b[31mred", "reason": "denied\n\u202e", "attempt": 2},
]


@pytest.fixture
async def frontend(dms_redis_url: str) -> AsyncGenerator[Frontend]:
    async with served_frontend(make_settings(dms_redis_url)) as served:
        yield served


@pytest.fixture
def env(frontend: Frontend) -> dict[str, str]:
    base = f"{str(frontend.client.base_url).rstrip('/')}{API}"
    return clean_environment(DMS_API_BASE=base, TZ="UTC")


async def run(env: dict[str, str], command: str, *more: str) -> subprocess.CompletedProcess[str]:
    """One command of `tasks` beside the loop that serves it."""
    return await asyncio.to_thread(dms, "tasks", command, *more, env=env)


@pytest.fixture
async def task(frontend: Frontend, dms_managed: ManagedTasks) -> list[str]:
    """The options that name a running task with a report."""
    task_id = await frontend.submit()
    assert await dms_managed.begin(task_id, 1, worker="w1")
    block = gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in LINES))
    await dms_managed.append_report(task_id, 1, block, 2, before=0)
    await dms_managed.append_report(task_id, 1, b"", 3, before=2)
    return ["--service", "sync", "--user", "alice", "--task-id", task_id]


async def test_a_report_is_safe_on_a_terminal(env: dict[str, str], task: list[str]) -> None:
    shown = await run(env, "report", *task)
    assert shown.returncode == 0, shown.stderr
    rows = [line.split(maxsplit=2) for line in shown.stdout.splitlines()]
    assert rows == [
        ["ACTION", "SIZE", "PATH"],
        ["copy", "5", "파일"],
        ["failed", "\\x1b[31mred:", "denied\\x0a\\u202e"],
        ["omitted", "3", "lines, which the report had no room for"],
    ]


async def test_programs_get_json(env: dict[str, str], task: list[str]) -> None:
    everything = [*LINES, {"action": "omitted", "lines": 3}]
    whole = await run(env, "report", *task, "-o", "json")
    assert json.loads(whole.stdout) == everything
    by_line = await run(env, "report", *task, "-o", "jsonl")
    assert [json.loads(line) for line in by_line.stdout.splitlines()] == everything
    assert "\x1b" not in whole.stdout + by_line.stdout
    chosen = await run(env, "report", *task, "-o", "json", "--action", "failed", "--attempt", "2")
    assert json.loads(chosen.stdout) == LINES[1:]
    nothing = await run(env, "report", *task, "-o", "json", "--action", "link")
    assert json.loads(nothing.stdout) == []


async def test_a_report_goes_into_a_new_file(
    env: dict[str, str], task: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "report.jsonl"
    for code in (0, 2):
        done = await run(env, "report", *task, "--to", str(file), "--action", "copy")
        assert done.returncode == code, done.stderr
        assert [json.loads(line) for line in file.read_text().splitlines()] == LINES[:1]
    assert "is there already" in done.stderr


async def test_throughput_is_a_table_and_bars(
    env: dict[str, str], task: list[str], dms_managed: ManagedTasks
) -> None:
    empty = await run(env, "throughput", *task)
    assert (empty.returncode, empty.stdout) == (0, "")
    points = [[1_700_000_000_000, 0, 0], [1_700_000_001_000, 2**20, 1]]
    points.append([1_700_000_003_000, 2 * 2**20, 2])
    series = {"points": points, "interval_seconds": 1, "last": [0, 0]}
    await dms_managed.heartbeat(task[-1], 1, series=json.dumps(series).encode())
    shown = await run(env, "throughput", *task)
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert [row[2:] for row in rows[1:]] == [
        ["1048576", "1", "1", "MiB/s", "█" * 20],
        ["2097152", "2", "512", "KiB/s", "█" * 10],
    ]
    whole = await run(env, "throughput", *task, "-o", "json")
    assert json.loads(whole.stdout) == {"points": points, "interval_seconds": 1}
    by_line = await run(env, "throughput", *task, "-o", "jsonl")
    assert [json.loads(line) for line in by_line.stdout.splitlines()] == points


async def test_a_bandwidth_is_changed(
    env: dict[str, str], task: list[str], dms_managed: ManagedTasks
) -> None:
    for asked, limit, words in (
        ("10M", {"bandwidth": 10 * 2**20}, "goes at 10 MiB/s at most"),
        ("0", {"bandwidth": 0}, "has no limit"),
        ("own", {}, "goes as fast as its own parameters say"),
    ):
        done = await run(env, "adjust", *task, "--bandwidth", asked)
        assert (done.returncode, done.stdout) == (0, f"{task[-1]} {words}\n"), done.stderr
        assert (await dms_managed.heartbeat(task[-1], 1)).adjusted == limit
    operator = {**env, "DMS_OPERATOR_TOKEN": TOKEN}
    done = await run(operator, "adjust", "--task-id", task[-1], "--bandwidth", "5", "-o", "json")
    assert json.loads(done.stdout) == {"task_id": task[-1], "adjust": {"bandwidth": 5}}
    await dms_managed.finish(task[-1], 1, TaskStatus.COMPLETED)
    late = await run(env, "adjust", *task, "--bandwidth", "1M")
    assert late.returncode == 1
    assert "COMPLETED" in late.stderr
