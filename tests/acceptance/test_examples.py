"""The README's commands and the module of user tasks in examples/, on a whole DMS."""

import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import Stack

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("examples")
    with Stack(folder, env={"DMS_TASK_MODULES": "examples.reports"}) as stack:
        yield stack


def _run_and_wait(stack: Stack, service: str, **parameters: str) -> tuple[int, dict[str, Any]]:
    """Submit by the CLI as the example's docstring does; the exit code and the finished task."""
    pairs = [part for name, value in parameters.items() for part in ("--param", f"{name}={value}")]
    command = ["tasks", "submit", "--service", service, "--user", "alice", "--wait", "-o", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "cli.entry", *command, *pairs],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_an_async_handler_of_a_users_module(stack: Stack) -> None:
    code, task = _run_and_wait(stack, "generateUserReport", userId="alice", reportType="daily")
    assert (code, task["status"]) == (0, "COMPLETED")
    assert task["result"]["data"]["reportUrl"].endswith(f"/alice/daily/{task['task_id']}")
    assert task["progress"] == {"phase": "publish", "done": 3, "of": 3}
    assert any("generating the daily report of alice" in line for line in task["logs"])


def test_parameters_that_do_not_fit_end_the_task_with_the_reason(stack: Stack) -> None:
    code, task = _run_and_wait(stack, "generateUserReport", userId="alice", reportType="yearly")
    assert (code, task["status"]) == (10, "FAILED")
    assert "reportType" in task["result"]["error"]


def test_a_blocking_handler_of_a_users_module(stack: Stack) -> None:
    code, task = _run_and_wait(stack, "countWords", text="a b 가\n가 a 가")
    assert (code, task["status"]) == (0, "COMPLETED")
    assert task["result"]["data"] == {"가": 3, "a": 2, "b": 1}


def test_the_readme_moves_a_tree(stack: Stack) -> None:
    """The example's first block as it stands; only address, task id and waiting are filled in."""
    folder = stack.roots[0]
    source = folder / ".venv"
    for number in range(20):
        file = source / f"lib{number % 3}/파일 {number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content {number}\n" * number)
    example = re.search(r"(?s)```bash\n(api=.*?)```", (ROOT / "README.md").read_text("utf-8"))
    assert example
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _script(example[1], stack)],
        cwd=folder,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("equal\n"), "diff -r found a difference"
    assert len(list((folder / "build/venv-copy").rglob("*.txt"))) == 20


def _script(block: str, stack: Stack) -> str:
    """The block with the values that a reader fills in, waiting for the end before the diff."""
    block = block.replace("http://127.0.0.1:8000/api/v1", stack.api_base)
    block = block.replace("curl ", "curl --silent --show-error --fail ")
    submit, rest = block.split("# Status:", 1)
    submit = re.sub(r"\ncurl (.*?)\n# \{", r"\nanswer=$(curl \1)\n# {", submit, flags=re.DOTALL)
    given = r"""task_id=$(sed -E 's/.*"task_id": ?"([^"]+)".*/\1/' <<<"$answer")"""
    submit = re.sub(r'task_id="\d+".*', lambda _: given, submit)
    wait = f"{sys.executable} -m cli.entry tasks wait --service sync --user alice"
    rest = rest.replace("diff -r", f'{wait} --task-id "$task_id" >&2\ndiff -r')
    return f"{submit}# Status:{rest}"
