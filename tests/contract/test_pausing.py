"""Pause, drain and resume of a service, what is told of services, and queue positions."""

import pytest

from task_state import InvalidRequestError, ServiceDrainingError, TaskStatus, keys
from task_state.admission import Admission, Attendance, Policy, ServiceMode, ServiceState
from task_state.managed import ManagedTasks, Waiting
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace, record
from tests.contract.test_admission import Line
from tests.contract.test_managed_tasks import begin, loaded, submit


@pytest.fixture
def line(managed: ManagedTasks, admission: Admission) -> Line:
    return Line(managed, admission)


async def state(admission: Admission, service: str = "sync") -> ServiceState:
    """What is told of one service."""
    found = {each.service: each for each in await admission.states()}
    return found[service]


# ------------------------------------------------------------------------------------------- pause
@pytest.mark.parametrize("name", ["sync", "*"])
async def test_a_paused_service_starts_nothing_until_it_is_resumed(
    line: Line, admission: Admission, name: str
) -> None:
    await line.add("a", 2)
    await admission.pause(name, "the disk is full: 디스크")
    assert await line.admit(5) == []
    told = await state(admission)
    assert (told.mode, told.waiting) == (ServiceMode.PAUSED, 2)
    assert told.reason == "the disk is full: 디스크"
    assert told.since is not None
    await admission.resume(name)
    told = await state(admission)
    assert (told.mode, told.since, told.reason) == (ServiceMode.ACTIVE, None, None)
    assert await line.admit(5) == ["a1", "a2"]


async def test_a_paused_service_blocks_no_other(line: Line, admission: Admission) -> None:
    await line.add("a", 3, "sync")
    await line.add("b", 2, "copy")
    await admission.pause("sync")
    assert await line.admit(2, {"sync": Policy(priority=100)}) == ["b1", "b2"]


async def test_what_was_admitted_before_the_pause_does_not_begin_and_keeps_its_place(
    line: Line, managed: ManagedTasks, admission: Admission
) -> None:
    await line.add("a", 2)
    running, waiting = await line.calls(2)
    await managed.begin(running.task_id, 1, worker="w", admitted=True)
    await admission.pause("sync")
    told = await state(admission)
    assert (told.waiting, told.running) == (1, 1)
    assert await managed.begin(waiting.task_id, 1, worker="w", admitted=True) is None
    assert await managed.finish(running.task_id, 1, TaskStatus.COMPLETED) is TaskStatus.COMPLETED
    await line.add("a", 1)
    await admission.resume("sync")
    assert await line.order() == ["a2", "a3"]


async def test_a_retry_waits_for_the_end_of_the_pause(
    line: Line, managed: ManagedTasks, admission: Admission, keyspace: Keyspace
) -> None:
    at_once, later = await line.add("a", 2)
    for call in await line.calls(2):
        await managed.begin(call.task_id, 1, worker="w", admitted=True)
    await admission.pause("sync")
    await managed.retry(at_once, 1)
    await managed.retry(later, 1, delay_seconds=1000)
    told = await state(admission)
    assert (told.waiting, told.delayed, told.running) == (1, 1, 0)
    keyspace.client.zadd(keys.DELAYED, {later: 1})
    assert await line.calls(2) == []
    told = await state(admission)
    assert (told.waiting, told.delayed) == (2, 0)
    await admission.resume("sync")
    assert await line.calls(2) == [Waiting(at_once, 2), Waiting(later, 2)]


async def test_a_paused_service_takes_tasks_and_cancels_them(
    line: Line, managed: ManagedTasks, admission: Admission, keyspace: Keyspace
) -> None:
    await admission.pause("sync")
    (task_id,) = await line.add("a", 1)
    assert await managed.cancel(task_id) is TaskStatus.CANCELLED
    assert keyspace.client.exists(keys.WAITING, keys.lane("sync", "a")) == 0


async def test_pausing_all_and_one_are_two_things(line: Line, admission: Admission) -> None:
    await line.add("a", 1, "sync")
    await line.add("b", 1, "copy")
    await admission.pause("sync", "own")
    await admission.pause("*", "all")
    told = {each.service: (each.mode, each.reason) for each in await admission.states()}
    paused = ServiceMode.PAUSED
    assert told == {"*": (paused, "all"), "copy": (paused, "all"), "sync": (paused, "own")}
    await admission.resume("sync")
    assert (await state(admission)).reason == "all"
    assert await line.admit(5) == []
    await admission.pause("sync", "own")
    await admission.resume("*")
    assert await line.admit(5) == ["b1"]
    assert {each.service for each in await admission.states()} == {"copy", "sync"}


async def test_pausing_again_keeps_its_time_and_takes_the_new_reason(admission: Admission) -> None:
    await admission.pause("never-used", "first")
    first = await state(admission, "never-used")
    await admission.pause("never-used", "second")
    second = await state(admission, "never-used")
    assert (second.since, second.reason) == (first.since, "second")
    await admission.drain("never-used")
    third = await state(admission, "never-used")
    assert (third.mode, third.reason) == (ServiceMode.DRAINING, None)
    assert first.since is not None
    assert third.since is not None
    assert third.since > first.since


async def test_a_reason_has_its_limit(admission: Admission) -> None:
    await admission.pause("sync", "x" * 500)
    with pytest.raises(InvalidRequestError, match="at most 500"):
        await admission.pause("sync", "x" * 501)


# ------------------------------------------------------------------------------------------- drain
@pytest.mark.parametrize("name", ["sync", "*"])
async def test_a_draining_service_refuses_new_tasks_and_finishes_the_others(
    line: Line, managed: ManagedTasks, admission: Admission, keyspace: Keyspace, name: str
) -> None:
    await line.add("a", 1)
    unaccepted = await submit(managed, idempotency_key="k")
    await admission.drain(name)
    before = keyspace.dump()
    with pytest.raises(ServiceDrainingError, match="'sync' is being drained"):
        await submit(managed)
    assert keyspace.dump() == before, "nothing was stored"
    assert await submit(managed, idempotency_key="k") == unaccepted, "its answer was lost, perhaps"
    await managed.accept(unaccepted)
    assert await line.admit(1) == ["a1"]
    assert (await state(admission)).mode is ServiceMode.DRAINING
    await admission.resume(name)
    assert await submit(managed)


async def test_draining_one_service_lets_others_submit_and_a_pause_of_all_wins(
    managed: ManagedTasks, admission: Admission
) -> None:
    await submit(managed, service="sync")
    await admission.drain("sync", "own")
    assert await submit(managed, service="copy")
    await admission.pause("*", "all")
    assert (await state(admission, "sync")).mode is ServiceMode.PAUSED
    assert await submit(managed, service="copy")
    with pytest.raises(ServiceDrainingError):
        await submit(managed, service="sync")


# ------------------------------------------------------------------------------------------ counts
async def load(admission: Admission) -> tuple[int, int, int]:
    """Waiting, delayed and running tasks of the service."""
    told = await state(admission)
    return told.waiting, told.delayed, told.running


async def test_a_task_is_counted_from_its_submission_to_its_end(
    managed: ManagedTasks,
    admission: Admission,
    repository: RedisTaskRepository,
    keyspace: Keyspace,
) -> None:
    task_id = await submit(managed)
    assert await load(admission) == (1, 0, 0), "nobody has dispatched it yet"
    await repository.set_status(task_id, TaskStatus.DISPATCHING)
    assert await load(admission) == (1, 0, 0)
    await managed.accept(task_id)
    assert await load(admission) == (1, 0, 0)
    await managed.accept(task_id)
    await admission.admit(attendance=Attendance("w", 1, 60))
    assert await load(admission) == (1, 0, 0)
    await begin(managed, task_id)
    assert await load(admission) == (0, 0, 1)
    await managed.retry(task_id, 1, delay_seconds=1000)
    assert await load(admission) == (0, 1, 0)
    await begin(managed, task_id, 2)
    await managed.finish(task_id, 2, TaskStatus.COMPLETED)
    assert await load(admission) == (0, 0, 0)
    assert keyspace.client.exists(keys.arriving("sync"), keys.busy("sync")) == 0


@pytest.mark.parametrize("how", ["cancel", "delete", "FAILED", "begin"])
async def test_what_ends_before_it_is_accepted_is_counted_no_more(
    managed: ManagedTasks,
    admission: Admission,
    repository: RedisTaskRepository,
    keyspace: Keyspace,
    how: str,
) -> None:
    task_id, other = await submit(managed), await submit(managed)
    if how == "cancel":
        await managed.cancel(task_id)
    elif how == "delete":
        await repository.delete(task_id)
    elif how == "FAILED":
        await repository.set_status(task_id, TaskStatus.FAILED)
    else:
        await begin(managed, task_id)
    assert await load(admission) == (1, 0, 1 if how == "begin" else 0)
    await managed.cancel(other)
    assert keyspace.client.exists(keys.arriving("sync")) == 0


async def test_records_of_other_programs_are_not_counted(
    managed: ManagedTasks, admission: Admission, repository: RedisTaskRepository
) -> None:
    for number, status in enumerate((TaskStatus.PENDING, TaskStatus.RUNNING)):
        await repository.save(record(f"external-{number}", service="sync", status=status))
    await submit(managed)
    assert await load(admission) == (1, 0, 0)


async def test_what_another_scheduler_runs_is_counted(
    managed: ManagedTasks, admission: Admission, repository: RedisTaskRepository
) -> None:
    """It accepts and begins nothing here: its frontend says that the task runs."""
    task_id = await submit(managed)
    await repository.set_status(task_id, TaskStatus.RUNNING)
    assert await load(admission) == (0, 0, 1)
    await repository.set_status(task_id, TaskStatus.COMPLETED)
    assert await load(admission) == (0, 0, 0)


# --------------------------------------------------------------------------------------- positions
async def test_positions_follow_the_turns(
    line: Line, managed: ManagedTasks, admission: Admission, repository: RedisTaskRepository
) -> None:
    ids = [*await line.add("a", 3), *await line.add("b", 1), *await line.add("c", 2)]
    names = ["a1", "a2", "a3", "b1", "c1", "c2"]

    async def positions() -> dict[str, int | None]:
        found = [await admission.position(await loaded(repository, task_id)) for task_id in ids]
        return dict(zip(names, found, strict=True))

    assert await positions() == {"a1": 1, "b1": 2, "c1": 3, "a2": 4, "c2": 5, "a3": 6}
    (call,) = await line.calls(1)
    assert await positions() == {"a1": 1, "b1": 1, "c1": 2, "a2": 3, "c2": 4, "a3": 5}
    await managed.begin(call.task_id, 1, worker="w", admitted=True)
    assert (await positions())["a1"] is None, "it runs"
    await managed.retry(call.task_id, 1, delay_seconds=1000)
    assert (await positions())["a1"] is None, "it is put off"


async def test_a_task_that_was_not_accepted_yet_is_behind_those_that_were(
    line: Line, managed: ManagedTasks, admission: Admission, repository: RedisTaskRepository
) -> None:
    first, second = await submit(managed), await submit(managed, user_id="bob")
    await line.add("c", 3)

    async def position(task_id: str) -> int | None:
        return await admission.position(await loaded(repository, task_id))

    assert (await position(first), await position(second)) == (4, 4)
    third = await submit(managed)
    assert await position(third) == 6


async def test_positions_of_other_services_and_of_nothing_waiting(
    line: Line, managed: ManagedTasks, admission: Admission, repository: RedisTaskRepository
) -> None:
    await line.add("a", 3, "copy")
    (task_id,) = await line.add("a", 1, "sync")
    record = await loaded(repository, task_id)
    assert await admission.position(record) == 1
    await repository.delete(task_id)
    assert await admission.position(record) is None
    ended = await submit(managed)
    await begin(managed, ended)
    assert await admission.position(await loaded(repository, ended)) is None


async def test_a_position_among_very_many_users_is_an_estimate(
    line: Line, admission: Admission, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    first, second = await line.add("me", 2)
    ring, client = keys.ring("sync"), keyspace.client
    client.zadd(ring, {f"u{number:04}": -1 - 2**53 + number for number in range(2999)})
    for number in range(2999):
        client.zadd(keys.lane("sync", f"u{number:04}"), {f"t{number}": 1})
    assert await admission.position(await loaded(repository, first)) == 3000, "this one is exact"
    position = await admission.position(await loaded(repository, second))
    assert position is not None
    assert 2900 < position <= 3010
