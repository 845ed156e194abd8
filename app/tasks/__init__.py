"""Task definitions for users' modules: define a task here, dms_scheduler's workers run it."""

from app.tasks.core.context import (
    TaskControl,
    current_control,
    current_task,
    log,
    progress,
    running,
)
from app.tasks.core.errors import (
    DefinitionError,
    LeaseLost,
    PermanentFailure,
    RetryLater,
    TaskCancelled,
    TaskLoadError,
    TasksError,
)
from app.tasks.core.task import (
    Task,
    TaskDefinition,
    TaskHandler,
    TaskOptions,
    TaskStatus,
    define_task,
    definitions,
    get_definition,
)

__all__ = [
    "DefinitionError",
    "LeaseLost",
    "PermanentFailure",
    "RetryLater",
    "Task",
    "TaskCancelled",
    "TaskControl",
    "TaskDefinition",
    "TaskHandler",
    "TaskLoadError",
    "TaskOptions",
    "TaskStatus",
    "TasksError",
    "current_control",
    "current_task",
    "define_task",
    "definitions",
    "get_definition",
    "log",
    "progress",
    "running",
]
