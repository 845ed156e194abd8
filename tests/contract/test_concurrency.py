"""Many writers on one task: nothing lost, nothing twice, one terminal state, no crossed replies."""

import asyncio
import contextlib
import random
from collections import Counter, defaultdict

from task_state import TaskStateError, TaskStatus, TransitionError
from task_state.log_entry import format_log_entry
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.contract.servers import RealServer
from tests.contract.store import Keyspace, record
from tests.contract.test_managed_tasks import running


async def test_fifty_writers_of_two_hundred_lines(repository: RedisTaskRepository) -> None:
    await repository.save(record())

    async def write(writer: int) -> None:
        for number in range(200):
            await repository.append_log("external-1", f"{writer} {number}")

    await asyncio.gather(*(write(writer) for writer in range(50)))
    page = await repository.get_logs("external-1", limit=20_000)
    assert page.total == 10_000
    by_writer: dict[str, list[int]] = defaultdict(list)
    for line in page.lines:
        writer, number = line.partition(",")[2].split(" ")
        by_writer[writer].append(int(number))
    assert len(by_writer) == 50
    assert all(numbers == list(range(200)) for numbers in by_writer.values())


async def test_five_hundred_races_have_one_winner_each(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    rng = random.Random(20260202)
    tasks = [await running(managed) for _ in range(500)]
    won: dict[str, list[TaskStatus]] = defaultdict(list)

    async def finish(task_id: str, status: TaskStatus) -> None:
        try:
            won[task_id].append(await managed.finish(task_id, 1, status))
        except TransitionError:
            return

    async def cancel(task_id: str) -> None:
        try:
            if await managed.cancel(task_id) is TaskStatus.CANCEL_REQUESTED:
                await finish(task_id, TaskStatus.CANCELLED)
        except TransitionError:
            return

    async def race(task_id: str) -> None:
        runners = [
            finish(task_id, TaskStatus.COMPLETED),
            finish(task_id, TaskStatus.FAILED),
            cancel(task_id),
        ]
        rng.shuffle(runners)
        await asyncio.gather(*runners)

    await asyncio.gather(*(race(task_id) for task_id in tasks))
    ends = Counter(task_id for kind, task_id, _ in keyspace.outbox() if kind == "finished")
    assert ends == dict.fromkeys(tasks, 1)
    announced = {name: status for kind, name, status in keyspace.outbox() if kind == "finished"}
    for task_id in tasks:
        found = await repository.get(task_id)
        assert found is not None
        assert won[task_id] == [found.status]
        assert announced[task_id] == found.status
    assert len(set(announced.values())) > 1, "the race was one"


async def test_writers_of_revisions_never_lose_an_update(repository: RedisTaskRepository) -> None:
    await repository.save(record(parameters={"n": 0}))
    conflicts = 0

    async def increase() -> None:
        nonlocal conflicts
        while True:
            mine = await repository.get("external-1")
            assert mine is not None
            mine.parameters = {"n": mine.parameters["n"] + 1}
            try:
                return await repository.save(mine)
            except TaskStateError:
                conflicts += 1

    await asyncio.gather(*(increase() for _ in range(20)))
    found = await repository.get("external-1")
    assert found is not None
    assert found.parameters == {"n": 20}
    assert found.revision == 21
    assert conflicts > 0


async def check(repository: RedisTaskRepository, task_id: str, kind: int) -> None:
    """One call about a task, whose answer must be about that task."""
    match kind:
        case 0:
            found = await repository.get(task_id)
            assert found is not None
            assert found.description == task_id
            assert all(task_id in line for line in found.logs)
        case 1:
            page = await repository.get_logs(task_id)
            assert page.total >= 20
            assert all(task_id in line for line in page.lines)
        case 2:
            assert await repository.get_launcher_output(task_id) == task_id
        case 3:
            (found,) = await repository.list_by_ids([task_id])
            assert found.description == task_id
        case _:
            await repository.append_log(task_id, f"{task_id} more")


async def test_cancelled_calls_never_cross_replies(repository: RedisTaskRepository) -> None:
    """Calls are cancelled at random moments; whoever comes next gets the answer to its own call."""
    rng = random.Random(20260303)
    ids = [f"task-{number}" for number in range(20)]
    for task_id in ids:
        lines = [format_log_entry(f"{task_id} {number}") for number in range(20)]
        await repository.save(record(task_id, logs=lines, description=task_id))
        await repository.update_result(task_id, launcher_output=task_id)

    async def ask(task_id: str) -> None:
        await check(repository, task_id, rng.randrange(5))

    async def disturb(task_id: str) -> None:
        call = asyncio.create_task(ask(task_id))
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    for _ in range(30):
        await asyncio.gather(*(f(name) for name in ids for f in (ask, disturb, disturb)))
    for task_id in ids:
        await check(repository, task_id, 0)


async def test_a_cancelled_blocking_read_loses_its_connection_only(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository, managed: ManagedTasks
) -> None:
    outbox, changes = await provider.get_outbox(), await provider.get_changes()
    await outbox.ensure_group("dispatch")
    for _ in range(20):
        after = await changes.last_id()
        waiting = [
            asyncio.create_task(outbox.read("dispatch", "a", count=10, block_ms=60_000)),
            asyncio.create_task(changes.read(after, block_ms=60_000)),
        ]
        await asyncio.sleep(0.001)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        task_id = await running(managed)
        found = await repository.get(task_id)
        assert found is not None
        assert found.task_id == task_id
    # Events that went to a cancelled reader are pending, none is lost.
    claimed = await outbox.claim("dispatch", "b", min_idle_ms=0, count=100)
    fresh = await outbox.read("dispatch", "b", count=100, block_ms=0)
    assert len({event.task_id for event in [*claimed, *fresh]}) == 20


async def test_two_programs_share_a_store(
    shared_server: RealServer, repository: RedisTaskRepository
) -> None:
    settings = RedisRepositorySettings(write_url=shared_server.url, timeout_seconds=60)
    other = RedisRepositoryProvider(settings)
    try:
        theirs = await other.get_repository()
        ids = await asyncio.gather(*(r.next_task_id() for r in (repository, theirs) * 100))
        assert len(set(ids)) == 200
    finally:
        await other.close()
