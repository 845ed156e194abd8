"""Publishes the life of a task that another program runs itself."""

from task_state.models import JsonObject, TaskRecord, TaskResult, TaskStatus
from task_state.redis import RedisRepositoryProvider


class TaskStatusPublisher:
    """Registers a task, reports its progress and its end, so that DMS shows it beside its own.

    The records are unmanaged: DMS never runs them. Errors are those of TaskRepository.
    """

    def __init__(self, provider: RedisRepositoryProvider) -> None:
        self._provider = provider

    async def publish_start(self, record: TaskRecord) -> None:
        """Store the record and set it RUNNING; an ended task of that id is replaced."""
        repository = await self._provider.get_repository()
        await repository.save(record)
        await repository.set_status(record.task_id, TaskStatus.RUNNING, log_entry="Task started")

    async def publish_progress(
        self, task_id: str, message: str, progress: JsonObject | None = None
    ) -> None:
        """Add a log line, and note `progress` (any JSON object) where given."""
        repository = await self._provider.get_repository()
        if progress is not None:
            await repository.set_progress(task_id, progress)
        await repository.append_log(task_id, message)

    async def publish_completion(self, task_id: str, result: TaskResult | None = None) -> None:
        """Write what the task left behind, then set it COMPLETED."""
        await self._end(task_id, TaskStatus.COMPLETED, result, "Task completed")

    async def publish_failure(
        self, task_id: str, error: str, result: TaskResult | None = None
    ) -> None:
        """Write the reason and what the task left behind, then set it FAILED."""
        failed = (result or TaskResult()).model_copy(update={"error": error})
        await self._end(task_id, TaskStatus.FAILED, failed, f"Task failed: {error}")

    async def _end(
        self, task_id: str, status: TaskStatus, result: TaskResult | None, message: str
    ) -> None:
        repository = await self._provider.get_repository()
        if result is not None:
            await repository.update_result(task_id, **result.model_dump())
        await repository.set_status(task_id, status, log_entry=message)
