"""A worker of another project: does its own work, and shows it in DMS through task_state.

DMS never dispatches such a record, it only shows it. Redis is named by DMS_REDIS_WRITE_URL.
"""

import argparse
import asyncio
import logging
from collections.abc import Sequence

from task_state import TaskRecord, TaskResult, TaskStatus
from task_state.publisher import TaskStatusPublisher
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings

# Named like a script's own logger: as a console script this module is `worker`, not `__main__`.
logger = logging.getLogger("__main__")


async def _simulate_work(task_id: str, seconds: float) -> TaskResult:
    """Stands for what your service really does."""
    await asyncio.sleep(seconds)
    return TaskResult(launcher_output=f"task {task_id} worked for {seconds:g} s\n")


async def run(
    task_id: str = "demo",
    service: str = "external",
    user_id: str = "alice",
    *,
    seconds: float = 2.0,
) -> None:
    """Register the task, work, publish the outcome; the connection is closed in any case."""
    settings = RedisRepositorySettings.from_env()
    provider = RedisRepositoryProvider(settings)
    publisher = TaskStatusPublisher(provider)
    try:
        logger.info("Registering task %s as RUNNING", task_id)
        await publisher.publish_start(
            TaskRecord(
                task_id=task_id,
                service=service,
                user_id=user_id,
                status=TaskStatus.PENDING,
            )
        )
        await _work_and_publish(publisher, task_id, seconds)
    finally:
        await provider.close()


async def _work_and_publish(publisher: TaskStatusPublisher, task_id: str, seconds: float) -> None:
    try:
        result = await _simulate_work(task_id, seconds)
    except Exception as error:
        logger.info("Marking task %s as FAILED", task_id)
        await publisher.publish_failure(task_id, str(error))
        raise
    logger.info("Marking task %s as COMPLETED", task_id)
    await publisher.publish_completion(task_id, result)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `external-status-worker`."""
    parser = argparse.ArgumentParser(description="Show one task of another service in DMS.")
    parser.add_argument("--task-id", default="demo")
    parser.add_argument("--service", default="external")
    parser.add_argument("--user", default="alice")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long the work takes")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    asyncio.run(run(options.task_id, options.service, options.user, seconds=options.seconds))


if __name__ == "__main__":
    main()
