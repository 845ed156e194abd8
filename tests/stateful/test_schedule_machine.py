"""Random schedules on a real server, beside a plain model: the same slots become tasks."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from app.core.events import DISPATCH_GROUP
from task_state import ServiceDrainingError, TaskStatus, keys
from task_state.admission import Admission
from task_state.audit import Finding
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from task_state.schedules import Fire, Overlap, ScheduleRecord, Schedules, ScheduleSpec, SlotTask
from task_state.testing import ServerAddress
from tests.contract.store import Keyspace
from tests.stateful.schedule_model import Model, Schedule, Task, Told

NAMES, SERVICES = ["a", "a.1"], ["rm", "sync"]
START = 1_700_000_000
PENDING, RUNNING = TaskStatus.PENDING, TaskStatus.RUNNING
OVERLAPS = st.sampled_from(list(Overlap))
LIMITS = st.sampled_from([None, None, 1, 2])


class Schedulings(RuleBasedStateMachine):
    """Two schedules, one the start of the other's name, whose tasks run and end."""

    runner: asyncio.Runner
    provider: RedisRepositoryProvider
    client: "Redis"

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.clock = START
        self.version = 0
        self.seen: dict[str, ScheduleRecord] = {}

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    @initialize()
    def start(self) -> None:
        self.client.flushall()
        self.space = Keyspace(self.client)
        self.schedules: Schedules = self.run(self.provider.get_schedules())
        self.managed: ManagedTasks = self.run(self.provider.get_managed())
        self.admission: Admission = self.run(self.provider.get_admission())
        self.repository: RedisTaskRepository = self.run(self.provider.get_repository())

    def pick(self, data: st.DataObject, paused: bool = True) -> Schedule:
        found = [each for each in self.model.schedules.values() if paused or not each.paused]
        return data.draw(st.sampled_from(found), label="schedule")

    def pick_task(self, data: st.DataObject, *statuses: TaskStatus) -> Task:
        found = [task for task in self.model.tasks.values() if task.status in statuses]
        return data.draw(st.sampled_from(found), label="task")

    def active(self, *statuses: TaskStatus) -> bool:
        return any(task.status in statuses for task in self.model.tasks.values())

    def begin_anew(self, schedule: Schedule) -> None:
        """Its cursor is Redis' time now; it is set back, so that there is something to settle."""
        stored = self.stored(schedule)
        assert stored.cursor > self.clock
        schedule.cursor = self.clock
        self.client.hset(keys.schedule(schedule.name), "cursor", str(self.clock))

    def stored(self, schedule: Schedule) -> ScheduleRecord:
        return self.run(self.schedules.get(schedule.name))

    # ---------------------------------------------------------------------------------------- rules
    @rule(
        name=st.sampled_from(NAMES),
        overlap=OVERLAPS,
        service=st.sampled_from(SERVICES),
        limit=LIMITS,
    )
    def create_or_replace(
        self, name: str, overlap: Overlap, service: str, limit: int | None
    ) -> None:
        known = self.model.schedules.get(name)
        given = ScheduleSpec(
            cron="* * * * * *",
            service=service,
            user_id="u",
            timezone="UTC",
            overlap=overlap,
            pause_after_failures=limit,
        )
        if known is None:
            self.run(self.schedules.create(name, given))
            known = Schedule(name, overlap, service, limit, paused=False, cursor=0)
            self.model.schedules[name] = known
        else:
            now = self.stored(known)
            self.run(
                self.schedules.replace(
                    name, given, revision=now.revision, cursor=now.cursor, before=None
                )
            )
            known.overlap, known.service, known.pause_after = overlap, service, limit
        self.begin_anew(known)

    @precondition(lambda self: any(not each.paused for each in self.model.schedules.values()))
    @rule(data=st.data(), count=st.integers(0, 4), missed=st.integers(0, 2))
    def settle(self, data: st.DataObject, count: int, missed: int) -> None:
        schedule = self.pick(data, paused=False)
        first = self.clock + missed + 1
        slots = list(range(first, first + count))
        to = self.clock + missed + count
        call = self.schedules.settle(
            schedule.name,
            revision=self.stored(schedule).revision,
            cursor=schedule.cursor,
            new_cursor=to,
            tasks=[SlotTask(slot, {"n": slot}) for slot in slots],
            missed=missed,
        )
        settled = self.run(call)
        if slots and schedule.service in self.model.draining:
            assert (settled.state, settled.fires) == ("draining", [])
            return
        assert (settled.state, settled.cursor) == ("done", to)
        assert told(settled.fires) == self.model.settle(schedule, slots, missed, to)
        self.clock = to

    @precondition(lambda self: self.model.schedules)
    @rule(data=st.data(), behind=st.integers(1, 3))
    def settle_what_was_settled(self, data: st.DataObject, behind: int) -> None:
        schedule = self.pick(data)
        call = self.schedules.settle(
            schedule.name,
            revision=self.stored(schedule).revision,
            cursor=schedule.cursor - behind,
            new_cursor=schedule.cursor,
            tasks=[SlotTask(schedule.cursor, {})],
        )
        assert self.run(call).state == ("paused" if schedule.paused else "moved")

    @precondition(lambda self: self.model.schedules)
    @rule(data=st.data(), overlap=OVERLAPS, back=st.integers(0, 6), count=st.integers(1, 4))
    def backfill(self, data: st.DataObject, overlap: Overlap, back: int, count: int) -> None:
        schedule = self.pick(data)
        slots = list(range(self.clock - back, self.clock - back + count))
        tasks = [SlotTask(slot, {}) for slot in slots]
        call = self.schedules.backfill(schedule.name, tasks, overlap=overlap)
        if schedule.service in self.model.draining:
            with pytest.raises(ServiceDrainingError):
                self.run(call)
        else:
            assert told(self.run(call)) == self.model.backfill(schedule, slots, overlap)

    @precondition(lambda self: self.model.schedules)
    @rule(data=st.data())
    def run_by_hand(self, data: st.DataObject) -> None:
        schedule = self.pick(data)
        call = self.schedules.run(schedule.name, {})
        if schedule.service in self.model.draining:
            with pytest.raises(ServiceDrainingError):
                self.run(call)
        else:
            fire: Fire = self.run(call)
            assert fire.task_id
            self.model.run(schedule, fire.task_id)

    @rule()
    def release(self) -> None:
        for name in self.space.ids("schedule-waiting"):  # a while later
            self.client.zadd(keys.SCHEDULE_WAITING, {name: 1})
        released = told(self.run(self.schedules.release()))
        assert sorted(released, key=str) == sorted(self.model.release(), key=str)

    @precondition(lambda self: self.model.schedules)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        schedule = self.pick(data)
        self.run(self.schedules.pause(schedule.name, "why"))
        schedule.paused = True

    @precondition(lambda self: self.model.schedules)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        schedule = self.pick(data)
        self.run(self.schedules.resume(schedule.name))
        if schedule.paused:
            schedule.paused, schedule.failures = False, 0
            self.begin_anew(schedule)

    @precondition(lambda self: len(self.model.schedules) == len(NAMES))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        schedule = self.pick(data)
        assert self.run(self.schedules.delete(schedule.name))
        del self.model.schedules[schedule.name]

    @rule(service=st.sampled_from(SERVICES))
    def drain_or_resume(self, service: str) -> None:
        if service in self.model.draining:
            self.run(self.admission.resume(service))
        else:
            self.run(self.admission.drain(service))
        self.model.draining ^= {service}

    @precondition(lambda self: self.active(PENDING))
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        task = self.pick_task(data, PENDING)
        assert self.run(self.managed.begin(task.task_id, 1, worker="w"))
        task.status = RUNNING

    @precondition(lambda self: self.active(RUNNING))
    @rule(
        data=st.data(),
        status=st.sampled_from([TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.FAILED]),
    )
    def finish(self, data: st.DataObject, status: TaskStatus) -> None:
        task = self.pick_task(data, RUNNING, TaskStatus.CANCEL_REQUESTED)
        self.run(self.managed.finish(task.task_id, 1, status))
        self.model.end(task, status)

    @precondition(lambda self: self.active(PENDING, RUNNING))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = self.pick_task(data, PENDING, RUNNING)
        status = self.run(self.managed.cancel(task.task_id))
        if task.status is PENDING:
            self.model.end(task, TaskStatus.CANCELLED)
        else:
            task.status = TaskStatus.CANCEL_REQUESTED
        assert status is task.status

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def remove_a_task(self, data: st.DataObject) -> None:
        task = self.pick_task(data, *TaskStatus)
        assert self.run(self.repository.delete(task.task_id))
        self.model.forget(task)

    # ----------------------------------------------------------------------------------- invariants
    @invariant()
    def schedules_are_as_the_model_says(self) -> None:
        for schedule in self.model.schedules.values():
            now = self.stored(schedule)
            assert now.cursor == schedule.cursor
            assert now.paused is schedule.paused
            assert Counter(fired=now.fired, missed=now.missed, skipped=now.skipped) == Counter(
                fired=schedule.totals["fired"],
                missed=schedule.totals["missed"],
                skipped=schedule.totals["skipped"],
            )
            assert now.failures == schedule.failures
            assert now.active == [task.task_id for task in schedule.first()][:20]
            assert now.active_count == len(schedule.active)
            assert now.buffered == sorted(schedule.waiting)

    @invariant()
    def histories_tell_of_every_slot(self) -> None:
        for schedule in self.model.schedules.values():
            fires: list[Fire] = self.run(self.schedules.fires(schedule.name, limit=1000))
            assert [fire.number for fire in fires] == list(range(len(fires), 0, -1))
            counted = Counter[Any]()
            for fire in fires:
                counted[fire.kind, fire.outcome] += fire.count
            assert counted == schedule.history

    @invariant()
    def tasks_are_as_the_model_says(self) -> None:
        if not hasattr(self, "space"):
            return
        ids = self.space.ids("ids")
        assert ids == sorted(self.model.tasks)
        for task_id in ids:
            record = self.run(self.repository.get(task_id))
            assert record.status is self.model.tasks[task_id].status

    @invariant()
    def a_replica_that_follows_knows_all(self) -> None:
        if not hasattr(self, "space"):
            return
        changed = self.run(self.schedules.changed(self.version))
        assert not changed.more
        self.version = changed.version
        self.seen.update((record.schedule_id, record) for record in changed.records)
        for name in changed.deleted:
            self.seen.pop(name, None)
        assert set(self.seen) == set(self.model.schedules)
        for name, schedule in self.model.schedules.items():
            stored = self.stored(schedule)
            known = self.seen[name]
            assert (known.revision, known.paused) == (stored.revision, stored.paused)
            assert known.spec == stored.spec

    def teardown(self) -> None:
        if hasattr(self, "space"):
            assert self.run(findings(self.provider)) == []


async def findings(provider: RedisRepositoryProvider) -> Sequence[Finding]:
    """What the doctor would tell of."""
    audit = await provider.get_audit(DISPATCH_GROUP)
    return [finding async for finding in audit.walk()]


def told(fires: Sequence[Fire]) -> list[Told]:
    """Fires as the model tells them; missed slots were given as a number."""
    return [(fire.slot, fire.kind, fire.outcome, fire.count) for fire in fires]


# Finding the shortest history that shows a defect takes longer than an ordinary test may.
@pytest.mark.timeout(900)
def test_random_schedules(dms_redis_server: ServerAddress) -> None:
    """About a thousand steps, different ones each time."""
    redis_settings = RedisRepositorySettings(write_url=dms_redis_server.url, timeout_seconds=60)
    with asyncio.Runner() as runner, Redis.from_url(dms_redis_server.url) as client:
        provider = RedisRepositoryProvider(redis_settings)
        Schedulings.runner, Schedulings.provider = runner, provider
        Schedulings.client = client
        try:
            run_state_machine_as_test(
                Schedulings, settings=settings(max_examples=40, stateful_step_count=30)
            )
        finally:
            runner.run(provider.close())
