"""docs/scheduler.md: its programs run as they stand, and its options are those of the code."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.scheduler import create_cron_trigger, create_event_trigger

PAGE = (Path(__file__).resolve().parents[2] / "docs/scheduler.md").read_text("utf-8")
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)
PRINTED = ["somebody ordered 책상\n", "", "", "3 events\n"]


def test_the_page_has_these_blocks() -> None:
    assert len(BLOCKS) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_blocks_run(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[number]],
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, PRINTED[number], "")


@pytest.mark.parametrize(
    ("title", "maker"),
    [("Cron triggers", create_cron_trigger), ("Event triggers", create_event_trigger)],
)
def test_options(title: str, maker: Callable[..., Any]) -> None:
    section = PAGE.split(f"## {title}")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| (`.*?) \| (.*?) \|", section)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    parameters = inspect.signature(maker).parameters
    assert documented == {
        name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY
    }
    for names, default in rows:
        real = [parameters[name].default for name in re.findall(r"`(\w+)`", names)]
        shown = {"none": None, "any": None}.get(default, default.strip('`"'))
        assert all(str(value).removesuffix(".0") == str(shown) for value in real), names
