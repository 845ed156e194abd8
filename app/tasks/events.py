"""The event that a task's end is. Not the outbox's events, which are what it is made of."""

import hashlib
import re
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime

from app.event_system import EventBase
from task_state import TaskStatus

TASK_TOPICS: Final = "tasks.**"
"""The topics of all task events."""

MAX_ERROR: Final = 500
_NO_SEGMENT: Final = re.compile(r"[^A-Za-z0-9_-]")


class TaskEvent(EventBase, type_name="dms.task"):
    """A task has ended: `status` is COMPLETED, FAILED or CANCELLED.

    Published once or more for each end, with the same `event_id`. `completed_at` is what the
    record says, `occurred_at` when the store wrote the end. `error` has at most 500 characters.
    What only the record knows (`attempts`, `error`, `retry_of`, `schedule_id`) is missing when the
    record was deleted or begun anew before the event was published.
    """

    task_id: str
    service: str
    user_id: str
    status: TaskStatus
    completed_at: AwareDatetime
    attempts: int | None = None
    error: str | None = None
    retry_of: str | None = None
    schedule_id: str | None = None


def task_topic(service: str, status: str) -> str:
    """`tasks.<service>.<STATUS>`; what no segment of a topic may have is an underscore in it, so
    that `a.b` and `a_b` share a topic: the event's `service` has the true name."""
    return f"tasks.{_NO_SEGMENT.sub('_', service)}.{status}"


def task_event_id(task_id: str, entry_id: str, occurred_at: datetime) -> str:
    """The id of the event of that entry of the outbox: always the same, unlike that of any other
    entry, and a UUID of version 7 like other events' ids."""
    stamp = int(occurred_at.timestamp() * 1000)
    drawn = int.from_bytes(hashlib.sha256(f"{task_id} {entry_id}".encode()).digest()[:16])
    fixed = (stamp << 80) | (0x7 << 76) | (0b10 << 62)
    free = (0xFFF << 64) | ((1 << 62) - 1)
    return str(UUID(int=fixed | (drawn & free)))
