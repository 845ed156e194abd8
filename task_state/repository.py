"""The repository of task records: the port, its Redis adapter, and the form of a log line."""

from task_state._port import (
    LogPage,
    Paging,
    TaskCounts,
    TaskPage,
    TaskRepository,
    TaskSearch,
)
from task_state._redis_repository import RedisTaskRepository
from task_state.log_entry import format_log_entry

__all__ = [
    "LogPage",
    "Paging",
    "RedisTaskRepository",
    "TaskCounts",
    "TaskPage",
    "TaskRepository",
    "TaskSearch",
    "format_log_entry",
]
