"""The names of the facts that the frontend reads and tells: not the event bus's topics."""

from typing import Any, Final

from task_state.changes import Change

DISPATCH_GROUP: Final = "dispatch"
"""The consumer group of the outbox whose members tell the scheduler."""

TASK_EVENTS_GROUP: Final = "events"
"""The consumer group of the outbox whose members publish the ends of tasks to the event broker."""

LIVE_LOG: Final = "log"
LIVE_END: Final = "end"
LIVE_LOST: Final = "lost"
"""Names of server-sent events: a log line; a followed task has ended; some changes were missed, so
load the list again."""


def live_event(change: Change) -> tuple[str, dict[str, Any]]:
    """The name and data of the server-sent event that tells of a change, as `task.status`."""
    return f"task.{change.kind}", {
        "kind": change.kind,
        "task_id": change.task_id,
        "service": change.service,
        "user_id": change.user_id,
        "status": change.status,
    }
