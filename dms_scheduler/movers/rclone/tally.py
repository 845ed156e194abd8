"""Counts what one run of rclone does, and makes its progress from that and rclone's own numbers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from dms_scheduler.movers.rclone.answers import fields, items, number
from dms_scheduler.movers.rclone.names import plain
from dms_scheduler.movers.results import (
    MAX_FAILED_PATHS,
    ActiveFile,
    FailedPath,
    Phase,
    Progress,
    ReportEntry,
    Totals,
)

_MOST_ACTIVE = 8


class Tally:
    """Counts and failures of one run. Written by the thread that reads the log, read by all."""

    def __init__(self) -> None:
        self.phase = Phase.PLAN
        self.counts: Counter[str] = Counter()
        self.sample: list[ReportEntry] = []
        self.failed: list[FailedPath] = []
        self.failed_count = 0
        self.retryable = False
        self.planned: Totals | None = None
        self._progress = Progress(phase=Phase.PLAN)
        self._finished_bytes = 0
        self._job_bytes = 0
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self._begun

    @property
    def totals(self) -> Totals:
        """The counts so far."""
        return Totals(**self.counts)

    def fail(self, path: str, reason: str, error_class: str, *, retryable: bool) -> bool:
        """Record a failure; return whether it is among those that are named."""
        self.failed_count += 1
        self.retryable = self.retryable or retryable
        named = len(self.failed) < MAX_FAILED_PATHS
        if named:
            self.failed.append(FailedPath(path=path, reason=reason, error_class=error_class))
        return named

    def keep(self, entry: ReportEntry) -> None:
        """Keep the first entries for the answer."""
        if len(self.sample) < MAX_FAILED_PATHS:
            self.sample.append(entry)

    def job_ended(self) -> None:
        """Begin to count the bytes of another job on top."""
        self._finished_bytes += self._job_bytes
        self._job_bytes = 0

    def progress(self, stats: Mapping[str, object] | None) -> Progress:
        """Return the progress, with what rclone says of its job if it is moving data."""
        planning = self.phase is Phase.PLAN  # what is counted then is not done yet
        now = replace(
            self._progress,
            phase=self.phase,
            files=0 if planning else self.counts["files"],
            checks=self.counts["checks"],
            deletes=0 if planning else self.counts["deleted"],
            errors=self.failed_count,
            speed=0.0,
            eta=None,
            active=(),
        )
        if stats is not None:
            now = self._with_stats(now, stats)
        self._progress = now
        return now

    def _with_stats(self, now: Progress, stats: Mapping[str, object]) -> Progress:
        active = tuple(_active(stats.get("transferring")))
        copying = self.phase is Phase.COPY
        if copying:
            self._job_bytes = max(self._job_bytes, int(number(stats.get("bytes"))))
        moved = self._finished_bytes + self._job_bytes
        expected = self.planned or self.totals
        total = max(expected.bytes, moved, now.total_bytes)
        speed = _speed(stats)
        known = copying and self.planned is not None and speed > 0
        return replace(
            now,
            bytes=moved,
            checks=max(now.checks, int(number(stats.get("checks")))),
            total_bytes=total,
            total_files=max(expected.files, now.files),
            speed=round(speed, 1),
            eta=round((total - moved) / speed, 1) if known else None,
            current=active[0].path if active else now.current,
            active=active[:_MOST_ACTIVE],
        )


def _speed(stats: Mapping[str, object]) -> float:
    """Return the sum over the files under way: rclone's own figure is the mean since the start."""
    each = [number(item.get("speedAvg")) for item in map(fields, items(stats.get("transferring")))]
    return sum(each) or number(stats.get("speed"))


def _active(value: object) -> Iterable[ActiveFile]:
    for item in map(fields, items(value)):
        yield ActiveFile(
            path=plain(str(item.get("name", ""))),
            bytes=int(number(item.get("bytes"))),
            size=int(number(item.get("size"))),
        )
