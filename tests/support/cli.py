"""The command line as its users run it: a process of its own, found on PATH by its name."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tests.support.warm import Warm


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
    """Run one command in a warm process (see `tests.support.warm`) and return what it said.

    Its deadline is far above what it needs.
    """
    environment = clean_environment() if env is None else env
    with (
        TemporaryFile() as out,
        TemporaryFile() as err,
        Warm(arguments, environment, out, err) as process,
    ):
        code = process.wait(seconds)
        return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def entry(*arguments: str) -> Sequence[str]:
    """What starts the same by a new Python, as people do: to signal it, to give it a terminal."""
    return [sys.executable, "-P", "-m", "cli.entry", *arguments]
