"""The frontend killed at the worst moments: nothing accepted is lost, nothing is done twice."""

import asyncio
import signal
from uuid import uuid4

import httpx2

from task_state import Paging, TaskStatus
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from tests.support.frontend import eventually
from tests.support.frontend_process import FrontendProcess, frontend_process
from tests.support.scheduler_stub import HANG, SchedulerStub, answer


async def test_killed_between_the_schedulers_answer_and_its_own_note(
    dms_redis_url: str,
    dms_managed: ManagedTasks,
    dms_repository: RedisTaskRepository,
    dms_provider: RedisRepositoryProvider,
    stub: SchedulerStub,
) -> None:
    """The scheduler has the task and the frontend never learns: the next one tells it again, under
    the same key."""
    stub.always = answer({"job_id": "job-1"})
    stub.script = [HANG]
    variables = {"DMS_SCHEDULER_BASE_URL": stub.url, "DMS_REQUEST_TIMEOUT_SECONDS": "2"}
    async with frontend_process(dms_redis_url, **variables) as first:
        made = await dms_managed.submit(service="sync", user_id="alice", parameters={})
        await eventually(lambda: stub.to("/task", made.task_id))
        await first.end(signal.SIGKILL)
    async with frontend_process(dms_redis_url, **variables):
        await eventually(lambda: len(stub.to("/task", made.task_id)) == 2)
        task = await eventually(lambda: _running(dms_repository, made.task_id))
    assert task.jobs == ["job-1"]
    assert [line.partition(",")[2] for line in task.logs].count("Dispatching to scheduler") == 1
    assert {call.headers["idempotency-key"] for call in stub.to("/task")} == {made.task_id}
    depth = await (await dms_provider.get_outbox()).depth("dispatch")
    assert (depth.unread, depth.pending, depth.due) == (0, 0, 0)


async def _running(repository: RedisTaskRepository, task_id: str) -> object:
    task = await repository.get(task_id)
    return task if task is not None and task.status is TaskStatus.RUNNING else None


async def test_killed_around_the_commit_and_repeated_with_the_same_key(
    dms_redis_url: str, dms_repository: RedisTaskRepository, stub: SchedulerStub
) -> None:
    """Whatever the client knows of a request that broke, repeating it makes it one task."""
    keys = [uuid4().hex for _ in range(60)]
    answered: dict[str, str] = {}
    variables = {"DMS_SCHEDULER_BASE_URL": stub.url, "DMS_REQUEST_TIMEOUT_SECONDS": "1"}
    for rounds in (1, 2, 3):
        async with frontend_process(dms_redis_url, **variables) as frontend:
            sending = asyncio.create_task(_send_all(frontend, keys, answered))
            if rounds < 3:
                await eventually(lambda rounds=rounds: len(answered) >= 10 * rounds)
                await frontend.end(signal.SIGKILL)
            await sending
    assert set(answered) == set(keys)
    page = await dms_repository.list_all(Paging(limit=200))
    assert {task.task_id for task in page} == set(answered.values())
    assert sorted(task.parameters["nonce"] for task in page) == sorted(keys)


async def _send_all(frontend: FrontendProcess, keys: list[str], answered: dict[str, str]) -> None:
    """Submit under each key; stop where the frontend dies. What was answered stays answered."""
    url = f"{frontend.api_prefix}/services/sync/users/alice/tasks"
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        for key in keys:
            try:
                response = await client.post(
                    url, params={"nonce": key}, headers={"Idempotency-Key": key}
                )
            except httpx2.TransportError:
                return
            assert response.status_code == 202
            task_id = response.json()["task_id"]
            assert answered.setdefault(key, task_id) == task_id
