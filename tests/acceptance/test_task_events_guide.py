"""The programs in docs/events.md that work on the ends of tasks, beside a whole DMS."""

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.stack import Stack, eventually

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```", (ROOT / "docs/events.md").read_text("utf-8"))
PROGRAMS = [block for block in BLOCKS if "TaskEvent" in block]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("guide")
    with Stack(folder, env={"DMS_TASK_MODULES": "examples.reports"}) as stack:
        yield stack


@contextmanager
def program(stack: Stack, text: str, group: str, output: Path) -> Generator[None]:
    """The program at work: its group is there."""
    environment = {**stack.environment, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-W", "error", "-c", text]
    with output.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=file)

    def ready() -> bool:
        assert process.poll() is None, output.read_text()
        answer = stack.client.get("/api/v1/admin/queues", headers=stack.operator)
        return any(queue["group"] == group for queue in answer.json()["queues"])

    try:
        eventually(ready)
        yield
        assert process.poll() is None, output.read_text()
    finally:
        process.kill()
        process.wait()


def test_failures_are_told(stack: Stack, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with program(stack, PROGRAMS[0], "alarms", output):
        failed = stack.submit("generateUserReport", "앨리스".encode().hex(), reportType="yearly")
        eventually(lambda: f"generateUserReport {failed} " in output.read_text())
    assert "reportType" in output.read_text(), "the error is told too"


def test_an_end_starts_the_next_task(stack: Stack, tmp_path: Path) -> None:
    source = stack.roots[0] / "source"
    source.mkdir()
    with program(stack, PROGRAMS[1], "reports", tmp_path / "output"):
        copy = str(stack.roots[0] / "copy")
        sync = stack.submit("sync", "bob", src=str(source), dst=copy, allow_empty_src=True)
        stack.wait(sync, "COMPLETED")

        def reports() -> list[str]:
            answer = stack.client.get("/api/v1/services/generateUserReport/users/bob/tasks")
            return [task["task_id"] for task in answer.json()["tasks"]]

        (report,) = eventually(reports)
        assert stack.wait(report, "COMPLETED")["parameters"]["userId"] == "bob"


def test_every_program_was_run() -> None:
    assert len(PROGRAMS) == 2
