"""examples/pipeline.py on a whole DMS: kill it, and chains are complete and nothing is doubled."""

import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.client import AsyncClient
from app.tasks import TaskEvent
from examples.pipeline import Pipeline, Step, StepRefusedError
from task_state import TaskStatus
from tests.support.stack import Stack, eventually

ROOT = Path(__file__).resolve().parents[2]
CHAINS = 6


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("pipeline")
    with Stack(folder, env={"DMS_TASK_MODULES": "examples.pipeline_tasks"}) as stack:
        yield stack


@contextmanager
def pipeline(stack: Stack, user: str, log: Path) -> Generator[subprocess.Popen[bytes]]:
    """The program, from when it has subscribed; leaving kills it if it still lives."""
    command = [sys.executable, "-P", "-m", "examples.pipeline", user, "--lease-seconds", "2"]
    environment = {**stack.environment, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=output)
    try:
        eventually(lambda: b"ready" in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


def tasks(stack: Stack, service: str, user: str) -> list[dict[str, Any]]:
    answer = stack.client.get(f"/api/v1/services/{service}/users/{user}/tasks?limit=200")
    assert answer.status_code == 200, answer.text
    return answer.json()["tasks"]


def ended(stack: Stack, service: str, user: str, count: int) -> list[dict[str, Any]]:
    """The tasks, once so many of them have ended."""

    def look() -> list[dict[str, Any]]:
        found = tasks(stack, service, user)
        over = [task for task in found if task["status"] in {"COMPLETED", "FAILED"}]
        return found if len(over) >= count else []

    return eventually(look, 90.0, f"{count} tasks of {service} ended")


def submit_syncs(stack: Stack, user: str) -> set[str]:
    """Trees to copy, each by a task; and one whose source is missing."""
    for number in range(CHAINS):
        source = stack.roots[0] / user / f"원본{number}"
        source.mkdir(parents=True)
        for name in range(3):
            (source / f"파일 {name}").write_text(f"{number} {name}" * 100)
    return {
        stack.submit(
            "sync",
            user,
            src=str(stack.roots[0] / user / f"원본{number}"),
            dst=str(stack.roots[0] / user / f"사본{number}"),
        )
        for number in range(CHAINS + 1)
    }


def settled(stack: Stack, user: str) -> bool:
    """Whether none of the user's groups has anything left to do."""
    answer = stack.client.get("/api/v1/admin/queues", headers=stack.operator)
    queues = [each for each in answer.json()["queues"] if each["group"] == f"pipeline.{user}"]
    assert len(queues) == 3
    return not any(queue["waiting"] or queue["unsettled"] for queue in queues)


def test_a_killed_pipeline_loses_no_step_and_doubles_none(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, "alice", tmp_path / "first") as first:
        syncs = submit_syncs(stack, "alice")
        eventually(lambda: tasks(stack, "check", "alice"), what="a second step")
        first.kill()
        first.wait()
    ended(stack, "sync", "alice", CHAINS + 1)  # some of them while no pipeline was there
    with pipeline(stack, "alice", tmp_path / "second"):
        ended(stack, "notify", "alice", CHAINS + 1)
        eventually(lambda: settled(stack, "alice"), what="every event was worked off")
    compared = tasks(stack, "check", "alice")
    notes = tasks(stack, "notify", "alice")
    assert {task["status"] for task in compared + notes} == {"COMPLETED"}
    good = Counter(task["parameters"]["label"] for task in compared)
    assert len(good) == CHAINS
    assert set(good) < syncs
    told = Counter(task["parameters"]["after"] for task in notes)
    assert set(told) == {task["task_id"] for task in compared} | (syncs - set(good))
    assert {*good.values(), *told.values()} == {1}, "nothing was started twice"
    (bad,) = (task for task in notes if task["parameters"]["after"] in syncs)
    assert "FAILED" in bad["parameters"]["text"]
    letters = stack.client.get("/api/v1/admin/dead-letters", headers=stack.operator)
    assert letters.json()["dead_letters"] == []


def test_trees_that_differ_are_told(stack: Stack, tmp_path: Path) -> None:
    left, right = (stack.roots[0] / "bob" / name for name in "ab")
    for folder, text in ((left, "one"), (right, "two")):
        folder.mkdir(parents=True)
        (folder / "같은 이름").write_text(text)
        (folder / "same").write_text("same")
    with pipeline(stack, "bob", tmp_path / "log"):
        stack.submit("check", "bob", src=str(left), dst=str(right))
        (note,) = ended(stack, "notify", "bob", 1)
    assert "FAILED 1 entry differs" in note["parameters"]["text"]
    (compared,) = tasks(stack, "check", "bob")
    task = stack.task(compared["task_id"]) or {}
    assert task["result"]["data"]["sample"][0]["path"] == "같은 이름"


async def test_a_step_that_nobody_takes_is_refused_and_not_passed_over(stack: Stack) -> None:
    """As when the address of the API is wrong: its 404 is not that of a task that is gone."""
    ended = TaskEvent(
        topic="tasks.sync.FAILED",
        task_id="1",
        service="sync",
        user_id="dave",
        status=TaskStatus.FAILED,
        completed_at=datetime.now(UTC),
    )
    step = Step(topic="pipeline.notify", service="notify", after=ended)
    async with AsyncClient(f"{stack.api_base}/nowhere") as client:
        with pytest.raises(StepRefusedError):
            await Pipeline("dave", client).start_task(step)


def test_ends_are_counted_and_queues_measured(stack: Stack) -> None:
    """What the scheduler tells Prometheus."""
    stack.wait(stack.submit("notify", "carol", after="0", text="hello"), "COMPLETED")
    url = f"http://127.0.0.1:{stack.plan.scheduler_port}/metrics"

    def look() -> bool:
        lines = stack.client.get(url).text.splitlines()
        published = [
            line.split()[-1]
            for line in lines
            if line.startswith('dms_task_events_published_total{status="COMPLETED"}')
        ]
        return "dms_event_broker_up 1.0" in lines and any(float(each) >= 1 for each in published)

    eventually(look, what="the metrics tell of it")
