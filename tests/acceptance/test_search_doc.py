"""docs/api.md and docs/search.md against the code: every route, every option, and the program."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from app.api.listing import TaskQuery
from app.main import create_app
from app.tasks import TaskSearchOptions
from task_state import TaskRecord, TaskResult, TaskStatus
from task_state.repository import RedisTaskRepository
from tests.support.frontend import API, REDIS_NOWHERE, make_settings

DOCS = Path(__file__).resolve().parents[2] / "docs"
SEARCH = (DOCS / "search.md").read_text("utf-8")


def test_every_route_is_documented() -> None:
    paths: dict[str, dict[str, Any]] = create_app(make_settings(REDIS_NOWHERE)).openapi()["paths"]
    real = {(verb.upper(), path) for path, operations in paths.items() for verb in operations}
    rows = re.findall(
        r"(?m)^\| (GET|POST|PATCH|DELETE) \| (root )?`(\S+)` \|",
        (DOCS / "api.md").read_text("utf-8"),
    )
    documented = {(verb, path if root else API + path) for verb, root, path in rows}
    assert documented == real


@pytest.mark.parametrize(
    ("column", "real"),
    [
        (0, set(TaskQuery.model_fields)),
        (1, {each.name for each in fields(TaskSearchOptions)}),
    ],
    ids=["http", "python"],
)
def test_every_option_is_documented(column: int, real: set[str]) -> None:
    rows = re.findall(r"(?m)^\| (`.*?) \| (`.*?) \| .* \|$", SEARCH)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[column])} == real


async def test_the_program_runs(dms_redis_url: str, dms_repository: RedisTaskRepository) -> None:
    (program,) = re.findall(r"(?ms)^```python\n(.*?)^```", SEARCH)
    record = TaskRecord(
        task_id="t-1",
        service="report",
        user_id="alice",
        status=TaskStatus.FAILED,
        parameters={"이름": "값"},
        result=TaskResult(error="it broke"),
    )
    await dms_repository.save(record)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"DMS_REDIS_WRITE_URL": dms_redis_url, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "1 tasks failed or were cancelled in a day",
        "t-1 report FAILED it broke {'이름': '값'}",
    ]
    assert done.stderr == ""
