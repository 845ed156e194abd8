"""What the runner of schedules counts, for Prometheus; no label is of a client's choosing."""

from collections.abc import Callable, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from task_state.schedules import Fire

State = Literal["active", "paused"]


class ScheduleMetrics:
    """Of this replica: each slot is counted by the one that settled it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._fires = Counter(
            "dms_schedule_fires",
            "Slots of schedules by what became of them: fired, buffered, skipped or existing",
            ["outcome"],
            registry=registry,
        )
        self._misfires = Counter(
            "dms_schedule_misfires",
            "Slots of schedules that nobody could fire in time, and that were left out",
            registry=registry,
        )
        self._lag = Histogram(
            "dms_schedule_lag_seconds",
            "Time from when a slot was due to the creation of its task, in seconds",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
            registry=registry,
        )
        self._schedules = Gauge(
            "dms_schedules", "Stored schedules by state", ["state"], registry=registry
        )

    def watch(self, count: Callable[[State], int]) -> None:
        """Ask for the number of schedules whenever the metrics are read."""
        self._schedules.labels("active").set_function(lambda: count("active"))
        self._schedules.labels("paused").set_function(lambda: count("paused"))

    def settled(self, fires: Sequence[Fire], missed: int, due: Callable[[int], float]) -> None:
        """Count the outcome of one step; `due` says when a slot was to fire."""
        for fire in fires:
            if fire.outcome == "missed":
                continue
            self._fires.labels(fire.outcome).inc(fire.count)
            if fire.outcome == "fired" and fire.slot is not None:
                self._lag.observe(max(0.0, fire.at.timestamp() - due(fire.slot)))
        self._misfires.inc(missed)

    def released(self, fires: Sequence[Fire]) -> None:
        """Count slots that had waited for other tasks; that is no lag."""
        for fire in fires:
            self._fires.labels(fire.outcome).inc()
