"""Which waiting task gets the next slot: the order, the limits, and who gives the slots."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest

from task_state import InvalidRequestError, TaskStatus, keys
from task_state.admission import Admission, Attendance, Policy
from task_state.managed import ManagedTasks, Waiting
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace
from tests.contract.test_managed_tasks import begin, loaded, submit

LIVES = 3600.0


class Line:
    """Tasks that wait, each with a name of its own, such as `a2` for the second of user `a`."""

    def __init__(self, managed: ManagedTasks, admission: Admission) -> None:
        self._managed = managed
        self._admission = admission
        self._names: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    async def add(self, user: str, count: int = 1, service: str = "sync") -> list[str]:
        """Submit and accept tasks of a user; their ids."""
        ids = [await submit(self._managed, user_id=user, service=service) for _ in range(count)]
        for task_id in ids:
            self._counts[user] += 1
            self._names[task_id] = f"{user}{self._counts[user]}"
            await self._managed.accept(task_id)
        return ids

    async def admit(
        self, slots: int, policies: Mapping[str, Policy] | None = None, *, worker: str = "w"
    ) -> list[str]:
        """What a worker with so many slots in all gets, by name."""
        return self.names(await self.calls(slots, policies, worker=worker))

    async def calls(
        self, slots: int, policies: Mapping[str, Policy] | None = None, *, worker: str = "w"
    ) -> list[Waiting]:
        """The same, as calls."""
        attendance = Attendance(worker, slots, LIVES)
        return (await self._admission.admit(policies, attendance=attendance)).calls

    async def run(self, calls: Iterable[Waiting], worker: str = "w") -> None:
        """Run what was admitted to its end."""
        for call in calls:
            begun = await self._managed.begin(
                call.task_id, call.epoch, worker=worker, admitted=True
            )
            assert begun is not None
            await self._managed.finish(call.task_id, call.epoch, TaskStatus.COMPLETED)

    async def order(self, policies: Mapping[str, Policy] | None = None) -> list[str]:
        """The order in which one slot takes what waits."""
        found: list[str] = []
        while calls := await self.calls(1, policies):
            assert len(calls) == 1
            found += self.names(calls)
            await self.run(calls)
        return found

    def names(self, calls: Iterable[Waiting]) -> list[str]:
        """The names of those tasks."""
        return [self._names[call.task_id] for call in calls]


@pytest.fixture
def line(managed: ManagedTasks, admission: Admission) -> Line:
    return Line(managed, admission)


# ------------------------------------------------------------------------------------------- order
async def test_users_take_turns_and_each_ones_oldest_goes_first(line: Line) -> None:
    await line.add("a", 4)
    await line.add("b", 2)
    await line.add("c", 1)
    assert await line.order() == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_a_new_user_waits_for_one_slot_at_most(line: Line) -> None:
    await line.add("a", 5)
    first = await line.calls(1)
    await line.add("b", 1)
    await line.run(first)
    assert await line.order() == ["b1", "a2", "a3", "a4", "a5"]


async def test_a_user_who_comes_back_does_not_go_first_again(line: Line) -> None:
    await line.add("a", 1)
    await line.add("b", 3)
    await line.run(await line.calls(1))  # a1, and a waits no more
    await line.run(await line.calls(1))  # b1
    await line.add("a", 1)
    await line.run(await line.calls(1))  # a2: b was served after a
    await line.add("a", 1)
    assert await line.order() == ["b2", "a3", "b3"]


async def test_a_turn_counts_in_every_service(line: Line) -> None:
    await line.add("a", 2, "copy")
    await line.add("a", 2, "sync")
    await line.add("b", 2, "sync")
    assert await line.order() == ["a1", "b1", "a2", "b2", "a3", "a4"]


async def test_a_higher_priority_goes_first_whoever_waits(line: Line) -> None:
    await line.add("a", 2, "sync")
    await line.add("b", 2, "copy")
    await line.add("a", 1, "check")
    policies = {"copy": Policy(priority=10), "check": Policy(priority=-5)}
    assert await line.order(policies) == ["b1", "b2", "a1", "a2", "a3"]


async def test_a_task_taken_back_goes_before_the_users_younger_ones(
    line: Line, managed: ManagedTasks
) -> None:
    await line.add("a", 3)
    (call,) = await line.calls(1)
    await managed.begin(call.task_id, 1, worker="w")
    await managed.release(call.task_id, 1)
    assert await line.order() == ["a1", "a2", "a3"]


async def test_accepting_twice_is_once(
    line: Line, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    (task_id,) = await line.add("a", 1)
    await managed.accept(task_id)
    assert keyspace.client.hget(keys.WAITING, "sync") == b"1"
    (call,) = await line.calls(1)
    assert await managed.accept(task_id) == call
    assert await line.calls(2) == [], "it was admitted already"
    await managed.begin(task_id, 1, worker="w", admitted=True)
    await managed.retry(task_id, 1, delay_seconds=1000)
    assert await managed.accept(task_id) == Waiting(task_id, 2)
    assert await line.calls(2) == [], "it was put off"


# ------------------------------------------------------------------------------------------- slots
async def test_without_a_worker_nothing_is_admitted(line: Line, admission: Admission) -> None:
    await line.add("a", 2)
    assert (await admission.admit()).calls == []
    assert await line.admit(1) == ["a1"]
    assert (await admission.admit()).calls == [], "the one slot is taken"


async def test_the_slots_of_all_workers_count_until_they_leave(
    line: Line, admission: Admission
) -> None:
    await line.add("a", 9)
    assert await line.admit(2, worker="one") == ["a1", "a2"]
    assert await line.admit(3, worker="two") == ["a3", "a4", "a5"]
    assert await line.admit(3, worker="one") == ["a6"], "it has one more now"
    assert await line.admit(0, worker="one") == []
    assert (await admission.admit()).calls == []
    assert await line.admit(5, worker="three") == ["a7", "a8"], "as the leaver's are taken"


async def test_a_silent_workers_slots_are_forgotten_and_so_are_its_leases(
    line: Line, managed: ManagedTasks, admission: Admission, keyspace: Keyspace
) -> None:
    """Its tasks are rescued much later: until then they must not stop the living."""
    await line.add("a", 6)
    for call in await line.calls(2, worker="dead"):
        await managed.begin(call.task_id, 1, worker="dead", admitted=True)
    for call in await line.calls(2, worker="living"):
        await managed.begin(call.task_id, 1, worker="living", admitted=True)
        await managed.finish(call.task_id, 1, TaskStatus.COMPLETED)
    keyspace.client.hset(keys.WORKERS, "dead", "2 1")
    assert [len((await admission.admit()).calls), len((await admission.admit()).calls)] == [2, 0]
    assert keyspace.client.hkeys(keys.WORKERS) == [b"living"]


async def test_a_call_that_stops_at_its_limit_says_so(line: Line, admission: Admission) -> None:
    await line.add("a", 5)
    await line.admit(0)
    attendance = Attendance("w", 4, LIVES)
    first = await admission.admit(attendance=attendance, limit=3)
    assert (line.names(first.calls), first.more) == (["a1", "a2", "a3"], True)
    second = await admission.admit(attendance=attendance, limit=3)
    assert (line.names(second.calls), second.more) == (["a4"], False)


async def test_many_callers_at_once_fill_each_slot_once(
    line: Line, provider: RedisRepositoryProvider
) -> None:
    """Three schedulers and two workers, all at the same moment, again and again."""
    for user in "abc":
        await line.add(user, 8)
    admitted: list[Waiting] = []

    async def ask(worker: str | None) -> None:
        attendance = Attendance(worker, 3, LIVES) if worker else None
        other = await provider.get_admission()
        for _ in range(10):
            admitted.extend((await other.admit(attendance=attendance)).calls)

    await asyncio.gather(*(ask(worker) for worker in ("one", "two", None, None, None)))
    assert len(admitted) == 6
    assert len({call.task_id for call in admitted}) == 6
    assert Counter(name[0] for name in line.names(admitted)) == {"a": 2, "b": 2, "c": 2}


# ------------------------------------------------------------------------------------------ limits
async def test_a_services_limit_counts_what_is_admitted_and_what_runs(
    line: Line, managed: ManagedTasks
) -> None:
    await line.add("a", 3)
    await line.add("b", 2, "copy")
    policies = {"sync": Policy(concurrency_limit=2)}
    calls = await line.calls(10, policies)
    assert line.names(calls) == ["a1", "b1", "a2", "b2"]
    await managed.begin(calls[0].task_id, 1, worker="w", admitted=True)
    assert await line.admit(10, policies) == []
    await managed.finish(calls[0].task_id, 1, TaskStatus.FAILED)
    assert await line.admit(10, policies) == ["a3"]


async def test_a_users_limit_lets_the_next_user_by(line: Line, managed: ManagedTasks) -> None:
    await line.add("a", 3)
    await line.add("b", 2)
    policies = {"sync": Policy(per_user_limit=1)}
    calls = await line.calls(10, policies)
    assert line.names(calls) == ["a1", "b1"]
    assert await line.admit(10, policies) == []
    await managed.cancel(calls[1].task_id)
    assert await line.admit(10, policies) == ["b2"]


async def test_users_at_their_limit_are_passed_over_however_many_they_are(line: Line) -> None:
    users = [f"u{number:02}" for number in range(25)]
    policies = {"sync": Policy(per_user_limit=1)}
    for user in users:
        await line.add(user, 2)
    assert len(await line.admit(25, policies)) == 25
    await line.add("new", 2)
    assert await line.admit(100, policies) == ["new1"]


@pytest.mark.parametrize(
    "how", ["finish", "retry", "put off", "release", "rescue", "cancel", "delete", "cancel waiting"]
)
async def test_whatever_ends_an_attempt_frees_its_place(
    line: Line, managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace, how: str
) -> None:
    policies = {"sync": Policy(concurrency_limit=1, per_user_limit=1)}
    (task_id,) = await line.add("a", 1)
    (call,) = await line.calls(1, policies)
    await line.add("b", 1)
    if how == "cancel waiting":
        await managed.cancel(task_id)
    else:
        await managed.begin(task_id, call.epoch, worker="w", admitted=True)
        await _end(managed, repository, keyspace, task_id, how)
    assert (await line.admit(1, policies))[:1] == ["b1"]
    assert keyspace.client.hkeys(keys.busy("sync")) != []
    assert keyspace.client.hget(keys.HELD, "w") is None


async def _end(
    managed: ManagedTasks,
    repository: RedisTaskRepository,
    keyspace: Keyspace,
    task_id: str,
    how: str,
) -> None:
    if how == "finish":
        await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    elif how in {"retry", "put off"}:
        await managed.retry(task_id, 1, delay_seconds=1000 if how == "put off" else 0)
    elif how == "release":
        await managed.release(task_id, 1)
    elif how == "rescue":
        keyspace.expire_lease(task_id)
        keyspace.let_rescue()
        assert len(await managed.rescue()) == 1
    elif how == "cancel":
        await managed.cancel(task_id)
        await managed.finish(task_id, 1, TaskStatus.CANCELLED)
    else:
        await repository.delete(task_id)


# ----------------------------------------------------------------------------------------- waiting
async def test_a_task_that_was_put_off_waits_for_its_time_then_for_its_turn(
    line: Line, managed: ManagedTasks, admission: Admission, keyspace: Keyspace
) -> None:
    (task_id,) = await line.add("a", 1)
    (call,) = await line.calls(1)
    await managed.begin(task_id, 1, worker="w", admitted=True)
    await managed.retry(task_id, 1, delay_seconds=1000)
    found = await admission.admit(attendance=Attendance("w", 1, LIVES))
    assert found.calls == []
    assert found.due_seconds is not None
    assert 900 < found.due_seconds <= 1000
    keyspace.client.zadd(keys.DELAYED, {task_id: 1})
    found = await admission.admit(attendance=Attendance("w", 1, LIVES))
    assert (found.calls, found.due_seconds) == ([Waiting(task_id, 2)], None)
    assert call == Waiting(task_id, 1)


@pytest.mark.parametrize("how", ["cancel", "delete", "set_status", "begin"])
@pytest.mark.parametrize("where", ["lane", "delayed", "queued"])
async def test_a_task_that_stops_waiting_leaves_its_place(
    line: Line,
    managed: ManagedTasks,
    repository: RedisTaskRepository,
    keyspace: Keyspace,
    where: str,
    how: str,
) -> None:
    (task_id,) = await line.add("a", 1)
    epoch = 1
    if where != "lane":
        await line.calls(1)
    if where == "delayed":
        await managed.begin(task_id, 1, worker="w")
        await managed.retry(task_id, 1, delay_seconds=1000)
        epoch = 2
    if how == "cancel":
        await managed.cancel(task_id)
    elif how == "delete":
        await repository.delete(task_id)
    elif how == "set_status":
        await repository.set_status(task_id, TaskStatus.CANCEL_REQUESTED)
    else:
        assert await managed.begin(task_id, epoch, worker="w")
        await managed.finish(task_id, epoch, TaskStatus.COMPLETED)
    await line.add("b", 1)
    assert await line.admit(1) == ["b1"]
    client = keyspace.client
    assert client.keys(keys.lane("*", "*")) == client.keys(keys.ring("*")) == []
    assert client.exists(keys.WAITING, keys.DELAYED, keys.DELAYS, keys.HELD) == 0
    assert len(client.hkeys(keys.busy("sync"))) == client.zcard(keys.QUEUED) == 1


async def test_what_was_not_admitted_does_not_begin_at_a_worker(
    line: Line, managed: ManagedTasks
) -> None:
    (task_id,) = await line.add("a", 1)
    assert await managed.begin(task_id, 1, worker="w", admitted=True) is None
    await line.calls(1)
    assert await managed.begin(task_id, 1, worker="w", admitted=True) is not None


async def test_a_stray_in_a_lane_does_not_stop_the_others(
    line: Line, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    """No script leaves one, but a restored or repaired store may hold one."""
    (task_id,) = await line.add("a", 1)
    await line.add("b", 1)
    assert (await loaded(repository, task_id)).status is TaskStatus.PENDING
    keyspace.client.delete(keys.task(task_id))
    keyspace.client.zadd(keys.DELAYED, {"gone": 1})
    assert await line.admit(5) == ["b1"]
    assert keyspace.client.exists(keys.WAITING, keys.DELAYED, keys.ring("sync")) == 0


async def test_the_memory_of_turns_is_bounded(line: Line, keyspace: Keyspace) -> None:
    keyspace.client.zadd(keys.TURNS, {f"u{number}": -number for number in range(10_005)})
    await line.add("a", 1)
    assert await line.admit(1) == ["a1"]
    assert keyspace.client.zcard(keys.TURNS) == 10_000
    assert keyspace.client.zscore(keys.TURNS, "a") == 1


async def test_unqueued_watches_over_what_was_admitted(
    managed: ManagedTasks, admission: Admission, keyspace: Keyspace
) -> None:
    async def admit() -> list[Waiting]:
        return (await admission.admit(attendance=Attendance("w", 1, 60))).calls

    submitted, accepted = await submit(managed), await submit(managed)
    await managed.accept(accepted)
    assert keyspace.client.zcard(keys.QUEUED) == 0, "it waits for a slot, nobody looks for a call"
    assert await admit() == [Waiting(accepted, 1)]
    assert await managed.unqueued() == [], "too soon"
    keyspace.let_queue_check(accepted)
    assert await managed.unqueued() == [Waiting(accepted, 1)]
    assert await managed.unqueued() == [], "its next look is later"
    await begin(managed, accepted)
    await managed.retry(accepted, 1)
    assert await managed.unqueued() == []
    assert await admit() == [Waiting(accepted, 2)]
    keyspace.let_queue_check(accepted)
    assert await managed.unqueued() == [Waiting(accepted, 2)]
    keyspace.let_queue_check(accepted)
    keyspace.let_queue_check(submitted)
    await managed.cancel(accepted)
    await managed.begin(submitted, 1, worker="w")
    assert await managed.unqueued() == []
    assert keyspace.client.zcard(keys.QUEUED) == 0


@pytest.mark.parametrize("service", ["", "with space", "a:b", "**"])
async def test_a_mode_of_what_is_no_service_is_refused(admission: Admission, service: str) -> None:
    for change in (admission.pause, admission.drain, admission.resume):
        with pytest.raises(InvalidRequestError, match="is no name"):
            await change(service)
