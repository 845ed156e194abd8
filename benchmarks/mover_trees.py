"""The trees that movers are measured with, the mover in a process of its own, and their removal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[1]


def big_files(folder: Path, count: int, size: int) -> None:
    """Make files of random bytes, so many of so many bytes."""
    folder.mkdir(parents=True)
    block = os.urandom(MIB)
    for number in range(count):
        with (folder / f"big-{number}").open("wb") as file:
            for _ in range(size // MIB):
                file.write(block)


def small_files(folder: Path, count: int, size: int, *, in_each: int = 100) -> None:
    """Make so many files of so many random bytes, in directories of a hundred."""
    content = os.urandom(size)
    for number in range(count):
        inner = folder / f"{number // in_each:05}"
        if number % in_each == 0:
            inner.mkdir(parents=True)
        handle = os.open(inner / f"file-{number:07}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(handle, content)
        os.close(handle)


def remove(folder: Path) -> None:
    """Remove a tree, by the quickest program for it."""
    subprocess.run(["rm", "-rf", "--", str(folder)], check=True)


def moved(
    src: Path,
    dst: Path,
    options: dict[str, object],
    *,
    watching: Callable[[subprocess.Popen[str]], object] | None = None,
    extra: dict[str, object] | None = None,
) -> list[dict[str, Any]]:
    """Run the mover in a process of its own, and return what it measured."""
    data = {"src": str(src), "dst": str(dst), "root": str(src.parent), "options": options}
    command = [sys.executable, "-m", "benchmarks.mover_run", json.dumps(data | (extra or {}))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            if watching:
                watching(process)
            output = process.communicate()[0]
        except BaseException:
            process.kill()  # its executors end with it
            raise
    if process.returncode:
        raise SystemExit(f"the mover ended with {process.returncode}")
    return cast("list[dict[str, Any]]", json.loads(output))
