"""What a child's tasks leave running: daemons, orphans, zombies. Real processes throughout."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from dms_scheduler.children import Child, ChildDied, ChildSettings
from dms_scheduler.children.tree import children_of, descendants_of, parent_of, signal_child
from tests.unit.scheduler.test_children import LATER, ROOT, Words, file_appears, view

SETTINGS = ChildSettings(modules=("tests.support.attacks",))


@pytest.fixture
async def child() -> AsyncGenerator[Child]:
    started = await Child.start(SETTINGS)
    yield started
    await started.kill()


def lives(pid: int) -> bool:
    """Whether such a process is left, zombies aside."""
    return parent_of(pid) is not None


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def daemon_job(child: Child, folder: Path, **parameters: str) -> "asyncio.Task[object]":
    """A task that starts a daemon in a session of its own."""
    given = {"folder": str(folder), **parameters}
    return asyncio.create_task(child.run(view("a.daemon", given), LATER, Words()))


@pytest.mark.parametrize("on_term", ["leave", "keep"])
async def test_a_daemon_ends_with_its_task(child: Child, tmp_path: Path, on_term: str) -> None:
    given = {"folder": str(tmp_path), "on_term": on_term}
    outcome = await child.run(view("a.daemon", given), LATER, Words())
    assert (outcome.kind, outcome.worn) == ("success", True)
    assert lives(outcome.data["daemon"])
    await child.end()
    assert (tmp_path / "daemon.term").exists(), "it was asked first"
    assert not lives(outcome.data["daemon"])
    assert not lives(child.pid)


async def test_a_killed_child_takes_its_daemons_along(child: Child, tmp_path: Path) -> None:
    job = daemon_job(child, tmp_path, then="hang", on_term="keep")
    daemon = int(await file_appears(tmp_path / "daemon.pid"))
    await child.kill()
    assert not lives(daemon)
    with pytest.raises(ChildDied):
        await job


async def test_a_stop_reaches_daemons_too(child: Child, tmp_path: Path) -> None:
    job = daemon_job(child, tmp_path, then="check")
    daemon = int(await file_appears(tmp_path / "daemon.pid"))
    child.stop("the task was cancelled")
    await job
    await until(lambda: not lives(daemon))
    assert (tmp_path / "daemon.term").exists()


@pytest.mark.parametrize(("then", "said"), [("die", "signal 9"), ("exit", "exit code 0")])
async def test_a_child_that_dies_takes_its_daemons_along(
    child: Child, tmp_path: Path, then: str, said: str
) -> None:
    with pytest.raises(ChildDied, match=said):
        await daemon_job(child, tmp_path, then=then, on_term="keep")
    assert not lives(int((tmp_path / "daemon.pid").read_text()))


DYING_WORKER = """
import asyncio, sys
from pathlib import Path
from dms_scheduler.children import Child
from tests.unit.scheduler.test_keeper import SETTINGS, daemon_job
async def main():
    child = await Child.start(SETTINGS)
    await daemon_job(child, Path(sys.argv[1]), then="hang", on_term="keep")
asyncio.run(main())
"""


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_worker_that_is_killed_takes_daemons_along(tmp_path: Path, stopped: bool) -> None:
    """It had no chance to tell anybody: the kernel tells the keeper, be it stopped."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", DYING_WORKER, tmp_path], env=environment) as it:
        try:
            daemon = int(await file_appears(tmp_path / "daemon.pid"))
            (keeper,) = children_of(it.pid)
            if stopped:
                os.kill(keeper, signal.SIGSTOP)
        finally:
            it.kill()
    try:
        await until(lambda: not lives(daemon))
        await until(lambda: not lives(keeper))
    finally:
        signal_child(parent_of(keeper) or 0, keeper, signal.SIGCONT)


def marked(mark: str) -> list[int]:
    """All processes, wherever they went, that have inherited this in their environment."""
    found: list[int] = []
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if each.name.isdigit() and mark.encode() in (each / "environ").read_bytes():
                found.append(int(each.name))
    return [pid for pid in found if lives(pid)]


async def test_a_process_that_forks_and_leaves_all_the_time_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid4().hex
    monkeypatch.setenv("MARK_OF_THIS_TEST", mark)
    child = await Child.start(SETTINGS)
    given = {"folder": str(tmp_path)}
    job = asyncio.create_task(child.run(view("a.hop", given), LATER, Words()))
    hops = tmp_path / "hops"
    await until(lambda: hops.exists() and int(hops.read_text() or 0) > 5)
    assert marked(mark)
    async with asyncio.timeout(60):
        await child.kill()
    with pytest.raises(ChildDied):
        await job
    assert not marked(mark)


async def test_orphans_are_buried_while_the_task_runs(child: Child, tmp_path: Path) -> None:
    given = {"folder": str(tmp_path), "count": 30}
    job = asyncio.create_task(child.run(view("a.orphans", given), LATER, Words()))
    keeper = int(await file_appears(tmp_path / "keeper.pid"))
    await until(lambda: children_of(keeper) == {child.pid})
    child.stop("enough")
    await job


async def test_a_keeper_that_somebody_kills_takes_its_child_along(
    child: Child, tmp_path: Path
) -> None:
    job = daemon_job(child, tmp_path, then="hang")
    daemon = int(await file_appears(tmp_path / "daemon.pid"))
    keeper = parent_of(child.pid)
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    try:
        with pytest.raises(ChildDied):
            await job
        await child.kill()
        assert not lives(child.pid)
    finally:
        os.kill(daemon, signal.SIGKILL)  # out of reach now: the documents say so


async def test_a_keeper_that_somebody_stopped_obeys(child: Child, tmp_path: Path) -> None:
    job = daemon_job(child, tmp_path, then="hang")
    daemon = int(await file_appears(tmp_path / "daemon.pid"))
    keeper = parent_of(child.pid)
    assert keeper is not None
    os.kill(keeper, signal.SIGSTOP)
    os.kill(child.pid, signal.SIGSTOP)
    await child.kill()
    assert not lives(daemon)
    with pytest.raises(ChildDied):
        await job


async def test_two_who_end_it_at_once_both_see_the_end(child: Child, tmp_path: Path) -> None:
    job = daemon_job(child, tmp_path, then="hang")
    daemon = int(await file_appears(tmp_path / "daemon.pid"))
    await asyncio.gather(child.end(), child.kill(), child.end())
    assert not lives(daemon)
    with pytest.raises(ChildDied):
        await job


def test_only_a_child_is_signalled() -> None:
    """The number of a process that has ended may be a stranger's: it has another parent."""
    with subprocess.Popen(["sleep", "600"]) as ours:
        try:
            signal_child(1, ours.pid, signal.SIGKILL)
            assert lives(ours.pid)
            assert ours.pid in children_of(os.getpid())
            assert (ours.pid, os.getpid()) in descendants_of(os.getpid())
            signal_child(os.getpid(), ours.pid, signal.SIGKILL)
            assert ours.wait() == -signal.SIGKILL
        finally:
            ours.kill()
    signal_child(os.getpid(), ours.pid, signal.SIGKILL)  # gone: nothing to do
    assert not lives(ours.pid)
