"""What becomes of a slot while tasks of its schedule have not ended; how these let go of it."""

import pytest

from task_state import JsonObject, ServiceDrainingError, TaskStatus, keys
from task_state.admission import Admission
from task_state.managed import ManagedTasks
from task_state.repository import RedisTaskRepository
from task_state.schedules import MAX_BUFFERED, Overlap, Schedules
from tests.contract.schedule_store import NAME, START, Old, end, slots, spec, task_of, told
from tests.contract.store import Keyspace, indexes, record

CANCELLED, FAILED = TaskStatus.CANCELLED, TaskStatus.FAILED


@pytest.fixture
def old(schedules: Schedules, keyspace: Keyspace) -> Old:
    return Old(schedules, keyspace)


# ------------------------------------------------------------------------------------------- a fire
async def test_a_fire_is_like_a_submission(
    old: Old, repository: RedisTaskRepository, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    parameters: JsonObject = {
        "src": "/data/원본",
        "n": [1, 2.5, None],
        "long": "x" * 300,
        "empty": {},
    }
    submitted = await managed.submit(service="sync", user_id="alice", parameters=parameters)
    await old.made()
    await old.settle_with(parameters, 1)
    by_hand = await repository.get(submitted.task_id)
    fired = await repository.get(old.task(1))
    assert by_hand
    assert fired
    own = {"task_id", "created_at", "updated_at", "schedule_id", "logs", "logs_total"}
    assert fired.model_dump(exclude=own) == by_hand.model_dump(exclude=own)
    assert (fired.schedule_id, by_hand.schedule_id, fired.logs_total) == (NAME, None, 1)
    assert fired.logs[0].endswith(",Submitted by schedule nightly for 2023-11-15T07:13:21+09:00"), (
        fired.logs
    )
    assert keyspace.indexes_of(fired.task_id) == indexes(fired)
    assert keyspace.outbox() == [
        ("submitted", submitted.task_id, "PENDING"),
        ("submitted", fired.task_id, "PENDING"),
    ]
    assert keyspace.changes()[-1] == ("created", fired.task_id, "PENDING")


async def test_no_parameters(old: Old, repository: RedisTaskRepository) -> None:
    await old.made()
    await old.settle(1)
    found = await repository.get(old.task(1))
    assert found
    assert found.parameters == {}


async def test_a_draining_service_is_left_alone(
    schedules: Schedules, old: Old, admission: Admission, keyspace: Keyspace
) -> None:
    await old.made()
    for name in ("sync", "*"):
        await admission.drain(name)
        before = (await old.now(), keyspace.names(), keyspace.outbox())
        assert (await old.settle(1)).state == "draining"
        for call in (
            schedules.run(NAME, {}),
            schedules.backfill(NAME, slots(START), overlap=Overlap.ALLOW),
        ):
            with pytest.raises(ServiceDrainingError):
                await call
        assert (await old.now(), keyspace.names(), keyspace.outbox()) == before
        await admission.resume(name)
    await admission.pause("sync")
    assert told((await old.settle(1)).fires) == [(1, "fired")], "paused: submitted, not started"


# ----------------------------------------------------------------------------------------- policies
async def test_skip(old: Old, managed: ManagedTasks) -> None:
    await old.made()
    assert told((await old.settle(1, 2)).fires) == [(1, "fired"), (2, "skipped")]
    (skipped,) = (await old.settle(3)).fires
    assert skipped.reason == f"task {old.task(1)} has not ended"
    await end(managed, old.task(1))
    assert told((await old.settle(4)).fires) == [(4, "fired")]
    found = await old.now()
    assert (found.fired, found.skipped, found.active) == (2, 2, [old.task(4)])


async def test_allow(old: Old) -> None:
    await old.made(overlap="allow")
    assert told((await old.settle(1, 2, 3)).fires) == [(1, "fired"), (2, "fired"), (3, "fired")]
    assert (await old.now()).active == [old.task(1), old.task(2), old.task(3)]


async def test_buffer_one(schedules: Schedules, old: Old, managed: ManagedTasks) -> None:
    await old.made(overlap="buffer_one")
    fires = (await old.settle(1, 2, 3)).fires
    assert told(fires) == [(1, "fired"), (2, "buffered"), (3, "skipped")]
    assert (await old.now()).buffered == [START + 2]
    assert await schedules.release() == []
    await end(managed, old.task(1))
    assert told(await schedules.release()) == [(2, "fired")]
    found = await old.now()
    assert (found.active, found.buffered) == ([old.task(2)], [])
    assert told((await old.settle(4)).fires) == [(4, "buffered")]


async def test_buffer_all_goes_one_by_one(
    schedules: Schedules, old: Old, managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    await old.made(overlap="buffer_all")
    await old.settle_with({"who": "나"}, 1, 2, 3, 4)
    for number in (1, 2, 3):
        await end(managed, old.task(number))
        assert told(await schedules.release()) == [(number + 1, "fired")]
        assert await schedules.release() == []
    last = await repository.get(old.task(4))
    assert last
    assert last.parameters == {"who": "나"}
    assert (await old.now()).fired == 4


async def test_what_waits_has_a_bound(old: Old) -> None:
    await old.made(overlap="buffer_all")
    await old.settle(*range(1, 101))
    fires = (await old.settle(*range(101, 111))).fires
    assert told(fires) == [(101, "buffered"), *((number, "skipped") for number in range(102, 111))]
    assert len((await old.now()).buffered) == MAX_BUFFERED


async def test_cancel_other_without_a_lease(
    old: Old, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    await old.made(overlap="cancel_other")
    await old.settle(1)
    assert told((await old.settle(2)).fires) == [(2, "fired")]
    first = await repository.get(old.task(1))
    assert first
    assert first.status is CANCELLED
    assert first.logs[-1].endswith(",Cancelled: the next slot of its schedule is due")
    assert ("finished", old.task(1), "CANCELLED") in keyspace.outbox()
    assert (await old.now()).active == [old.task(2)]


async def test_cancel_other_waits_for_the_worker(
    schedules: Schedules, old: Old, managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    await old.made(overlap="cancel_other")
    await old.settle(1)
    await managed.begin(old.task(1), 1, worker="w")
    assert told((await old.settle(2)).fires) == [(2, "buffered")]
    assert told((await old.settle(3, 4)).fires) == [(3, "skipped"), (2, "skipped"), (4, "buffered")]
    first = await repository.get(old.task(1))
    assert first
    assert first.status is TaskStatus.CANCEL_REQUESTED
    assert await schedules.release() == []
    await managed.finish(old.task(1), 1, CANCELLED)
    assert told(await schedules.release()) == [(4, "fired")]
    assert (await old.now()).skipped == 2


async def test_what_waits_does_not_start_in_a_draining_service(
    schedules: Schedules, old: Old, managed: ManagedTasks, admission: Admission, keyspace: Keyspace
) -> None:
    await old.made(overlap="buffer_all")
    await old.settle(1, 2)
    await end(managed, old.task(1))
    await admission.drain("sync")
    assert await schedules.release() == []
    await admission.resume("sync")
    keyspace.client.zadd(keys.SCHEDULE_WAITING, {NAME: 1})
    assert told(await schedules.release()) == [(2, "fired")]


async def test_the_one_that_waits_makes_room_when_it_starts(
    old: Old, managed: ManagedTasks
) -> None:
    await old.made(overlap="buffer_one")
    await old.settle(1, 2)
    await end(managed, old.task(1))
    assert told((await old.settle(3, 4)).fires) == [(2, "fired"), (3, "buffered"), (4, "skipped")]


async def test_cancel_other_takes_the_place_of_what_waits(schedules: Schedules, old: Old) -> None:
    await old.made(overlap="cancel_other")
    await old.settle(1)
    past = slots(START)
    assert told(await schedules.backfill(NAME, past, overlap=Overlap.BUFFER_ALL)) == [
        (0, "buffered")
    ]
    assert told((await old.settle(2)).fires) == [(0, "skipped"), (2, "fired")]
    assert ((await old.now()).active, (await old.now()).buffered) == ([old.task(2)], [])


async def test_an_edit_keeps_what_waits_as_it_was(
    schedules: Schedules, old: Old, managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    await old.made(overlap="buffer_all")
    await old.settle_with({"n": 1}, 1, 2)
    await schedules.replace(
        NAME,
        spec(service="rm", user_id="bob"),
        revision=old.revision,
        cursor=old.cursor,
        before=None,
    )
    await end(managed, old.task(1))
    assert told(await schedules.release()) == [(2, "fired")]
    second = await repository.get(old.task(2))
    assert second
    assert (second.service, second.user_id, second.parameters) == ("sync", "alice", {"n": 1})


async def test_a_settle_starts_first_what_has_waited(old: Old, managed: ManagedTasks) -> None:
    await old.made(overlap="buffer_all")
    await old.settle(1, 2)
    await end(managed, old.task(1))
    assert told((await old.settle(3)).fires) == [(2, "fired"), (3, "buffered")]


# ---------------------------------------------------------------------------------- how they let go
async def test_lost_tasks_are_not_waited_for(
    schedules: Schedules, old: Old, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    await old.made(overlap="buffer_all")
    await old.settle(1, 2)
    keyspace.client.delete(keys.task(old.task(1)))
    assert await schedules.release() == [], "nothing told of it; it is looked after in a while"
    keyspace.client.zadd(keys.SCHEDULE_WAITING, {NAME: 1})
    assert told(await schedules.release()) == [(2, "fired")]
    await end(managed, old.task(2))
    ghosts = {f"s.{NAME}.{number}": number for number in range(900)}
    keyspace.client.zadd(keys.schedule_active(NAME), ghosts)
    assert told((await old.settle(3)).fires) == [(3, "fired")]
    assert (await old.now()).active_count == 1


async def test_a_deleted_task_is_not_waited_for(
    schedules: Schedules, old: Old, repository: RedisTaskRepository
) -> None:
    await old.made(overlap="buffer_all")
    await old.settle(1, 2)
    await repository.delete(old.task(1))
    assert told(await schedules.release()) == [(2, "fired")]


async def test_a_task_that_is_to_be_deleted_lets_go_at_its_end(
    schedules: Schedules, old: Old, managed: ManagedTasks
) -> None:
    await old.made(overlap="buffer_all", pause_after_failures=1)
    await old.settle(1, 2)
    await managed.begin(old.task(1), 1, worker="w")
    await managed.cancel(old.task(1), delete=True)
    await managed.finish(old.task(1), 1, CANCELLED)
    assert told(await schedules.release()) == [(2, "fired")]
    assert (await old.now()).failures == 0


async def test_a_rescued_task_lets_go_when_it_fails(
    old: Old, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    await old.made()
    await old.settle(1)
    for epoch in (1, 2, 3):
        assert (await old.now()).active == [old.task(1)], "given back: it has not ended"
        await managed.begin(old.task(1), epoch, worker="w")
        keyspace.expire_lease(old.task(1))
        keyspace.let_rescue()
        await managed.rescue()
    found = await old.now()
    assert (found.active, found.failures) == ([], 1)


async def test_other_tasks_touch_no_schedule(
    schedules: Schedules, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    made = await schedules.create(NAME, spec(pause_after_failures=1))
    other = await managed.submit(service="sync", user_id="alice", parameters={}, schedule_id=NAME)
    await end(managed, other.task_id, FAILED)
    assert await schedules.get(NAME) == made
    assert not [name for name in keyspace.names() if "schedule-active" in name]


async def test_somebodys_record_is_no_task_of_the_schedule(
    old: Old, repository: RedisTaskRepository
) -> None:
    await old.made(pause_after_failures=1)
    await repository.save(record(old.task(1), status=TaskStatus.RUNNING))
    (fire,) = (await old.settle(1)).fires
    assert (fire.outcome, fire.task_id) == ("existing", old.task(1))
    await repository.set_status(old.task(1), FAILED)
    found = await old.now()
    assert (found.fired, found.failures, found.paused, found.active) == (0, 0, False, [])


# ----------------------------------------------------------------------------------------- failures
async def test_failures_in_a_row_pause_it(
    schedules: Schedules, old: Old, managed: ManagedTasks
) -> None:
    await old.made(overlap="allow", pause_after_failures=2)
    await old.settle(1, 2, 3, 4, 5, 6)
    await end(managed, old.task(1), FAILED)
    await end(managed, old.task(2))
    await end(managed, old.task(3), FAILED)
    await managed.cancel(old.task(4))
    seen = await schedules.changed(0)
    assert (await old.now()).failures == 1
    assert seen.records[0].paused is False
    await end(managed, old.task(5), FAILED)
    found = await old.now()
    assert (found.paused, found.failures) == (True, 2)
    assert found.reason == f"task {old.task(5)} failed, failure 2 in a row"
    assert found.revision > old.revision
    assert (await schedules.changed(seen.version)).records == [found], "replicas see it"
    await end(managed, old.task(6), FAILED)
    later = await old.now()
    assert (later.failures, later.reason, later.revision) == (3, found.reason, found.revision)
    assert (await old.settle(7)).state == "paused"
    resumed = await schedules.resume(NAME)
    assert (resumed.paused, resumed.failures) == (False, 0)


async def test_a_pause_holds_what_waits(
    schedules: Schedules, old: Old, managed: ManagedTasks
) -> None:
    await old.made(overlap="buffer_all")
    await old.settle(1, 2)
    await schedules.pause(NAME)
    await end(managed, old.task(1))
    assert await schedules.release() == []
    assert (await schedules.resume(NAME)).buffered == [START + 2]
    assert told(await schedules.release()) == [(2, "fired")]


# --------------------------------------------------------------------------------- by hand, made up
async def test_a_run_by_hand_asks_nobody(
    schedules: Schedules, old: Old, managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    await old.made()
    await old.settle(1)
    await schedules.pause(NAME)
    fires = [await schedules.run(NAME, {"n": number}) for number in range(3)]
    assert {(fire.kind, fire.outcome, fire.slot) for fire in fires} == {("run", "fired", None)}
    ids = [fire.task_id or "" for fire in fires]
    assert len(set(ids)) == 3
    assert ids == sorted(ids)
    assert ids[0].startswith(task_of("r"))
    found = await repository.get(ids[2])
    assert found
    assert (found.parameters, found.schedule_id) == ({"n": 2}, NAME)
    assert (await old.now()).active == [old.task(1), *ids]
    for task_id in [*ids, old.task(1)]:
        await end(managed, task_id, FAILED)
    assert ((await old.now()).active, (await old.now()).failures) == ([], 4)
    assert [fire.task_id for fire in await schedules.fires(NAME)] == [*reversed(ids), old.task(1)]


async def test_a_run_has_its_own_id_when_the_clock_was_set_back(
    schedules: Schedules, old: Old, keyspace: Keyspace
) -> None:
    await old.made()
    first = await schedules.run(NAME, {})
    ahead = int((first.task_id or "").removeprefix(task_of("r"))) + 3_600_000_000
    keyspace.client.hset(keys.schedule(NAME), "last_run", str(ahead))
    assert (await schedules.run(NAME, {})).task_id == task_of(f"r{ahead + 1}")


async def test_a_run_has_a_key(schedules: Schedules, old: Old) -> None:
    await old.made()
    first = await schedules.run(NAME, {"n": 1}, idempotency_key="키")
    again = await schedules.run(NAME, {"n": 2}, idempotency_key="키")
    assert (again.outcome, again.task_id) == ("existing", first.task_id)
    assert (await schedules.run(NAME, {}, idempotency_key="b")).outcome == "fired"
    assert (await old.now()).fired == 2
    await schedules.delete(NAME)
    await schedules.create(NAME, spec())
    assert (await schedules.run(NAME, {}, idempotency_key="키")).outcome == "fired"


async def test_slots_are_made_up_once(
    schedules: Schedules, old: Old, managed: ManagedTasks
) -> None:
    await old.made()
    await old.settle(3)
    await schedules.pause(NAME)
    past = slots(START + 1, START + 2, START + 3, START + 4)
    fires = await schedules.backfill(NAME, past, overlap=Overlap.BUFFER_ALL)
    assert told(fires) == [(1, "buffered"), (2, "buffered"), (3, "existing"), (4, "buffered")]
    assert {fire.kind for fire in fires} == {"backfill"}
    again = await schedules.backfill(NAME, past, overlap=Overlap.ALLOW)
    assert {fire.outcome for fire in again} == {"existing"}
    for before, number in ((3, 1), (1, 2), (2, 4)):
        await end(managed, old.task(before))
        assert told(await schedules.release()) == [(number, "fired")], "also while paused"
    await schedules.resume(NAME)
    found = await old.now()
    old.revision, old.cursor = found.revision, found.cursor
    assert await schedules.backfill(NAME, [], overlap=Overlap.ALLOW) == []


async def test_a_slot_that_was_made_up_early_is_not_fired_again(
    schedules: Schedules, old: Old
) -> None:
    await old.made(overlap="allow")
    await schedules.backfill(NAME, slots(START + 1), overlap=Overlap.ALLOW)
    assert told((await old.settle(1, 2)).fires) == [(1, "existing"), (2, "fired")]
