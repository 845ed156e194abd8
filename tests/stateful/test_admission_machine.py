"""Random waiting lines on a real server, beside a plain model: the same task gets each slot."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

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

from task_state import ServiceDrainingError, TaskStatus, keys
from task_state.admission import Admission, Attendance, Policy, ServiceMode
from task_state.managed import ManagedTasks, Waiting
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from task_state.testing import ServerAddress
from tests.contract.store import Keyspace
from tests.stateful.admission_model import Admissions, Place, Task

SERVICES, USERS, WORKERS = ["copy", "rm", "sync"], ["a", "b", "c"], ["v", "w"]
HOUR = 3600.0
LIMITS = st.sampled_from([None, None, 1, 2])
POLICIES = st.builds(
    Policy, priority=st.sampled_from([0, 0, 0, 5]), concurrency_limit=LIMITS, per_user_limit=LIMITS
)
MODES = ["pause", "drain", "resume", "resume", "resume"]
NAMES = {
    "pause": ServiceMode.PAUSED,
    "drain": ServiceMode.DRAINING,
    "resume": ServiceMode.ACTIVE,
}


class Lines(RuleBasedStateMachine):
    """Three services, three users, two workers."""

    runner: asyncio.Runner
    provider: RedisRepositoryProvider
    client: "Redis"

    def __init__(self) -> None:
        super().__init__()
        self.model = Admissions({})
        self.submitted = 0

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    @initialize(policies=st.fixed_dictionaries(dict.fromkeys(SERVICES, POLICIES)))
    def start(self, policies: dict[str, Policy]) -> None:
        self.client.flushall()
        self.run(self.provider.close())  # its memory of the store before would be a restore
        self.space = Keyspace(self.client)
        self.managed: ManagedTasks = self.run(self.provider.get_managed())
        self.admission: Admission = self.run(self.provider.get_admission())
        self.repository: RedisTaskRepository = self.run(self.provider.get_repository())
        self.model = Admissions(policies)

    def pick(self, data: st.DataObject, *places: Place) -> Task:
        found = [task for place in places for task in self.model.at(place)]
        return data.draw(st.sampled_from(found), label="task")

    # ---------------------------------------------------------------------------------------- rules
    @precondition(lambda self: len(self.model.tasks) < 14)
    @rule(
        service=st.sampled_from([*SERVICES, "sync"]),
        user=st.sampled_from([*USERS, "a"]),
        count=st.integers(1, 3),
        accept=st.booleans(),
    )
    def submit(self, service: str, user: str, count: int, accept: bool) -> None:
        drains = ServiceMode.DRAINING in {self.model.modes.get(name) for name in (service, "*")}
        for _ in range(count):
            try:
                made = self.run(
                    self.managed.submit(service=service, user_id=user, parameters={"a": 1})
                )
            except ServiceDrainingError:
                assert drains
                return
            assert not drains
            self.submitted += 1
            task = Task(made.task_id, self.submitted, service, user, "arriving")
            self.model.tasks[made.task_id] = task
            if accept:
                self.accept_task(task)

    def accept_task(self, task: Task) -> None:
        assert self.run(self.managed.accept(task.task_id)) == Waiting(task.task_id, task.epoch + 1)
        if task.place == "arriving":
            self.model.put(task, "lane")

    @precondition(lambda self: self.model.at("arriving"))
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        self.accept_task(self.pick(data, "arriving"))

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def accept_again(self, data: st.DataObject) -> None:
        """The event came twice: whatever waits stays where it is."""
        task = self.pick(data, "arriving", "lane", "delayed", "queued", "running")
        if task.place == "running":
            assert isinstance(self.run(self.managed.accept(task.task_id)), TaskStatus)
        else:
            self.accept_task(task)

    @rule(worker=st.sampled_from(WORKERS), slots=st.integers(0, 4))
    def admit(self, worker: str, slots: int) -> None:
        if slots:
            self.model.slots[worker] = slots
        else:
            self.model.slots.pop(worker, None)
        call = self.admission.admit(self.model.policies, attendance=Attendance(worker, slots, HOUR))
        expected = [Waiting(task.task_id, task.epoch + 1) for task in self.model.admit()]
        assert self.run(call).calls == expected

    @precondition(lambda self: self.model.at("queued"))
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def begin(self, data: st.DataObject, worker: str) -> None:
        task = self.pick(data, "queued")
        task.epoch, task.worker = task.epoch + 1, worker
        assert self.run(
            self.managed.begin(
                task.task_id, task.epoch, worker=worker, lease_seconds=HOUR, admitted=True
            )
        )
        self.model.put(task, "running")

    @precondition(lambda self: self.model.at("lane") + self.model.at("delayed"))
    @rule(data=st.data())
    def begin_what_was_not_admitted(self, data: st.DataObject) -> None:
        task = self.pick(data, "lane", "delayed")
        call = self.managed.begin(task.task_id, task.epoch + 1, worker="w", admitted=True)
        assert self.run(call) is None

    @precondition(lambda self: self.model.at("running"))
    @rule(data=st.data(), how=st.sampled_from(["finish", "retry", "put off", "release"]))
    def end_an_attempt(self, data: st.DataObject, how: str) -> None:
        task = self.pick(data, "running")
        name, epoch = task.task_id, task.epoch
        if how == "finish":
            self.run(self.managed.finish(name, epoch, TaskStatus.COMPLETED))
            del self.model.tasks[name]
        elif how == "release":
            self.run(self.managed.release(name, epoch))
            self.model.put(task, "lane")
        else:
            later = how == "put off"
            self.run(self.managed.retry(name, epoch, delay_seconds=HOUR if later else 0))
            self.model.put(task, "delayed" if later else "lane")

    @precondition(lambda self: self.model.at("delayed"))
    @rule(data=st.data())
    def let_one_be_due(self, data: st.DataObject) -> None:
        task = self.pick(data, "delayed")
        self.client.zadd(keys.DELAYED, {task.task_id: 1})
        self.model.put(task, "lane")
        expected = [Waiting(each.task_id, each.epoch + 1) for each in self.model.admit()]
        assert self.run(self.admission.admit(self.model.policies)).calls == expected

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), delete=st.booleans())
    def cancel_or_delete(self, data: st.DataObject, delete: bool) -> None:
        task = self.pick(data, "arriving", "lane", "delayed", "queued", "running")
        if delete:
            assert self.run(self.repository.delete(task.task_id))
        else:
            self.run(self.managed.cancel(task.task_id))
            if task.place == "running":
                self.run(self.managed.release(task.task_id, task.epoch))
        del self.model.tasks[task.task_id]

    @rule(worker=st.sampled_from(WORKERS))
    def lose_a_worker(self, worker: str) -> None:
        """It is forgotten at once, and its tasks are rescued much later."""
        self.client.hdel(keys.WORKERS, worker)
        self.model.slots.pop(worker, None)
        lost = [task for task in self.model.at("running") if task.worker == worker]
        for task in lost:
            self.space.expire_lease(task.task_id)
        self.space.let_rescue()
        for rescued in self.run(self.managed.rescue()):
            task = self.model.tasks[rescued.task_id]
            lost.remove(task)
            if rescued.status is TaskStatus.PENDING:
                self.model.put(task, "lane")
            else:
                del self.model.tasks[rescued.task_id]  # poison
        assert not lost

    @rule(service=st.sampled_from([*SERVICES, "*"]), change=st.sampled_from(MODES))
    def change_a_mode(self, service: str, change: str) -> None:
        self.run(getattr(self.admission, change)(service))
        self.model.set_mode(service, NAMES[change])

    # ----------------------------------------------------------------------------------- invariants
    @invariant()
    def every_waiting_task_is_in_its_one_place(self) -> None:
        if not hasattr(self, "space"):
            return
        model, space = self.model, self.space
        assert sorted(space.ids("queued")) == _ids(model.at("queued"))
        assert sorted(space.ids("delayed")) == _ids(model.at("delayed"))
        for service in SERVICES:
            assert space.ids(f"ring:{service}") == model.ring(service)
            for user in USERS:
                own = [task for task in model.at("lane", service) if task.user == user]
                assert space.ids(f"lane:{service}:{user}") == [task.task_id for task in own]
            arriving = {task.task_id.encode() for task in model.at("arriving", service)}
            assert self.client.smembers(keys.arriving(service)) == arriving
            busy = {task.task_id: task.user for task in model.busy(service)}
            assert self.hash(keys.busy(service)) == busy
        for key, place in ((keys.WAITING, "lane"), (keys.DELAYS, "delayed")):
            counts = {name: len(model.at(cast("Place", place), name)) for name in SERVICES}
            expected = {name: str(count) for name, count in counts.items() if count}
            assert self.hash(key) == expected
        assert self.hash(keys.HELD) == {k: str(v) for k, v in model.held().items()}

    @invariant()
    def states_and_positions_agree(self) -> None:
        if not hasattr(self, "space"):
            return
        for told in self.run(self.admission.states()):
            if told.service != "*":
                load = (told.waiting, told.delayed, told.running)
                assert load == self.load(told.service)
        for service in SERVICES:
            for place, task_id in enumerate(self.model.order(service), start=1):
                record = self.run(self.repository.get(task_id))
                assert self.run(self.admission.position(record)) == place

    def load(self, service: str) -> tuple[int, int, int]:
        """Waiting, delayed and running tasks of a service."""
        arriving = self.model.at("arriving", service)
        lane, delayed = self.model.at("lane", service), self.model.at("delayed", service)
        queued, running = self.model.at("queued", service), self.model.at("running", service)
        return len(arriving) + len(lane) + len(queued), len(delayed), len(running)

    def hash(self, key: str) -> dict[str, str]:
        """A HASH as text."""
        found = cast("dict[bytes, bytes]", self.client.hgetall(key))
        return {name.decode(): value.decode() for name, value in found.items()}

    def teardown(self) -> None:
        for task_id in list(self.model.tasks):
            self.run(self.repository.delete(task_id))
        if hasattr(self, "space"):
            left = self.space.names()
            assert not {name for name in left if ":lane:" in name or ":ring:" in name}
            assert not {name for name in left if ":busy:" in name}
            assert self.client.exists(keys.WAITING, keys.DELAYS, keys.HELD, keys.QUEUED) == 0


def _ids(tasks: list[Task]) -> list[str]:
    return sorted(task.task_id for task in tasks)


# Finding the shortest history that shows a defect takes longer than an ordinary test may.
@pytest.mark.timeout(900)
def test_random_lines(dms_redis_server: ServerAddress) -> None:
    """About a thousand steps, different ones each time."""
    redis_settings = RedisRepositorySettings(write_url=dms_redis_server.url, timeout_seconds=60)
    with asyncio.Runner() as runner, Redis.from_url(dms_redis_server.url) as client:
        provider = RedisRepositoryProvider(redis_settings)
        Lines.runner, Lines.provider, Lines.client = runner, provider, client
        try:
            run_state_machine_as_test(
                Lines, settings=settings(max_examples=40, stateful_step_count=30)
            )
        finally:
            runner.run(provider.close())
