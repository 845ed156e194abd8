"""The state of tasks, shared by DMS and by every program that reports to it.

Needs pydantic and redis alone, and imports nothing else of DMS.
"""

from task_state._port import LogPage, Paging, TaskPage, TaskRepository
from task_state.errors import (
    ConfigurationError,
    ConflictError,
    FencedError,
    IdempotencyMismatchError,
    InvalidRequestError,
    LeaseHeldError,
    StoreUnavailableError,
    TaskNotFoundError,
    TaskStateError,
    TransitionError,
)
from task_state.models import TRANSITIONS, JsonObject, TaskRecord, TaskResult, TaskStatus

__all__ = [
    "TRANSITIONS",
    "ConfigurationError",
    "ConflictError",
    "FencedError",
    "IdempotencyMismatchError",
    "InvalidRequestError",
    "JsonObject",
    "LeaseHeldError",
    "LogPage",
    "Paging",
    "StoreUnavailableError",
    "TaskNotFoundError",
    "TaskPage",
    "TaskRecord",
    "TaskRepository",
    "TaskResult",
    "TaskStateError",
    "TaskStatus",
    "TransitionError",
]
