"""The frontend's task repository: task_state's, set up from the frontend's settings."""

from app.core.config import Settings
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository, TaskRepository

__all__ = [
    "RedisRepositoryProvider",
    "RedisTaskRepository",
    "TaskRepository",
    "build_provider",
]


def build_provider(settings: Settings) -> RedisRepositoryProvider:
    """A provider for the store that the settings name; it connects at its first use."""
    return RedisRepositoryProvider(
        RedisRepositorySettings(
            write_url=settings.redis_write_url,
            read_url=settings.redis_read_url,
            task_ttl_seconds=settings.redis_task_ttl_seconds,
            wait_replicas=settings.redis_wait_replicas,
            timeout_seconds=settings.redis_timeout_seconds,
        )
    )
