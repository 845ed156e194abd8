"""A pipeline: what a user's syncs have copied is compared, and somebody is told how it went.

    DMS_TASK_MODULES=examples.pipeline_tasks dms-frontend up
    DMS_REDIS_WRITE_URL=... DMS_API_BASE=... python -m examples.pipeline USER

The ends of tasks are events, and an event trigger for each step starts the next task. Its group
keeps the events that come while this program is away; a task's key is the event that asks for it,
so that an event that is delivered again starts nothing twice.
"""

import argparse
import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from app.client import AsyncClient, ClientError, NotFoundError, TaskRef, UnavailableError
from app.event_system import ConsumerPort, EventBase, EventSystemError
from app.event_system.infrastructure import RedisBroker
from app.scheduler import EventTrigger, create_event_trigger
from app.tasks import TaskEvent

log = logging.getLogger("pipeline")

AWAY_SECONDS = 1.0
COMPARED = ("src", "dst", "include", "exclude", "symlinks")
"""What a check takes over from the sync whose work it looks at."""


class Step(EventBase):
    """The next task: what is to run, and the end of the task before it."""

    service: str
    after: TaskEvent


class StepRefusedError(EventSystemError):
    """The next task was refused. The event is delivered again, and then is a dead letter: mend the
    cause, and `dms-frontend events replay`."""


class Pipeline:
    """The steps of one user's chains."""

    def __init__(self, user: str, client: AsyncClient) -> None:
        self._user = user
        self._client = client

    def triggers(self, consumer: ConsumerPort) -> list[EventTrigger[Step]]:
        """sync, then check, then notify; a sync that failed is told at once."""
        steps = {
            "tasks.sync.COMPLETED": "check",
            "tasks.sync.FAILED": "notify",
            "tasks.check.*": "notify",
        }
        return [
            create_event_trigger(
                consumer,
                source_topic=topic,
                event_factory=_next(service),
                filter_func=self._is_ours,
                event_type=TaskEvent,
                group=f"pipeline.{self._user}",
            )
            for topic, service in steps.items()
        ]

    def _is_ours(self, event: TaskEvent) -> bool:
        return event.user_id == self._user

    async def start_task(self, step: EventBase) -> None:
        """What the triggers publish to: the event is done with when its task is accepted."""
        assert isinstance(step, Step)
        while True:
            try:
                await self._start(step)
            except UnavailableError as error:  # the same key: nothing is started twice
                log.warning("waiting: %s", error)
                await asyncio.sleep(AWAY_SECONDS)
            except ClientError as error:
                raise StepRefusedError(str(error)) from error
            else:
                return

    async def _start(self, step: Step) -> None:
        try:
            parameters = await self._parameters(step)
        except NotFoundError:
            log.warning("task %s is gone, and its chain ends", step.after.task_id)
            return
        started = await self._client.submit(
            step.service, self._user, parameters, idempotency_key=step.after.event_id
        )
        log.info("%s %s follows %s", step.service, started.task_id, step.after.task_id)

    async def _parameters(self, step: Step) -> dict[str, Any]:
        ended = step.after
        if step.service == "notify":
            text = f"{ended.service} {ended.task_id} of {ended.user_id}: {ended.status}"
            return {"after": ended.task_id, "text": f"{text} {ended.error or ''}".rstrip()}
        task = await self._client.get(TaskRef(ended.task_id, ended.service, ended.user_id))
        same = {name: task.parameters[name] for name in COMPARED if name in task.parameters}
        return {**same, "label": ended.task_id}


def _next(service: str) -> Callable[[TaskEvent], Step]:
    return lambda event: Step(topic=f"pipeline.{service}", service=service, after=event)


async def run(user: str, lease_seconds: float) -> None:
    """Work until the program is ended."""
    url = os.environ["DMS_REDIS_WRITE_URL"]
    async with AsyncClient() as client, RedisBroker(url, lease_seconds=lease_seconds) as broker:
        pipeline = Pipeline(user, client)
        triggers = pipeline.triggers(broker.consumer())
        for trigger in triggers:
            await trigger.start()
        log.info("ready")
        async with asyncio.TaskGroup() as running:
            for trigger in triggers:
                running.create_task(trigger.run(pipeline.start_task))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description="Checks and tells what a user's syncs did.")
    parser.add_argument("user")
    parser.add_argument("--lease-seconds", type=float, default=30.0)
    options = parser.parse_args()
    try:
        asyncio.run(run(options.user, options.lease_seconds))
    except KeyboardInterrupt:
        log.info("stopped")
