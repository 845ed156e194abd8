"""The guide to writing tasks, docs/tasks.md: its blocks run on a whole DMS, as they stand there."""

import os
import re
import subprocess
import sys
from collections.abc import Generator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from app.tasks import TaskOptions
from tests.support.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tasks.md").read_text("utf-8")
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)
DEFINING = [block for block in BLOCKS if "asyncio.run(" not in block]
PROGRAMS = [block for block in BLOCKS if "asyncio.run(" in block]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A DMS whose workers know the page's blocks as one module, top to bottom."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "guide_tasks.py").write_text("\n\n".join(DEFINING))
    environment = {
        "DMS_TASK_MODULES": "guide_tasks",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
    }
    with Stack(folder, env=environment) as stack:
        yield stack


def _run(stack: Stack, service: str, **parameters: Any) -> dict[str, Any]:
    return stack.wait(stack.submit(service, "alice", **parameters))


def test_the_page_shows_the_examples_as_they_are() -> None:
    reports = (ROOT / "examples/reports.py").read_text("utf-8")
    monitor = (ROOT / "examples/task_monitor.py").read_text("utf-8")
    assert len(DEFINING) >= 4
    assert len(PROGRAMS) == 1
    assert PROGRAMS[0] == monitor
    body = DEFINING[0][DEFINING[0].index("class ReportPayload") :]
    assert body in reports


def test_the_report(stack: Stack) -> None:
    task = _run(stack, "generateUserReport", userId="alice", reportType="daily")
    assert task["status"] == "COMPLETED"
    assert set(task["result"]["data"]) == {"reportUrl", "generatedAt"}
    assert task["history"] == []


def test_the_decorated_function(stack: Stack) -> None:
    assert _run(stack, "squares", count=4)["result"]["data"] == {"sum": 14}


@pytest.mark.parametrize(
    ("answer", "status", "attempts", "data"),
    [
        ("busy", "COMPLETED", 2, {"rows": 3}),
        ("full", "COMPLETED", 1, {"rows": 3}),
        ("gone", "FAILED", 1, {"looked_for": "gone"}),
        ("empty", "FAILED", 1, {"rows": 0}),
    ],
)
def test_answers(stack: Stack, answer: str, status: str, attempts: int, data: Any) -> None:
    task = _run(stack, "fetch", answer=answer)
    assert (task["status"], task["attempts"]) == (status, attempts)
    assert task["result"]["data"] == data
    if attempts == 2:
        assert [(note["outcome"], note["reason"]) for note in task["history"]] == [
            ("failed", "the service is busy")
        ]


def test_the_checkpoint(stack: Stack) -> None:
    task = _run(stack, "copyRows", rows=100)
    assert task["status"] == "COMPLETED"
    assert task["result"]["data"] == {"begun_at": 40, "attempt": 2}


def test_the_options_are_those_of_the_code(stack: Stack) -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \|", PAGE.split("## Options")[1].split("## ")[0])
    assert set(rows) == {each.name for each in fields(TaskOptions) if each.init}
    answer = stack.client.get("/api/v1/definitions").json()
    described = {each["id"]: each for each in answer["definitions"]}
    assert described["fetch"]["max_attempts"] == 5
    assert set(described["generateUserReport"]["result"]["properties"]) == {
        "reportUrl",
        "generatedAt",
    }


def test_the_monitor_runs(stack: Stack) -> None:
    task_id = stack.submit("generateUserReport", "alice", userId="앨리스", reportType="monthly")
    stack.wait(task_id)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.task_monitor", task_id, "no-such-task"],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tasks are PENDING" in done.stdout
    description = "Generates a user's report in the background"
    assert f"--- task {task_id} is COMPLETED: {description}\n" in done.stdout
    assert '"userId": "앨리스"' in done.stdout
    assert "--- there is no task no-such-task" in done.stdout
    assert re.search(
        rf"{re.escape(description)}\): \d+ tasks; the newest, {task_id}, ", done.stdout
    )
