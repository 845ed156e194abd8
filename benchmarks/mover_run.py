"""One run of the native mover in a process of its own: python -m benchmarks.mover_run REQUEST.

REQUEST is a JSON object: `src`, `dst`, `root`, `options`, and perhaps `cancel_after` (seconds, from
when the run begins) or `repeat`. It prints what was measured as one line of JSON. What is timed is
the mover alone: a worker's children have Python and the imports behind them, too.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from dms_scheduler.movers import (
    Cancelled,
    Fsync,
    MoveOptions,
    MoveRequest,
    NativeMover,
    Progress,
    ReportEntry,
    Verify,
)


class Watch:
    """A control that takes everything, notes how late progress is, and may cancel."""

    deadline = math.inf
    bandwidth: int | None = None

    def __init__(self, target: Path | None, cancel_after: float | None) -> None:
        self._target = target
        self._begun = self._heard = time.monotonic()
        self.cancel_at = math.inf if cancel_after is None else self._begun + cancel_after
        self.longest_gap = 0.0
        self.furthest_behind = 0.0
        self.lines = 0

    def check(self) -> None:
        if time.monotonic() >= self.cancel_at:
            raise Cancelled("cancelled by the benchmark")

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self._heard)
        self._heard = now
        if self._target and progress.speed:
            behind = _written(self._target) - progress.bytes
            self.furthest_behind = max(self.furthest_behind, behind / progress.speed)

    def log(self, message: str) -> None:
        return

    def report(self, entry: ReportEntry) -> None:
        self.lines += 1


def _written(folder: Path) -> int:
    """Bytes that are at the destination by now, also those of files that are on their way."""
    return sum(each.stat().st_blocks * 512 for each in os.scandir(folder) if each.is_file())


def request_of(data: dict[str, Any], number: int = 0) -> MoveRequest:
    """Return the mover's request."""
    options = dict(data["options"])
    options["verify"] = Verify(options.pop("verify", "transferred"))
    options["fsync"] = Fsync(options.pop("fsync", "end"))
    suffix = f".{number}" if data.get("repeat") else ""
    return MoveRequest(
        task_id=f"bench-{os.getpid()}",
        epoch=1,
        src=data["src"],
        dst=data["dst"] + suffix,
        roots=(data["root"],),
        options=MoveOptions(**options),
    )


def _measured(data: dict[str, Any], number: int) -> dict[str, object]:
    request = request_of(data, number)
    watch = Watch(Path(data["dst"]) if data.get("watch") else None, data.get("cancel_after"))
    begun = time.monotonic()
    try:
        files = NativeMover().run(request, watch).totals.files
    except Cancelled:
        return {"cancelled": True, "late": time.monotonic() - watch.cancel_at}
    return {
        "seconds": time.monotonic() - begun,
        "files": files,
        "gap": watch.longest_gap,
        "behind": watch.furthest_behind,
    }


def main() -> None:
    """Run what the command line describes."""
    data = json.loads(sys.argv[1])
    print(json.dumps([_measured(data, number) for number in range(data.get("repeat", 1))]))


if __name__ == "__main__":
    main()
