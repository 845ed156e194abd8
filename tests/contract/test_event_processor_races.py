"""The event processor when something comes in between: a defect of ours, a cancellation."""

import pytest

from app.services.dispatch import Dispatcher
from task_state import TaskStatus
from task_state.managed import ManagedTasks
from task_state.outbox import OutboxEvent
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from tests.contract.test_event_processor import messages, settings_for, settled, submit
from tests.support.frontend import eventually, running_frontend
from tests.support.scheduler_stub import Behaviour, SchedulerStub


async def test_what_a_defect_interrupted_is_claimed(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The event's owner itself has to take it again: it is in nobody's work."""
    told: list[str] = []

    async def fail_once(_: Dispatcher, event: OutboxEvent, reason: str) -> None:
        told.append(f"{event.task_id}: {reason}")
        if len(told) == 1:
            raise RuntimeError("a defect")

    monkeypatch.setattr(Dispatcher, "note_waiting", fail_once)
    stub.script = [Behaviour(503)]
    outbox = await dms_provider.get_outbox()
    async with running_frontend(settings_for(dms_redis_url, stub, request_timeout_seconds=0.2)):
        task_id = await submit(dms_managed)
        await eventually(lambda: len(stub.to("/task", task_id)) > 1)
        await eventually(lambda: settled(outbox))
    assert told


async def test_a_task_that_is_cancelled_while_it_cannot_be_dispatched_says_no_more(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    """It ended while the scheduler was thinking: that it waits is no longer true."""
    stub.held_path = "/task"
    stub.script = [Behaviour(503)]
    outbox = await dms_provider.get_outbox()
    async with running_frontend(settings_for(dms_redis_url, stub)):
        task_id = await submit(dms_managed)
        await eventually(lambda: stub.to("/task", task_id))
        assert await dms_managed.cancel(task_id) is TaskStatus.CANCELLED
        cancelled = await dms_repository.get(task_id)
        stub.release.set()
        await eventually(lambda: settled(outbox))
    task = await dms_repository.get(task_id)
    assert task is not None
    assert cancelled is not None
    assert messages(task) == messages(cancelled)
