"""The programs in docs/events.md that end by themselves run as they stand there, on a real server.

Those about task events go on for ever, and need a whole DMS: `test_task_events_guide.py`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/events.md"
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text("utf-8"))
PROGRAMS = [program for program in BLOCKS if "TaskEvent" not in program]
EXPECTED = ["창고 1200\n", "orders.new no such shelf 3\n"]


@pytest.mark.parametrize(("program", "expected"), list(zip(PROGRAMS, EXPECTED, strict=True)))
def test_programs_run(program: str, expected: str, dms_redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"DMS_REDIS_WRITE_URL": dms_redis_url, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected
