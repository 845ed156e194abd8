"""The task store's settings, out of the service's."""

from app.core.config import Settings
from dms_scheduler.witness import Witness
from task_state.redis import RedisRepositorySettings


def store_settings(settings: Settings) -> RedisRepositorySettings:
    """What the scheduler service and its workers connect with. They read what they have just
    written, so both URLs are the writer's."""
    return RedisRepositorySettings(
        write_url=settings.redis_write_url,
        read_url=settings.redis_write_url,
        task_ttl_seconds=settings.redis_task_ttl_seconds,
        wait_replicas=settings.redis_wait_replicas,
        timeout_seconds=settings.redis_timeout_seconds,
    )


def witness_of(settings: Settings) -> Witness | None:
    """The file that remembers how new the store was, if there is to be one."""
    return None if settings.witness_file is None else Witness(settings.witness_file)
