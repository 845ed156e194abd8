"""Whole tasks whose trees hold each other, and workers that freeze or die while they write."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.movers import MoverGroup
from tests.support.stack import Stack, eventually

SLOW = "6K"  # some files a second: the task lasts until `hurry`
FILES = 80  # more than a mover copies in its own process
SIZE = 4096


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    with Stack(tmp_path_factory.mktemp("locks"), workers=2) as made:
        yield made


@pytest.fixture
def data(stack: Stack, request: pytest.FixtureRequest) -> Path:
    folder = stack.roots[0] / request.node.name.partition("[")[0]
    folder.mkdir(exist_ok=True)
    return folder


def fill(folder: Path, mark: str, files: int = FILES) -> Path:
    """Make a tree of small files; at `SLOW` it takes half a minute to copy."""
    for number in range(files):
        path = folder / f"{mark}{number % 5}" / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{mark}{number} ".encode().ljust(SIZE, b"."))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """What is there, by name: whole files and temporaries alike."""
    found: dict[str, bytes] = {}
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                path = Path(where, name)
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def finished(folder: Path) -> set[str]:
    """The names of files that are whole."""
    return {name for name in tree(folder) if "/.dms-" not in f"/{name}"}


def sync(stack: Stack, src: Path, dst: Path, **parameters: Any) -> str:
    return stack.submit("sync", "kim", src=str(src), dst=str(dst), **parameters)


def hurry(stack: Stack, task_id: str) -> None:
    """Take the limit away, for the attempt that runs and those to come."""
    answer = stack.client.patch(
        f"/api/v1/services/sync/tasks/{task_id}", params={"user_id": "kim"}, json={"bandwidth": 0}
    )
    assert answer.status_code == 200, answer.text


def writes(stack: Stack, task_id: str, dst: Path) -> None:
    """Wait until the task has the locks and has begun to write."""
    stack.wait(task_id, "RUNNING")
    eventually(lambda: finished(dst), what=f"{task_id} writes")


def waits(stack: Stack, task_id: str, words: str) -> None:
    """Wait until the record says what the task waits for."""

    def look() -> bool:
        task = stack.task(task_id) or {}
        return any(words in (note["reason"] or "") for note in task["history"])

    eventually(look, what=f"{task_id} waits: {words}")


def completed(stack: Stack, *task_ids: str) -> None:
    """All end COMPLETED, in their first attempt that counts."""
    for task_id in task_ids:
        task = stack.wait(task_id)
        assert task["status"] == "COMPLETED", task
        assert task["attempts"] == 1, task["history"]


def test_tasks_for_one_place_take_turns_and_others_run_beside(stack: Stack, data: Path) -> None:
    """The same destination, and one below it: both wait, none uses up an attempt."""
    dst = data / "dst"
    slow = sync(stack, fill(data / "a", "a"), dst, bandwidth=SLOW)
    writes(stack, slow, dst)
    same = sync(stack, fill(data / "b", "b", 10), data / "." / "dst")
    below = sync(stack, fill(data / "c", "c", 10), dst / "inner" / "deep")
    beside = sync(stack, data / "b", data / "beside")
    waits(stack, same, "another task writes to")
    waits(stack, below, "another task writes to")
    completed(stack, beside)
    assert (stack.task(slow) or {})["status"] == "RUNNING"
    assert not (dst / "inner").exists()
    hurry(stack, slow)
    completed(stack, slow, same, below)
    expected = {**tree(data / "a"), **tree(data / "b")}
    expected |= {f"inner/deep/{name}": content for name, content in tree(data / "c").items()}
    assert tree(dst) == expected


def test_a_source_that_is_being_written_is_waited_for(stack: Stack, data: Path) -> None:
    """A to B, and B to C with delete at once: the second must not take half of B for all."""
    a, b, c = fill(data / "a", "a"), data / "b", data / "c"
    fill(c, "a")
    (c / "extra").write_text("to be deleted")
    first = sync(stack, a, b, bandwidth=SLOW)
    writes(stack, first, b)
    second = sync(stack, b, c, delete=True)
    waits(stack, second, "another task writes to")
    assert finished(c) == {*finished(a), "extra"}
    hurry(stack, first)
    completed(stack, first, second)
    assert tree(b) == tree(a)
    kept = [name for name in tree(c) if name.startswith(".dms-deleted")]
    assert [name.rpartition("/")[2] for name in kept] == ["extra"]
    assert finished(c) - set(kept) == finished(a)


def test_a_task_that_waits_can_be_cancelled(stack: Stack, data: Path) -> None:
    dst = data / "dst"
    slow = sync(stack, fill(data / "a", "a"), dst, bandwidth=SLOW)
    writes(stack, slow, dst)
    other = sync(stack, fill(data / "b", "b", 3), dst)
    waits(stack, other, "another task writes to")
    answer = stack.client.post(
        f"/api/v1/services/sync/tasks/{other}/cancel", params={"user_id": "kim"}
    )
    assert answer.status_code in {200, 202}, answer.text
    assert stack.wait(other)["status"] == "CANCELLED"
    hurry(stack, slow)
    completed(stack, slow)
    assert tree(dst) == tree(data / "a")


def test_a_frozen_task_keeps_its_successor_out_until_it_is_dead(stack: Stack, data: Path) -> None:
    """Worker and mover are stopped past their lease. What goes on later changes nothing more."""
    dst = data / "dst"
    task_id = sync(stack, fill(data / "a", "a"), dst, bandwidth=SLOW)
    writes(stack, task_id, dst)
    mover = MoverGroup.at(stack, data / "a")
    stack.kill(mover.worker, signal.SIGSTOP)
    frozen = mover.freeze()
    before = finished(dst)
    assert before < finished(data / "a"), "it was too quick"
    waits(stack, task_id, "another task writes to")
    assert finished(dst) == before
    hurry(stack, task_id)
    mover.thaw()
    stack.kill(mover.worker, signal.SIGCONT)
    while True:
        now = finished(dst)
        if not mover.has_locked(dst):  # then some of these may be of its successor
            break
        # One rename each may have been decided before it was stopped (docs/services/sync.md).
        assert len(now - before) <= len(frozen)
    eventually(lambda: not mover.living(), what="it ends")
    completed(stack, task_id)
    assert tree(dst) == tree(data / "a")


def test_a_mover_whose_worker_alone_is_frozen_makes_way(stack: Stack, data: Path) -> None:
    """It hears nothing any more, stops before the lease ends, and the successor goes on."""
    dst = data / "dst"
    task_id = sync(stack, fill(data / "a", "a"), dst, bandwidth=SLOW)
    writes(stack, task_id, dst)
    worker = MoverGroup.at(stack, data / "a").worker
    stack.kill(worker, signal.SIGSTOP)
    hurry(stack, task_id)
    try:
        completed(stack, task_id)
    finally:
        stack.kill(worker, signal.SIGCONT)
    assert tree(dst) == tree(data / "a")


@pytest.mark.parametrize("victim", ["mover", "worker"])
def test_a_killed_holder_leaves_no_lock(stack: Stack, data: Path, victim: str) -> None:
    data = data / victim
    dst = data / "dst"
    task_id = sync(stack, fill(data / "a", "a"), dst, bandwidth=SLOW)
    other = sync(stack, fill(data / "b", "b", 5), dst) if victim == "mover" else None
    writes(stack, task_id, dst)
    mover = MoverGroup.at(stack, data / "a")
    if victim == "worker":
        stack.kill(mover.worker)
    else:
        os.kill(mover.leader, signal.SIGKILL)
    eventually(lambda: not mover.living(), what="all processes of the mover are gone")
    hurry(stack, task_id)
    try:
        for each in filter(None, (task_id, other)):
            assert stack.wait(each)["status"] == "COMPLETED"
    finally:
        if victim == "worker":
            stack.start(mover.worker)
    assert tree(dst) == {**tree(data / "a"), **(tree(data / "b") if other else {})}
