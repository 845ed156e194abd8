"""The command line as its users run it: a process of its own, found on PATH by its name."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def on_path(folder: Path) -> str:
    """A PATH whose `dms-frontend` is the one under test, installed or not."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "dms-frontend"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m cli.entry "$@"\n')
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def clean_environment(**more: str) -> dict[str, str]:
    """The caller's environment without its DMS settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("DMS_")}
    return {**own, **more}


def dms(
    *arguments: str, env: Mapping[str, str] | None = None, seconds: float = 100.0
) -> subprocess.CompletedProcess[str]:
    """Run one command and return what it said; its deadline is far above what it needs."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli.entry", *arguments],
        env=clean_environment() if env is None else dict(env),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
