"""The native mover beside cp, rsync, rclone; its memory, cancels and progress; and the service.

DMS_BENCH_MOVERS names the parts to run (copy, memory, cancel, progress, service; all), ..._SCALE
how much of the data is used (1), ..._ROUNDS how many rounds (5); DMS_BENCH_TMPFS and DMS_BENCH_DISK
are the two places. At most 3 GiB are used on the disk, 4 GiB on the tmpfs; all of it is removed,
after Ctrl-C too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import movers_copying, movers_limits, movers_service
from benchmarks.mover_trees import remove


def scale() -> float:
    """How much of the full size is measured."""
    return float(os.environ.get("DMS_BENCH_MOVERS_SCALE", "1"))


def rounds() -> int:
    """How often each is measured."""
    return int(os.environ.get("DMS_BENCH_MOVERS_ROUNDS", "5"))


def places() -> dict[str, Path]:
    """Where is measured; a tmpfs that is not there is left out."""
    given = {
        "tmpfs": os.environ.get("DMS_BENCH_TMPFS", "/dev/shm"),
        "disk": os.environ.get("DMS_BENCH_DISK", tempfile.gettempdir()),
    }
    return {name: Path(path) for name, path in given.items() if os.access(path, os.W_OK)}


@contextmanager
def folder_in(place: Path) -> Generator[Path]:
    """A folder of this benchmark's own, that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="dms-bench-", dir=place))
    try:
        yield folder
    finally:
        remove(folder)


def _copy() -> None:
    for name, place in places().items():
        with folder_in(place) as folder:
            movers_copying.measure(name, folder, scale(), rounds())


def _memory() -> None:
    with folder_in(next(iter(places().values()))) as folder:
        movers_limits.measure_memory(folder, round(1_000_000 * scale()))


def _cancel() -> None:
    with folder_in(list(places().values())[-1]) as folder:
        movers_limits.measure_cancels(folder, scale(), cancels=10 * rounds())


def _progress() -> None:
    with folder_in(next(iter(places().values()))) as folder:
        movers_limits.measure_progress(folder, scale())


def _service() -> None:
    with folder_in(list(places().values())[-1]) as folder:
        movers_service.measure(folder, tasks=10 * rounds())


PARTS: dict[str, Callable[[], None]] = {
    "copy": _copy,
    "memory": _memory,
    "cancel": _cancel,
    "progress": _progress,
    "service": _service,
}


def main() -> None:
    """Measure and print."""
    for name in os.environ.get("DMS_BENCH_MOVERS", ",".join(PARTS)).split(","):
        PARTS[name]()


if __name__ == "__main__":
    main()
