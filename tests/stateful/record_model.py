"""What a record must say after each write: a plain model of its content, without the store's rules
of who may write when (model.py has those)."""

import json
from dataclasses import dataclass, field
from typing import Any

from task_state import TaskRecord, TaskStatus

# What a listing may leave out, by the name that it has there.
LONG = {
    "parameters": "parameters",
    "progress": "progress",
    "checkpoint": "checkpoint",
    "jobs": "jobs",
    "description": "description",
    "history": "history",
    "pod_status": "result.pod_status",
    "data": "result.data",
    "error": "result.error",
}


@dataclass
class Content:
    """All that somebody has written to one record."""

    task_id: str
    managed: bool
    status: TaskStatus
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    description: str | None = None
    pod_status: str | None = None
    data: Any = None
    error: str | None = None
    jobs: list[str] = field(default_factory=list[str])
    progress: dict[str, Any] | None = None
    checkpoint: Any = None
    history: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])
    logs: list[str] = field(default_factory=list[str])
    output: str = ""
    revision: int = 1
    epoch: int = 0
    attempts: int = 0
    max_attempts: int = 3
    report: tuple[int, int] | None = None
    adjust: dict[str, Any] | None = None

    def whole(self) -> dict[str, str]:
        """Everything, as texts that tell 1 from true and 1.0."""
        return {name: json.dumps(value) for name, value in vars(self).items()}

    def add_jobs(self, jobs: list[str]) -> None:
        """Each is there once, in the order of coming."""
        self.jobs += [job for job in dict.fromkeys(jobs) if job not in self.jobs]


def content_of(task: TaskRecord) -> dict[str, str]:
    """The same of a record that was read."""
    result = task.result
    found = Content(
        task_id=task.task_id,
        managed=task.managed,
        status=task.status,
        parameters=task.parameters,
        description=task.description,
        pod_status=result.pod_status,
        data=result.data,
        error=result.error,
        jobs=task.jobs,
        progress=task.progress,
        checkpoint=task.checkpoint,
        history=[(note.epoch, note.outcome, note.reason) for note in task.history],
        logs=task.logs,
        output=result.launcher_output or "",
        revision=task.revision,
        epoch=task.epoch,
        attempts=task.attempts,
        max_attempts=task.max_attempts,
        report=(task.report.lines, task.report.omitted) if task.report else None,
        adjust=task.adjust,
    )
    return found.whole()


def shown_of(task: TaskRecord) -> dict[str, str]:
    """The same without what a listing never shows, and without what this one says it left out."""
    left_out = {name for name, shown in LONG.items() if shown in task.omitted} | {"logs", "output"}
    return {name: value for name, value in content_of(task).items() if name not in left_out}
