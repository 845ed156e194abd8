"""The programs in docs/services/task_state.md run as they stand there, against a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from task_state import TaskStatus
from task_state.repository import RedisTaskRepository

PAGE = Path(__file__).resolve().parents[2] / "docs/services/task_state.md"
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text("utf-8"))
PROGRAMS = [block for block in BLOCKS if "asyncio.run(" in block]


def _run(program: str, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"DMS_REDIS_WRITE_URL": url, "DMS_TIMEZONE": "Asia/Seoul"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_both_programs() -> None:
    assert len(PROGRAMS) == 2


@pytest.mark.parametrize("number", range(2))
async def test_programs_run(
    number: int, dms_redis_url: str, dms_repository: RedisTaskRepository
) -> None:
    printed = _run(PROGRAMS[number], dms_redis_url)
    page = await dms_repository.list_all()
    assert [task.status for task in page] == [TaskStatus.COMPLETED]
    if number == 1:
        pattern = r"COMPLETED \d{4}-\d\d-\d\dT\S+\+09:00,finished 1200 rows\n"
        assert re.fullmatch(pattern, printed.replace("\n\n", "\n"))
