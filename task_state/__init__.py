"""The state of tasks, shared by DMS and by every program that reports to it.

Needs pydantic and redis alone, and imports nothing else of DMS.
"""

from task_state._port import (
    MAX_OFFSET,
    MAX_PAGE,
    MAX_TEXT,
    LogPage,
    Paging,
    TaskCounts,
    TaskPage,
    TaskRepository,
    TaskSearch,
)
from task_state.errors import (
    ConfigurationError,
    ConflictError,
    FencedError,
    IdempotencyMismatchError,
    InvalidRequestError,
    LeaseHeldError,
    ServiceDrainingError,
    StoreUnavailableError,
    TaskNotFoundError,
    TaskStateError,
    TransitionError,
)
from task_state.models import (
    TRANSITIONS,
    AttemptNote,
    AttemptOutcome,
    JsonObject,
    TaskRecord,
    TaskResult,
    TaskStatus,
)

__all__ = [
    "MAX_OFFSET",
    "MAX_PAGE",
    "MAX_TEXT",
    "TRANSITIONS",
    "AttemptNote",
    "AttemptOutcome",
    "ConfigurationError",
    "ConflictError",
    "FencedError",
    "IdempotencyMismatchError",
    "InvalidRequestError",
    "JsonObject",
    "LeaseHeldError",
    "LogPage",
    "Paging",
    "ServiceDrainingError",
    "StoreUnavailableError",
    "TaskCounts",
    "TaskNotFoundError",
    "TaskPage",
    "TaskRecord",
    "TaskRepository",
    "TaskResult",
    "TaskSearch",
    "TaskStateError",
    "TaskStatus",
    "TransitionError",
]
