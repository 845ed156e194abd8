"""A real sync of a real tree, while a worker, scheduler, frontend or Redis is killed or paused."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from task_state.changes import Change
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from tests.support.stack import Stack, eventually

FILES = 48
FILE_BYTES = 96 * 1024
# Half a minute for the tree, so that any machine is hit in the middle; afterwards `hurry` ends it.
BANDWIDTH = 150_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this file: starting it takes longer than most of them."""
    folder = tmp_path_factory.mktemp("survives")
    with Stack(folder, roots=[folder / "data"], workers=2) as running:
        yield running


@pytest.fixture
def stack(shared: Stack) -> Stack:
    """The shared stack, with all parts running again that the test before has ended."""
    for name in ("server", "scheduler", "frontend", *shared.plan.worker_names):
        if not shared.alive(name):
            shared.start(name)
    return shared


@pytest.fixture
def tree(shared: Stack, request: pytest.FixtureRequest) -> Path:
    """A source of the test's own, in a folder where it is moved to `dst` as well."""
    return make_tree(shared.roots[0] / str(request.node.name))


def make_tree(folder: Path) -> Path:
    for number in range(FILES):
        inner = folder / "src" / f"폴더-{number % 5}"
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"file-{number:03}.bin").write_bytes(os.urandom(FILE_BYTES))
    return folder / "src"


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def logged(stack: Stack, task_id: str) -> int:
    task = stack.task(task_id)
    assert task is not None
    return int(task["logs_total"])


def start_sync(stack: Stack, tree: Path) -> str:
    """Submit the sync, and wait until it has really copied something and has more to copy."""
    target = tree.parent / "dst"
    task_id = stack.submit(
        "sync", "alice", src=str(tree), dst=str(target), bandwidth=BANDWIDTH, transfers=2
    )

    def copied() -> bool:
        task = stack.task(task_id)
        assert task is not None
        assert task["status"] in {"PENDING", "DISPATCHING", "RUNNING"}, task
        progress: dict[str, Any] = task["progress"] or {}
        return task["status"] == "RUNNING" and bool(progress.get("files"))

    eventually(copied, what="the sync copies")
    return task_id


async def read_store(url: str) -> tuple[list[Change], int]:
    """All changes that the store still has, and how many stale writes it refused."""
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=url))
    try:
        changes = await (await provider.get_changes()).read("0", block_ms=1, count=10_000)
        return changes, await (await provider.get_managed()).fenced_count()
    finally:
        await provider.close()


def terminal_changes(stack: Stack, task_id: str) -> list[Change]:
    changes, _ = asyncio.run(read_store(stack.redis_url))
    return [
        c for c in changes if c.task_id == task_id and c.status.is_terminal and c.kind == "status"
    ]


def refused_writes(stack: Stack) -> int:
    return asyncio.run(read_store(stack.redis_url))[1]


def hurry(stack: Stack, task_id: str) -> None:
    """Take the limit away, for the attempt that runs and those to come."""
    path = f"/api/v1/services/sync/tasks/{task_id}?user_id=alice"

    def taken() -> bool:  # not while the frontend finds its way back to the server
        answer = stack.client.patch(path, json={"bandwidth": 0})
        assert answer.status_code in {200, 503}, answer.text
        return answer.status_code == 200

    eventually(taken, what="the limit is taken away")


def assert_whole(stack: Stack, tree: Path, task_id: str) -> dict[str, Any]:
    """It completed once, the trees are equal, nothing is left over, every log line is there."""
    task = stack.wait(task_id, timeout=90)
    assert task["status"] == "COMPLETED", task
    target = tree.parent / "dst"
    assert contents(target) == contents(tree)
    assert not list(target.rglob(".dms-*"))
    assert [change.status for change in terminal_changes(stack, task_id)] == ["COMPLETED"]
    messages = [line.split(",", 1)[1] for line in task["logs"]]
    assert "Dispatching to scheduler" in messages
    assert len(messages) == task["logs_total"]
    return task


def running_worker(stack: Stack, task_id: str) -> str:
    """The part that runs the task's attempt, by the process id in the worker's name."""
    pids = {stack.pid(name): name for name in ("worker", "worker-2")}

    def named_in_log() -> str | None:
        task = stack.task(task_id)
        assert task is not None
        lines = [line for line in task["logs"] if "Started by worker" in line]
        found = [name for pid, name in pids.items() if lines and f"-{pid}-" in lines[-1]]
        return found[0] if found else None

    worker = eventually(named_in_log, what="the log names the worker")
    assert worker is not None
    return worker


def test_worker_killed_another_finishes(stack: Stack, tree: Path) -> None:
    task_id = start_sync(stack, tree)
    stack.kill(running_worker(stack, task_id), signal.SIGKILL)
    hurry(stack, task_id)
    task = assert_whole(stack, tree, task_id)
    assert task["epoch"] >= 2
    assert any("was lost in attempt" in line for line in task["logs"])


@pytest.mark.parametrize("part", ["scheduler", "frontend", "server"])
def test_part_killed_and_restarted(stack: Stack, tree: Path, part: str) -> None:
    task_id = start_sync(stack, tree)
    stack.kill(part, signal.SIGKILL)
    stack.start(part)
    hurry(stack, task_id)
    assert_whole(stack, tree, task_id)


def test_paused_worker_is_fenced(stack: Stack, tree: Path) -> None:
    task_id = start_sync(stack, tree)
    paused = running_worker(stack, task_id)
    stack.kill(paused, signal.SIGSTOP)
    hurry(stack, task_id)
    task = assert_whole(stack, tree, task_id)
    assert task["epoch"] >= 2
    before = {path: path.stat().st_mtime_ns for path in (tree.parent / "dst").rglob("*")}
    refused = refused_writes(stack)
    stack.kill(paused, signal.SIGCONT)
    after = stack.submit("sync", "alice", src=str(tree), dst=str(tree.parent / "dst-2"))
    assert stack.wait(after)["status"] == "COMPLETED"
    eventually(
        lambda: refused_writes(stack) > refused, what="a write of the paused worker is refused"
    )
    final = stack.task(task_id)
    assert final is not None
    assert final["revision"] == task["revision"]
    assert final["logs_total"] == task["logs_total"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_terminated_worker_gives_back_uncounted(stack: Stack, tree: Path) -> None:
    task_id = start_sync(stack, tree)
    worker = running_worker(stack, task_id)
    assert stack.stop(worker) == 0
    hurry(stack, task_id)
    task = assert_whole(stack, tree, task_id)
    assert task["epoch"] >= 2
    assert task["attempts"] == 1


def test_scheduler_away_task_waits_then_runs(stack: Stack, tree: Path) -> None:
    stack.stop("scheduler")
    task_id = stack.submit("sync", "bob", src=str(tree), dst=str(tree.parent / "dst"))
    eventually(lambda: logged(stack, task_id) >= 2, what="a retry is logged")
    waiting = stack.task(task_id)
    assert waiting is not None
    assert waiting["status"] == "DISPATCHING"
    stack.start("scheduler")
    assert_whole(stack, tree, task_id)
