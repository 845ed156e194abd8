"""The programs in docs/client.md run as they stand there, and its tables name what there is."""

import inspect
import re
import subprocess
import sys
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app import client
from app.client import Client, ClientError, SearchOptions
from tests.support.cli import clean_environment
from tests.support.stack import TOKEN, Stack

PAGE = (Path(__file__).resolve().parents[2] / "docs/client.md").read_text("utf-8")
PROGRAMS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)
ROOT = "/srv/data"
BASE = "http://127.0.0.1:8000/api/v1"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A whole stack, whose root has a small tree to move."""
    with Stack(tmp_path_factory.mktemp("whole")) as stack:
        source = stack.roots[0] / "in"
        source.mkdir()
        (source / "파일.txt").write_text("내용\n" * 100)
        yield stack


def _run(number: int, stack: Stack) -> str:
    """Run a program of the page, its folder and address being the stack's; what it printed."""
    program = PROGRAMS[number].replace(ROOT, str(stack.roots[0])).replace(BASE, stack.api_base)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=clean_environment(DMS_API_BASE=stack.api_base, DMS_OPERATOR_TOKEN=TOKEN),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_tree_is_moved_and_watched(stack: Stack) -> None:
    lines = _run(0, stack).splitlines()
    assert "Dispatching to scheduler" in lines[0]
    assert re.match(r"COMPLETED 1 \{.*\}$", lines[-1])
    assert (stack.roots[0] / "out/파일.txt").exists()


def test_many_at_once(stack: Stack) -> None:
    first, *rest = _run(1, stack).splitlines()
    assert first == "['COMPLETED', 'COMPLETED', 'COMPLETED']"
    assert {line.rpartition("/")[2] for line in rest} == {"copy-0", "copy-1", "copy-2"}


def test_an_operators_program(stack: Stack) -> None:
    lines = _run(2, stack).splitlines()
    assert lines[0] == "0 []"
    assert lines[1].isdigit()


def test_errors(stack: Stack) -> None:
    assert _run(3, stack).splitlines() == [
        "COMPLETED",
        "another's task is a missing one: 404 task-not-found",
    ]


def test_schedules(stack: Stack) -> None:
    following, task_id, page = _run(4, stack).splitlines()
    assert datetime.fromisoformat(following) > datetime.now(UTC)
    assert re.fullmatch(r"s\.nightly\.r\d+", task_id)
    assert page == "['nightly']"


def test_all_programs_are_run() -> None:
    assert len(PROGRAMS) == 5


def test_every_method_is_named() -> None:
    methods = {
        name
        for name, method in vars(Client).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }
    named = set(re.findall(r"(\w+)", PAGE))
    assert methods - named - {"close", "download"} == set()


def test_every_option_of_a_search_is_named() -> None:
    assert SearchOptions.__annotations__.keys() <= set(re.findall(r"`(\w+)`", PAGE))


def test_every_error_is_named() -> None:
    errors = {
        name
        for name in client.__all__
        if isinstance(kind := getattr(client, name), type) and issubclass(kind, ClientError)
    }
    assert errors - {"ClientError"} == set(re.findall(r"(?m)^\| `(\w+Error)` \|", PAGE))
