"""Runs a built-in task's handler as a runner does, with a control that keeps what it is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.tasks import UNSET, Task, get_definition, running
from dms_scheduler.definitions import load_definitions


class TaskRecorder:
    """A runner's control that keeps what it is told."""

    def __init__(self, adjusted: Mapping[str, Any] | None = None) -> None:
        self.cancelled = False
        self.deadline_monotonic = math.inf
        self.reports: list[tuple[dict[str, Any], bool]] = []
        self.lines: list[str] = []
        self.entries: list[dict[str, Any]] = []
        self.adjusted = adjusted or {}

    def check(self) -> None:
        """Never stop."""

    def progress(self, progress: dict[str, Any], *, advanced: bool = False) -> None:
        self.reports.append((progress, advanced))

    def log(self, message: str) -> None:
        self.lines.append(message)

    def report(self, line: Mapping[str, Any], /) -> None:
        self.entries.append(dict(line))

    def checkpoint(self, value: Any = UNSET, /) -> Any:
        """The movers save none."""


def handle(
    service: str, control: TaskRecorder | None = None, *, epoch: int = 1, **values: Any
) -> dict[str, Any]:
    """Call the handler of `service` for one attempt, the parameters being `values`."""
    load_definitions(())
    definition = get_definition(service)
    assert definition is not None
    adapter = definition.options.payload_adapter
    assert adapter is not None
    now = datetime.now(UTC)
    task: Task[Any, Any] = Task(
        id="42",
        type=service,
        payload=adapter.validate_python(values),
        user_id="kim",
        created_at=now,
        updated_at=now,
        epoch=epoch,
    )
    with running(task, control or TaskRecorder()):
        result: Any = definition.handler(task)
    return result
