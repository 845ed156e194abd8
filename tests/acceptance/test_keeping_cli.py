"""`tasks prune` and `tasks export` as an operator runs them, against a real server."""

import asyncio
import json
import os
import signal
import stat
import subprocess
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from task_state import TaskRecord, TaskSearch, TaskStatus
from task_state.repository import RedisTaskRepository
from task_state.timezone import now
from tests.support.cli import clean_environment, dms, entry
from tests.support.frontend import API, TOKEN, Frontend, make_settings, served_frontend

COMPLETED, FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED


@pytest.fixture
async def frontend(dms_redis_url: str) -> AsyncGenerator[Frontend]:
    async with served_frontend(make_settings(dms_redis_url)) as served:
        yield served


@pytest.fixture
def env(frontend: Frontend) -> dict[str, str]:
    base = f"{str(frontend.client.base_url).rstrip('/')}{API}"
    return clean_environment(DMS_API_BASE=base, DMS_OPERATOR_TOKEN=TOKEN)


async def run(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command beside the loop that serves it."""
    return await asyncio.to_thread(dms, *arguments, env=env)


async def fill(repository: RedisTaskRepository) -> None:
    """Tasks of two services and states, old and new, and one that waits."""
    cases: list[tuple[str, int, dict[str, Any]]] = [
        ("old-1", 40, {}),
        ("old-2", 50, {"user_id": "bob", "logs": [f"t,줄 {n}" for n in range(1500)]}),
        ("old-failed", 45, {"status": FAILED}),
        ("old-copy", 42, {"service": "copy"}),
        ("new", 1, {}),
    ]
    for name, days, values in cases:
        end = now() - timedelta(days=days)
        defaults: dict[str, Any] = {"service": "sync", "user_id": "alice", "status": COMPLETED}
        await repository.save(
            TaskRecord(task_id=name, created_at=end, completed_at=end, **{**defaults, **values})
        )
    old = now() - timedelta(days=99)
    await repository.save(TaskRecord(task_id="waits", service="sync", user_id="a", created_at=old))


async def left(repository: RedisTaskRepository) -> set[str]:
    return {task.task_id for task in await repository.list_all()}


def lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n") if line]


async def test_a_dry_run_tells_what_a_run_then_removes(
    env: dict[str, str], dms_repository: RedisTaskRepository
) -> None:
    await fill(dms_repository)
    everything = await left(dms_repository)
    options = ("tasks", "prune", "--older-than", "30d", "--status", "completed", "-o", "json")
    dry = await run(env, *options, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    told = json.loads(dry.stdout)
    assert told["dry_run"] is True
    assert {(each["service"], each["tasks"]) for each in told["groups"]} == {
        ("sync", 2), ("copy", 1)
    }  # fmt: skip
    assert await left(dms_repository) == everything

    done = await run(env, *options, "--yes")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["groups"] == told["groups"]
    assert answer["tasks"] == told["tasks"] == 3
    assert await left(dms_repository) == {"old-failed", "new", "waits"}


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (("--status", "FAILED"), {"old-failed"}),
        (("--service", "copy"), {"old-copy"}),
        (("--user", "bob"), {"old-2"}),
        (("--service", "sync", "--user", "alice"), {"old-1", "old-failed"}),
        ((), {"old-1", "old-2", "old-failed", "old-copy"}),
    ],
)
async def test_prune_takes_what_the_options_name(
    env: dict[str, str],
    dms_repository: RedisTaskRepository,
    options: tuple[str, ...],
    gone: set[str],
) -> None:
    await fill(dms_repository)
    everything = await left(dms_repository)
    done = await run(env, "tasks", "prune", "--older-than", "30d", "--yes", *options)
    assert done.returncode == 0, done.stderr
    assert f"{len(gone)} tasks removed" in done.stderr
    assert await left(dms_repository) == everything - gone


async def test_without_a_terminal_nobody_is_asked_and_nothing_goes(
    env: dict[str, str], dms_repository: RedisTaskRepository
) -> None:
    await fill(dms_repository)
    everything = await left(dms_repository)
    done = await run(env, "tasks", "prune", "--older-than", "30d")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert await left(dms_repository) == everything


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("\n", False)])
async def test_on_a_terminal_it_shows_and_asks(
    env: dict[str, str], dms_repository: RedisTaskRepository, answer: str, goes: bool
) -> None:
    await fill(dms_repository)
    controller, terminal = os.openpty()
    command = entry("tasks", "prune", "--older-than", "30d")
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=env, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.write(controller, answer.encode())
        out, err = await asyncio.wait_for(process.communicate(), 100)
    finally:
        os.close(controller)
        os.close(terminal)
    assert b"old" not in out
    assert b"copy" in out, "the table says what would go"
    assert b"Remove these 4 tasks" in err
    assert ("old-1" not in await left(dms_repository)) is goes


async def test_what_is_removed_is_in_the_file(
    env: dict[str, str], dms_repository: RedisTaskRepository, tmp_path: Path
) -> None:
    await fill(dms_repository)
    target = tmp_path / "gone.jsonl"
    options = ("tasks", "prune", "--older-than", "30d", "--yes", "--export", str(target))
    done = await run(env, *options)
    assert done.returncode == 0, done.stderr
    found = {TaskRecord.model_validate(line).task_id: line for line in lines(target)}
    assert set(found) == {"old-1", "old-2", "old-failed", "old-copy"}
    assert len(found["old-2"]["logs"]) == 1500
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert await left(dms_repository) == {"new", "waits"}

    again = await run(env, *options)
    assert again.returncode == 2
    assert "--append" in again.stderr
    end = now() - timedelta(days=60)
    await dms_repository.save(
        TaskRecord(
            task_id="more",
            service="s",
            user_id="u",
            status=FAILED,
            created_at=end,
            completed_at=end,
        )
    )
    with target.open("ab") as torn:
        torn.write(b'{"task_id":"torn"')
    again = await run(env, *options, "--append", "--format", "flat")
    assert again.returncode == 0, again.stderr
    assert [line["task_id"] for line in lines(target)][4:] == ["more"]


async def test_a_file_that_cannot_be_written_keeps_every_task(
    env: dict[str, str], dms_repository: RedisTaskRepository, tmp_path: Path
) -> None:
    await fill(dms_repository)
    everything = await left(dms_repository)
    target = str(tmp_path / "no-such-folder" / "x")
    done = await run(env, "tasks", "prune", "--older-than", "1s", "--yes", "--export", target)
    assert done.returncode == 1
    assert target in done.stderr
    assert await left(dms_repository) == everything


async def test_ctrl_c_leaves_a_whole_file_and_a_whole_store(
    env: dict[str, str], dms_repository: RedisTaskRepository, tmp_path: Path
) -> None:
    end = now() - timedelta(days=60)
    names = {f"t{n}" for n in range(600)}
    for name in names:
        await dms_repository.save(
            TaskRecord(
                task_id=name, service="s", user_id="u", status=COMPLETED,
                created_at=end, completed_at=end, logs=["t,x"] * 5,
            )
        )  # fmt: skip
    target = tmp_path / "gone.jsonl"
    command = ["tasks", "prune", "--older-than", "30d", "--yes", "--export", str(target)]
    process = await asyncio.create_subprocess_exec(
        *entry(*command), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(60):
        while process.returncode is None and not (target.exists() and target.stat().st_size):
            await asyncio.sleep(0.005)
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode in {130, 0}

    written = {line["task_id"] for line in lines(target)}
    counts = await dms_repository.counts()
    remaining = {
        task.task_id
        for number in range(0, counts.total, 200)
        for task in await dms_repository.search(_page(number))
    }
    assert names - remaining <= written, "what is gone is in the file"
    done = await run(env, *command, "--append")
    assert done.returncode == 0, done.stderr
    assert {line["task_id"] for line in lines(target)} == names
    assert (await dms_repository.counts()).total == 0


def _page(offset: int) -> TaskSearch:
    return TaskSearch(limit=200, offset=offset)


async def test_export_writes_what_a_search_finds(
    env: dict[str, str], dms_repository: RedisTaskRepository, tmp_path: Path
) -> None:
    await fill(dms_repository)
    everything = await left(dms_repository)
    target = tmp_path / "out.jsonl"
    done = await run(env, "tasks", "export", "--output", str(target))
    assert done.returncode == 0, done.stderr
    assert {line["task_id"] for line in lines(target)} == everything
    done = await run(env, "tasks", "export", "-o", "-", "--status", "failed", "--format", "flat")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["task_id"] for line in done.stdout.splitlines()] == ["old-failed"]
    done = await run(env, "tasks", "export", "-o", "-", "--older-than", "46d")
    assert [json.loads(line)["task_id"] for line in done.stdout.splitlines()] == ["old-2"]
    done = await run(env, "tasks", "export", "-o", "-", "--since", "2d", "--service", "sync")
    assert [json.loads(line)["task_id"] for line in done.stdout.splitlines()] == ["new"]
    assert await left(dms_repository) == everything


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("prune", "--older-than", "soon", "--yes"), "soon"),
        (("prune", "--older-than", "1d", "--status", "RUNNING", "--yes"), "RUNNING"),
        (("prune", "--older-than", "1d", "--export", "-", "--yes"), "--export"),
        (("prune", "--older-than", "1d", "--append", "--yes"), "--append"),
        (("prune", "--older-than", "1d", "--dry-run", "--export", "x"), "--dry-run"),
        (("prune", "--yes"), "--older-than"),
    ],
)
async def test_what_makes_no_sense_is_told(
    env: dict[str, str], options: tuple[str, ...], word: str
) -> None:
    done = await run(env, "tasks", *options)
    assert done.returncode == 2
    assert word in done.stderr


async def test_it_is_the_operators(
    env: dict[str, str], dms_repository: RedisTaskRepository
) -> None:
    await fill(dms_repository)
    wrong = {**env, "DMS_OPERATOR_TOKEN": "wrong"}
    for options in (("prune", "--older-than", "1s", "--yes"), ("export", "-o", "-")):
        done = await run(wrong, "tasks", *options)
        assert done.returncode == 4, done.stderr
