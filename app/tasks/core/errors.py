"""What a task's handler raises, and what is raised at it: the errors of task definitions."""

from typing import Any, Final

MAX_DELAY_SECONDS: Final = 366 * 86_400


class TasksError(Exception):
    """Base of every error of `app.tasks`."""


class DefinitionError(TasksError):
    """A definition means nothing, or its id is taken."""


class CheckpointError(TasksError):
    """What a handler wants to save for its next attempt is too large, or no JSON."""


class TaskLoadError(TasksError):
    """A module or entry point that should register definitions could not be loaded."""


class PermanentFailure(TasksError):
    """Raised by a handler: the task ends FAILED at once, without another attempt.

    `message` becomes the task's `result.error`, `data` (JSON-able) its `result.data`.
    """

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.data = data


class RetryLater(TasksError):
    """Raised by a handler: try again, if an attempt is left.

    `delay_seconds` replaces the definition's own delay. When no attempt is left, `message` and
    `data` become the failed task's result. With `counted=False` nothing has failed, the task waits
    for something: the attempt does not count, and it is tried again as often as it takes, a second
    later at the earliest. Raises TasksError for what is no delay.
    """

    def __init__(
        self,
        message: str,
        delay_seconds: float | None = None,
        data: Any = None,
        *,
        counted: bool = True,
    ) -> None:
        if delay_seconds is not None and not 0 <= delay_seconds <= MAX_DELAY_SECONDS:
            raise TasksError(
                f"RetryLater: delay_seconds={delay_seconds!r} is no delay; give 0 to "
                f"{MAX_DELAY_SECONDS} seconds, or leave it out"
            )
        super().__init__(message)
        self.delay_seconds = delay_seconds
        self.data = data
        self.counted = counted


class TaskCancelled(TasksError):
    """Raised by `check()`: somebody cancelled the task, or it ran out of time. Clean up, leave.

    `ends_task` is False when another attempt will go on: then what helps it may stay.
    """

    def __init__(self, message: str, *, ends_task: bool = True) -> None:
        super().__init__(message)
        self.ends_task = ends_task


class LeaseLost(TasksError):
    """Raised by `check()`: another worker may have this task by now. Change nothing more, leave."""
