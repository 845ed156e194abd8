"""A sync of a real stack whose mover, or one of its executors, is killed below its worker."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.processes import is_alive
from tests.support.stack import Stack, eventually
from tests.support.trees import content_of

# Slow enough to be hit in the middle on any machine: forty seconds for a tree, sixteen for the
# big file. `hurry` ends what was hit.
FILES, FILE_BYTES, BANDWIDTH = 120, 100_000, 300_000
MIB = 1 << 20
BIG, BIG_BANDWIDTH = 192 * MIB, 12 * MIB


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this file."""
    folder = tmp_path_factory.mktemp("movers")
    # Not the quick lease of other tests: beside many others a child takes seconds to start.
    with Stack(folder, roots=[folder / "data"], env={"DMS_LEASE_SECONDS": "12"}) as running:
        yield running


@pytest.fixture
def tree(stack: Stack, request: pytest.FixtureRequest) -> Path:
    """Enough small files for several executors, in a folder of the test's own."""
    folder = stack.roots[0] / str(request.node.name) / "src"
    for number in range(FILES):
        inner = folder / f"폴더-{number % 7}"
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"file-{number:03}").write_bytes(content_of(FILE_BYTES, number))
    return folder


def executors(stack: Stack, tree: Path) -> tuple[int, list[int]]:
    """Wait for a mover in the middle of its work: its process, and those of its executors.

    Below the worker are the keepers, below each the child that a mover runs in.
    """

    def found() -> tuple[int, list[int]] | None:
        begun = any(tree.parent.glob("dst/*/.dms-tmp.*"))
        with suppress(psutil.NoSuchProcess):
            for keeper in psutil.Process(stack.pid("worker")).children():
                for child in keeper.children():
                    below = [each.pid for each in child.children()]
                    if begun and len(below) > 1:
                        return child.pid, below
        return None

    mover = eventually(found, what="a mover with executors")
    assert mover is not None
    return mover


def start(stack: Stack, tree: Path, **parameters: Any) -> str:
    dst = str(tree.parent / "dst")
    return stack.submit("sync", "kim", src=str(tree), dst=dst, transfers=2, **parameters)


def hurry(stack: Stack, task_id: str) -> None:
    """Take the limit away, for the attempt that runs and those to come."""
    path = f"/api/v1/services/sync/tasks/{task_id}?user_id=kim"
    answer = stack.client.patch(path, json={"bandwidth": 0})
    assert answer.status_code == 200, answer.text


def assert_whole(stack: Stack, tree: Path, task_id: str) -> dict[str, Any]:
    task = stack.wait(task_id, timeout=90)
    assert task["status"] == "COMPLETED", task
    dst = tree.parent / "dst"
    names = {path.relative_to(tree) for path in tree.rglob("*")}
    assert {path.relative_to(dst) for path in dst.rglob("*")} == names
    for path in tree.rglob("*"):
        if path.is_file():
            assert (dst / path.relative_to(tree)).read_bytes() == path.read_bytes()
    return task


@pytest.mark.parametrize("victim", ["mover", "executor"])
def test_a_mover_that_is_killed_is_followed_by_another_attempt(
    stack: Stack, tree: Path, victim: str
) -> None:
    task_id = start(stack, tree, bandwidth=BANDWIDTH)
    mover, children = executors(stack, tree)
    os.kill(mover if victim == "mover" else children[0], signal.SIGKILL)
    hurry(stack, task_id)
    eventually(lambda: not any(map(is_alive, children)), what="its executors are gone")
    task = assert_whole(stack, tree, task_id)
    assert task["epoch"] >= 2


def test_a_cancelled_mover_leaves_no_executor_behind(stack: Stack, tree: Path) -> None:
    task_id = start(stack, tree, bandwidth=BANDWIDTH)
    _, children = executors(stack, tree)
    path = f"/api/v1/services/sync/tasks/{task_id}/cancel?user_id=kim"
    assert stack.client.post(path).status_code in {200, 202}
    assert stack.wait(task_id)["status"] == "CANCELLED"
    assert not any(map(is_alive, children))
    assert not list(tree.parent.glob("dst/**/.dms-*"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_big_file_goes_on_after_its_worker_went(stack: Stack, how: signal.Signals) -> None:
    tree = stack.roots[0] / f"big-{how.name}/src"
    tree.mkdir(parents=True)
    block = content_of(MIB, 1)
    with (tree / "file").open("wb") as file:
        for number in range(BIG // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    task_id = start(stack, tree, bandwidth=BIG_BANDWIDTH)

    def part_done() -> bool:
        found = tree.parent.glob("dst/.dms-part*journal")
        return any(each.read_bytes().count(b"\n") >= 2 for each in found)

    eventually(part_done, what="a part is done")
    if how is signal.SIGKILL:
        stack.kill("worker", how)
    else:
        stack.stop("worker")
    hurry(stack, task_id)
    stack.start("worker")
    task = assert_whole(stack, tree, task_id)
    assert task["epoch"] >= 2
    moved = task["result"]["data"]["totals"]["bytes"]
    assert 0 < moved <= BIG - 32 * MIB, "what was done is copied again"
