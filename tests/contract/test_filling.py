"""The benchmark's writer of many tasks leaves what a real life leaves, or it measures a fiction."""

import json
import random
from typing import Any

from benchmarks import filling
from task_state import TaskStatus, keys
from task_state.managed import ManagedTasks
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace

DIGITS = {"created_at", "updated_at", "started_at", "completed_at"}


def shape(keyspace: Keyspace, task_id: str) -> dict[str, Any]:
    """What the store holds of a task, but for its times and for which words its log has."""
    client = keyspace.client
    fields = {
        name: len(value) if name in DIGITS else value.decode()
        for name, value in keyspace.fields(task_id).items()
    }
    lines: list[bytes] = client.lrange(keys.logs(task_id), 0, -1)  # pyright: ignore[reportAssignmentType]
    member = f"{task_id}:{fields['service']}:{fields['user_id']}"
    return {
        "fields": fields,
        "encoding": client.object("encoding", keys.task(task_id)),
        "lines": [len(line) for line in lines],
        "indexes": keyspace.indexes_of(task_id),
        "by id": client.zscore(keys.IDS, task_id),
        "expires": client.zscore(keys.EXPIRY, member) is not None,
        "ttl": client.pttl(keys.task(task_id)) > 0 and client.pttl(keys.logs(task_id)) > 0,  # pyright: ignore[reportOperatorIssue]
    }


async def live(managed: ManagedTasks, task: filling.Finished) -> str:
    """The same task by way of its real life; its id."""
    _, _, service, user, end, _, _, _, count, *rest = task.arguments
    lines = [line.partition(",")[2] for line in rest[: int(count)]]
    values = dict(zip(rest[int(count) :: 2], rest[int(count) + 1 :: 2], strict=True))
    submitted = await managed.submit(
        service=service,
        user_id=user,
        parameters=json.loads(values["parameters"]),
        log_entry=lines[0],
    )
    task_id = submitted.task_id
    await managed.begin(task_id, 1, worker="w", log_entry=lines[1])
    stamped = rest[2 : int(count) - 1]
    await managed.append_logs(task_id, 1, stamped, batch=values["batch"])
    await managed.finish(
        task_id,
        1,
        TaskStatus(end),
        log_entry=lines[-1],
        data=json.loads(values.get("data", "null")),
        error=values.get("error"),
    )
    return task_id


async def test_a_task_written_in_bulk_is_like_one_that_lived(
    repository: RedisTaskRepository, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    rng, at = random.Random(20260104), 1_760_000_000_000_000
    tasks = [filling.finished(rng, at + number) for number in range(30)]
    client = keyspace.client
    client.eval(filling.source(), 1, keys.SCHEMA, *filling.call_arguments(tasks))
    for task in tasks:
        task_id = await live(managed, task)
        assert shape(keyspace, task.arguments[0]) == shape(keyspace, task_id)
    assert (await repository.counts()).total == 60


def test_many_are_written_by_several_processes(keyspace: Keyspace) -> None:
    options = keyspace.client.connection_pool.connection_kwargs
    url = f"unix://{options['path']}"
    filling.fill(url, 100)
    filling.fill(url, 50, seed=1)
    assert keyspace.client.zcard(keys.IDS) == 150
