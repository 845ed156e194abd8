"""What the native mover promises at its limits: memory at a million files, cancels, progress."""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil

from benchmarks.mover_trees import MIB, big_files, moved, remove, small_files
from benchmarks.table import print_table, verdict

GOAL_MIB, GOAL_CANCEL, GOAL_LAG = 200, 2.0, 1.0
BURN = """
import hashlib, os, sys
data = bytes(1 << 20)
while os.getppid() == int(sys.argv[1]):
    hashlib.sha256(data).digest()
"""
FILL = """
import os, sys
data = os.urandom(1 << 20)
while os.getppid() == int(sys.argv[1]):
    with open(sys.argv[2], "wb") as file:
        for _ in range(64):
            file.write(data)
        os.fsync(file.fileno())
"""


# ------------------------------------------------------------------------------------------- memory
class Peak:
    """The most memory that a process and all below it had together, of their own share (PSS)."""

    def __init__(self) -> None:
        self.mib = 0.0
        self.processes = 0

    def watch(self, process: subprocess.Popen[str]) -> None:
        """Look ten times a second until it ends."""
        while process.poll() is None:
            shares = [_share(each) for each in _family(process.pid)]
            self.mib = max(self.mib, sum(shares) / MIB)
            self.processes = max(self.processes, len(shares))
            time.sleep(0.1)


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    return []


def _share(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
        return int(process.memory_full_info().pss)
    return 0


def measure_memory(folder: Path, files: int) -> None:
    """Copy so many empty files, copy them again, and delete them all."""
    rows: list[list[str]] = []
    for shape, in_each in (
        (f"{files:,} empty files, 1,000 a directory", 1000),
        ("all in one", files),
    ):
        small_files(folder / "src", files, 0, in_each=in_each)
        rows += [[shape, *row] for row in _memory_rows(folder, files)]
        remove(folder / "src")
    head = ["tree", "run", "s", "MiB of all processes", "processes", f"goal <= {GOAL_MIB}"]
    print_table("Memory", head, rows)


def _memory_rows(folder: Path, files: int) -> Generator[list[str]]:
    src, dst = folder / "src", folder / "dst"
    (folder / "nothing").mkdir(exist_ok=True)
    runs: list[tuple[str, Path, dict[str, object]]] = [
        ("copy", src, {}),
        ("nothing to do", src, {"delete": True}),
        (
            "delete all",
            folder / "nothing",
            {
                "delete": True,
                "max_delete": 2 * files + 1000,
                "allow_empty_src": True,
                "backup_deleted": False,
            },
        ),
    ]
    for name, source, options in runs:
        peak = Peak()
        (answer,) = moved(source, dst, options, watching=peak.watch)
        said = verdict(peak.mib, GOAL_MIB)
        yield [name, f"{answer['seconds']:.1f}", f"{peak.mib:.0f}", str(peak.processes), said]


# ------------------------------------------------------------------------------------------ cancels
@contextlib.contextmanager
def load(folder: Path) -> Generator[None]:
    """Two programs that compute, and one that writes to the same disk, until the block ends."""
    me = str(psutil.Process().pid)
    commands = [[BURN, me], [BURN, me], [FILL, me, str(folder / "load")]]
    running = [subprocess.Popen([sys.executable, "-c", *each]) for each in commands]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure_cancels(folder: Path, scale: float, cancels: int) -> None:
    """Cancel runs at random moments, from the plan to the flush at the end, under load."""
    big_files(folder / "src/big", 2, max(1, round(256 * scale)) * MIB)
    small_files(folder / "src/small", max(100, round(5000 * scale)), 4096)
    chance, late = random.Random(5), list[float]()
    with load(folder):
        whole = _cancelled(folder, None)
        while len(late) < cancels:
            answer = _cancelled(folder, chance.uniform(0.01, whole))
            if answer >= 0:
                late.append(answer)
    late.sort()
    p50, p99 = statistics.median(late), late[min(len(late) - 1, len(late) * 99 // 100)]
    print_table(
        "Cancels under load, from the moment to the end of the run",
        ["cancels", "a whole run s", "p50 s", "p99 s", f"goal <= {GOAL_CANCEL:g}"],
        [
            [
                str(len(late)),
                f"{whole:.1f}",
                f"{p50:.3f}",
                f"{p99:.3f}",
                verdict(p99, GOAL_CANCEL),
            ]
        ],
    )


def _cancelled(folder: Path, after: float | None) -> float:
    """Return how late the end was, -1 if all was done before; without `after` the whole time."""
    remove(folder / "dst")
    (answer,) = moved(folder / "src", folder / "dst", {}, extra={"cancel_after": after})
    if after is None:
        return float(answer["seconds"])
    return float(answer["late"]) if answer.get("cancelled") else -1.0


# ----------------------------------------------------------------------------------------- progress
def measure_progress(folder: Path, scale: float) -> None:
    """See how long progress is silent, and how far it is behind what is written."""
    size = max(1, round(256 * scale)) * MIB
    big_files(folder / "src", 4, size)
    rows: list[list[str]] = []
    for verify in ("none", "transferred"):
        remove(folder / "dst")
        options: dict[str, object] = {"verify": verify, "bandwidth": size}
        (answer,) = moved(folder / "src", folder / "dst", options, extra={"watch": True})
        worst = max(answer["gap"], answer["behind"])
        silent, behind = f"{answer['gap']:.2f}", f"{answer['behind']:.2f}"
        rows.append([verify, silent, behind, verdict(worst, GOAL_LAG)])
    head = ["verify", "longest silence s", "furthest behind s", f"goal <= {GOAL_LAG:g}"]
    print_table(f"Progress of 4 x {size // MIB} MiB, one file a second", head, rows)
