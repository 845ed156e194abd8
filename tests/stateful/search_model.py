"""A plain model of search: a filter and a sort in Python over all records."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from task_state import TaskCounts, TaskRecord, TaskSearch, TaskStatus
from task_state._codec import encode_json


def _lower(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def _within(value: datetime, after: datetime | None, before: datetime | None) -> bool:
    return (after is None or value >= after) and (before is None or value < before)


def _has(task: TaskRecord, q: str) -> bool:
    parameters = encode_json(task.parameters, "parameters") if task.parameters else ""
    return _lower(q) in _lower(f"{task.task_id}\n{task.user_id}\n{parameters}")


def fits(task: TaskRecord, search: TaskSearch) -> bool:
    """Whether the record is what the search asks for."""
    return (
        search.task_id in {None, task.task_id}
        and search.service in {None, task.service}
        and search.user_id in {None, task.user_id}
        and (not search.status or task.status in search.status)
        and _within(task.created_at, search.created_after, search.created_before)
        and _within(task.updated_at, search.updated_after, search.updated_before)
        and (search.q is None or _has(task, search.q))
    )


def place(task: TaskRecord, sort: Literal["created_at", "updated_at", "id"]) -> tuple[object, str]:
    """What orders the record."""
    return (0 if sort == "id" else getattr(task, sort), task.task_id)


@dataclass
class Records:
    """All records, as they are by their ids."""

    tasks: dict[str, TaskRecord] = field(default_factory=dict[str, TaskRecord])

    def found(self, search: TaskSearch) -> list[str]:
        """The ids that fit, in order, without regard to limit, offset and cursor."""
        fitting = [task for task in self.tasks.values() if fits(task, search)]
        fitting.sort(key=lambda task: place(task, search.sort), reverse=search.order == "desc")
        return [task.task_id for task in fitting]

    def counts(self, service: str | None, user_id: str | None) -> TaskCounts:
        """What is to be counted."""
        own = [
            task
            for task in self.tasks.values()
            if service in {None, task.service} and user_id in {None, task.user_id}
        ]
        states = Counter(task.status for task in own)
        return TaskCounts(
            len(own),
            {status: states[status] for status in TaskStatus},
            dict(Counter(task.service for task in own)),
            None if service is None else dict(Counter(task.user_id for task in own)),
        )
