"""Fairness, priorities, limits and pauses with real workers, some of which are killed."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from dms_scheduler.engine import Call, Holding
from task_state import TaskRecord, TaskStatus, keys
from task_state.admission import ServiceMode
from task_state.timezone import from_microseconds
from tests.contract.test_scheduler_api import serving
from tests.support import handlers  # its definitions' limits are the admitter's in this process too
from tests.support.worker_process import SHORT, Client, WorkerProcess, eventually, messages

ONE_SLOT = {**SHORT, "DMS_WORKER_CONCURRENCY": "1"}
CROWD = 10_000


@pytest.fixture
async def client(dms_redis_url: str) -> AsyncGenerator[Client]:
    assert handlers.Numbers
    async with Client(dms_redis_url, timeout_seconds=60) as made:  # a busy machine is no fault
        yield made


@pytest.fixture
def raw(dms_redis_url: str) -> Redis:
    return Redis.from_url(dms_redis_url)


async def waiting(
    client: Client, user: str, count: int, service: str = "t.add-inline"
) -> list[str]:
    """Tasks of a user that were accepted, oldest first; nobody is told of them."""

    async def one() -> str:
        task = await client.managed.submit(service=service, user_id=user, parameters={"first": 1})
        await client.managed.accept(task.task_id)
        return task.task_id

    ids: list[str] = []
    while len(ids) < count:  # a few at a time: each call to the store has a deadline
        ids += await asyncio.gather(*(one() for _ in range(min(count - len(ids), 50))))
    return sorted(ids, key=int)  # by creation: those of one moment overtake each other


def folder(parent: Path, name: str) -> Path:
    """A new folder."""
    made = parent / name
    made.mkdir()
    return made


async def ended(client: Client, ids: Sequence[str]) -> list[TaskRecord]:
    """The records, in order, once all are terminal."""
    return [await client.ended(task_id) for task_id in ids]


def begun(record: TaskRecord) -> datetime:
    """When its first attempt began."""
    assert record.started_at is not None
    return record.started_at


def most_at_once(raw: Redis, ids: Sequence[str], users: dict[str, str] | None = None) -> int:
    """How many of the tasks ran at the same time at most, by the store's own account; with `users`
    how many of one user."""
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", raw.xrange(keys.CHANGES))
    runs: set[str] = set()
    most = 0
    for _, fields in entries:
        _, task_id, _, user, status = fields[b"e"].decode().split(" ")
        if task_id in ids:
            (runs.add if status == "RUNNING" else runs.discard)(task_id)
            if users is not None:
                users[task_id] = user
                most = max([most, *Counter(users[each] for each in runs).values()])
            else:
                most = max(most, len(runs))
    return most


# ---------------------------------------------------------------------------------------- fairness
async def test_a_crowd_delays_another_users_first_task_by_one_slot_at_most(
    dms_redis_url: str, client: Client, raw: Redis
) -> None:
    crowd = await waiting(client, "crowd", CROWD)
    with WorkerProcess(dms_redis_url, ONE_SLOT):
        await client.ended(crowd[0])
        (mine,) = await waiting(client, "me", 1)
        seconds, micros = raw.time()
        accepted = from_microseconds(seconds * 1_000_000 + micros)
        record = await client.ended(mine)
        states = {each.service: each for each in await client.admission.states()}
    assert states["t.add-inline"].waiting > 0, "the crowd was not done by then"
    between = 0
    for task_id in crowd[:2000]:
        other = (await client.get(task_id)).started_at
        between += other is not None and accepted < other < begun(record)
    assert between <= 1, "one was on its way to the worker, and no more"


async def test_turns_and_priorities_decide_when_a_pause_of_all_ends(
    dms_redis_url: str, client: Client
) -> None:
    await client.admission.pause("*", "restored")
    a = await waiting(client, "a", 3)
    b = await waiting(client, "b", 2)
    c = await waiting(client, "c", 1)
    first = await waiting(client, "c", 2, "t.first")
    with WorkerProcess(dms_redis_url, ONE_SLOT):
        await eventually(lambda: attends(client), "the worker attends")
        assert {each.mode for each in await client.admission.states()} == {ServiceMode.PAUSED}
        assert {(await client.get(task_id)).epoch for task_id in (*a, *first)} == {0}
        await client.admission.resume("*")
        await client.admitter.round()
        records = await ended(client, [*a, *b, *c, *first])
    found = [record.task_id for record in sorted(records, key=begun)]
    assert found == [*first, a[0], b[0], c[0], a[1], b[1], a[2]]


async def attends(client: Client) -> bool:
    """Whether a worker has told of its slots."""
    with Redis.from_url(client.url) as raw:
        return raw.hlen(keys.WORKERS) > 0


async def test_one_paused_service_stops_no_other_and_its_running_task_goes_on(
    dms_redis_url: str, client: Client, tmp_path: Path
) -> None:
    with WorkerProcess(dms_redis_url, SHORT):
        go, other_folder = tmp_path / "go", folder(tmp_path, "other")
        runs = await client.submit("t.until-file", file=str(go), folder=str(tmp_path))
        await client.running(runs)
        await client.admission.pause("t.until-file")
        stays = await client.submit("t.until-file", file=str(go), folder=str(other_folder))
        (other,) = await waiting(client, "hong", 1)
        assert (await client.ended(other)).status is TaskStatus.COMPLETED
        go.touch()
        assert (await client.ended(runs)).status is TaskStatus.COMPLETED
        assert (await client.get(stays)).status is TaskStatus.PENDING
        await client.admission.resume("t.until-file")
        assert (await client.ended(stays)).status is TaskStatus.COMPLETED


# ------------------------------------------------------------------------------------------ limits
@pytest.mark.parametrize("service", ["t.two-at-once", "t.one-a-user"])
async def test_a_limit_holds_while_workers_die(
    dms_redis_url: str, client: Client, raw: Redis, tmp_path: Path, service: str
) -> None:
    go = tmp_path / "go"
    ids: list[str] = []
    for number in range(8):
        task = await client.managed.submit(
            service=service,
            user_id=f"u{number % 2}",
            parameters={"file": str(go), "folder": str(folder(tmp_path, str(number)))},
        )
        await client.managed.accept(task.task_id)
        ids.append(task.task_id)

    async def two_run() -> bool:
        records = await client.repository.list_by_ids(ids)
        return sum(record.status is TaskStatus.RUNNING for record in records) == 2

    with WorkerProcess(dms_redis_url, SHORT) as first, WorkerProcess(dms_redis_url, SHORT):
        await eventually(two_run, "the limit is reached")
        first.send(signal.SIGKILL)
        go.touch()
        records = await ended(client, ids)
    assert {record.status for record in records} == {TaskStatus.COMPLETED}
    by_user: dict[str, str] | None = {} if service == "t.one-a-user" else None
    assert most_at_once(raw, ids, by_user) == (1 if by_user is not None else 2)


# -------------------------------------------------------------------------------- starts and losses
async def test_three_schedulers_and_two_workers_start_each_task_once_and_no_more_than_fit(
    dms_redis_url: str, client: Client, raw: Redis
) -> None:
    two_slots = {**SHORT, "DMS_WORKER_CONCURRENCY": "2"}
    made = [
        await client.managed.submit(
            service="t.add-inline", user_id=f"u{number % 3}", parameters={"first": 1}
        )
        for number in range(60)
    ]
    ids = [task.task_id for task in made]
    async with AsyncExitStack() as stack:
        schedulers = [await stack.enter_async_context(serving(dms_redis_url)) for _ in range(3)]
        for _ in range(2):
            stack.enter_context(WorkerProcess(dms_redis_url, two_slots))
        for task_id in ids:
            body = {"task_id": task_id, "service": "t.add-inline", "user_id": "u"}
            answers = await asyncio.gather(*(each.post("/task", json=body) for each in schedulers))
            assert {answer.status_code for answer in answers} <= {200, 202}
        records = await ended(client, ids)
    assert {(record.status, record.epoch) for record in records} == {(TaskStatus.COMPLETED, 1)}
    assert most_at_once(raw, ids) <= 4
    begins = [message for record in records for message in messages(record)]
    assert sum(message.startswith("Started by worker") for message in begins) == len(ids)


async def test_the_first_worker_starts_what_waits(dms_redis_url: str, client: Client) -> None:
    ids = await waiting(client, "hong", 20)
    assert {(await client.get(task_id)).status for task_id in ids} == {TaskStatus.PENDING}
    with WorkerProcess(dms_redis_url, SHORT):
        records = await ended(client, ids)
    assert {(record.status, record.epoch) for record in records} == {(TaskStatus.COMPLETED, 1)}


async def test_who_dies_between_admission_and_queue_loses_nothing(
    dms_redis_url: str, client: Client, raw: Redis
) -> None:
    await client.offer_slots(3, "dead")
    ids = await waiting(client, "hong", 5)
    lost = (await client.admission.admit()).calls
    assert len(lost) == 3
    with WorkerProcess(dms_redis_url, SHORT):
        await ended(client, ids[3:])
        raw.zadd(keys.QUEUED, {call.task_id: 1 for call in lost})  # ten seconds went by
        records = await ended(client, ids)
    assert {(record.status, record.epoch) for record in records} == {(TaskStatus.COMPLETED, 1)}


async def test_calls_from_before_a_pause_do_nothing_and_their_tasks_run_after_it(
    dms_redis_url: str, client: Client
) -> None:
    await client.offer_slots(4, "never comes")
    ids = await waiting(client, "hong", 3)
    await client.admitter.round()
    calls = [Call(task_id, 1) for task_id in ids]
    assert await client.engine.look(calls) == [Holding.HELD] * 3
    await client.admission.pause("*")

    async def consumed() -> bool:
        return await client.engine.look(calls) == [Holding.ABSENT] * 3

    with WorkerProcess(dms_redis_url, SHORT):
        await eventually(consumed, "the worker got the calls")
        assert {(await client.get(task_id)).epoch for task_id in ids} == {0}
        await client.admission.resume("*")
        records = await ended(client, ids)
    assert {(record.status, record.epoch) for record in records} == {(TaskStatus.COMPLETED, 1)}


async def test_what_a_leaving_worker_was_to_get_goes_to_another(
    dms_redis_url: str, client: Client, raw: Redis
) -> None:
    ids = await waiting(client, "hong", 120)
    with (
        WorkerProcess(dms_redis_url, SHORT) as first,
        WorkerProcess(dms_redis_url, SHORT) as second,
    ):
        await client.ended(ids[0])
        first.send(signal.SIGTERM)
        assert first.wait() == 0
        records = await ended(client, ids)
        assert {record.status for record in records} == {TaskStatus.COMPLETED}
        assert {record.attempts for record in records} == {1}
        await eventually(lambda: raw.hlen(keys.WORKERS) == 1, "its slots are gone")
        second.send(signal.SIGTERM)
        assert second.wait() == 0
    left = (keys.WORKERS, keys.HELD, keys.QUEUED, keys.DELAYED, keys.WAITING, keys.LEASES)
    assert raw.exists(*left) == 0
    assert raw.keys(keys.lane("*", "*")) == raw.keys(keys.busy("*")) == []
