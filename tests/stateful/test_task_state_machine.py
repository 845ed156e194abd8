"""Random lives of tasks on a real server, beside a plain model: after each step both agree."""

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

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

from task_state import Paging, TaskRecord, TaskStateError, TaskStatus, keys
from task_state.log_entry import format_log_entry
from task_state.managed import Waiting
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.testing import ServerAddress
from tests.contract.store import Keyspace, index_names
from tests.stateful.model import Store, Task

SERVICES, USERS = ["copy", "sync"], ["alice", "bob"]
EXTERNAL = ["external-1"]
STATUSES = st.sampled_from(list(TaskStatus))
ENDS = st.sampled_from([status for status in TaskStatus if status.is_terminal])
# A worker's epoch, beside the record's: mostly its own, or one that is stale or not yet there.
STEPS = st.sampled_from([0, 0, 0, 0, -1, 1])
HOUR = 3600.0


class Lives(RuleBasedStateMachine):
    """One store, several programs and workers."""

    runner: asyncio.Runner
    provider: RedisRepositoryProvider
    client: "Redis"

    def __init__(self) -> None:
        super().__init__()
        self.model = Store()
        self.copies: list[TaskRecord] = []
        self.epochs: dict[str, int] = {}
        self.revisions: dict[str, int] = {}
        self.lines = itertools.count()

    # ------------------------------------------------------------------------------------- helpers
    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """The answer of a call, or the type of its error."""
        try:
            return self.runner.run(call)
        except TaskStateError as error:
            return type(error)

    @initialize()
    def start(self) -> None:
        self.client.flushall()
        self.space = Keyspace(self.client)
        self.repository = self.runner.run(self.provider.get_repository())
        self.managed = self.runner.run(self.provider.get_managed())

    def line(self) -> str:
        return f"line {next(self.lines)}"

    def pick(self, data: st.DataObject) -> str:
        known = [name for name in self.model.tasks if name not in EXTERNAL] * 4
        return data.draw(st.sampled_from([*known, *self.model.tasks, "gone"]), label="task")

    def pick_attempt(self, data: st.DataObject) -> tuple[str, int]:
        task_id = self.pick(data)
        task = self.model.tasks.get(task_id)
        return task_id, max((task.epoch if task else 0) + data.draw(STEPS, label="epoch"), 1)

    # ----------------------------------------------------------------------- programs and the users
    # Few tasks at a time: each then lives through more.
    @precondition(lambda self: len(self.model.tasks) < 4)
    @rule(service=st.sampled_from(SERVICES), user=st.sampled_from(USERS))
    def submit(self, service: str, user: str) -> None:
        answer = self.run(self.managed.submit(service=service, user_id=user, parameters={"a": 1}))
        assert answer.created
        self.model.create(Task(answer.task_id, service, user, managed=True))

    @rule(
        task_id=st.sampled_from(EXTERNAL),
        service=st.sampled_from(SERVICES),
        status=STATUSES,
    )
    def save_new(self, task_id: str, service: str, status: TaskStatus) -> None:
        record = TaskRecord(task_id=task_id, service=service, user_id="alice", status=status)
        task = Task(task_id, service, "alice", managed=False, status=status)
        assert self.run(self.repository.save(record)) is self.model.save_new(task)

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def replace_an_ended_one(self, data: st.DataObject) -> None:
        old = self.model.tasks[data.draw(st.sampled_from([*self.model.tasks]))]
        record = TaskRecord(task_id=old.task_id, service="copy", user_id="bob")
        task = Task(old.task_id, "copy", "bob", managed=False)
        assert self.run(self.repository.save(record)) is self.model.save_new(task)

    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        record = self.run(self.repository.get(self.pick(data)))
        if record is not None:
            self.copies.append(record)

    @precondition(lambda self: self.copies)
    @rule(data=st.data(), status=STATUSES, keep=st.booleans())
    def save_a_copy(self, data: st.DataObject, status: TaskStatus, keep: bool) -> None:
        copy = self.copies.pop(data.draw(st.integers(0, len(self.copies) - 1)))
        line = self.line()
        copy.logs.append(format_log_entry(line))
        copy.status = copy.status if keep else status
        expected = self.model.save_loaded(copy.task_id, copy.revision, copy.status, line)
        if (task := self.model.tasks.get(copy.task_id)) and expected is None:
            task.error = copy.result.error
        assert self.run(self.repository.save(copy)) is expected

    @rule(data=st.data(), status=STATUSES)
    def set_status(self, data: st.DataObject, status: TaskStatus) -> None:
        task_id, line = self.pick(data), self.line()
        answer = self.run(self.repository.set_status(task_id, status, log_entry=line))
        assert answer is self.model.set_status(task_id, status, line)

    @rule(data=st.data())
    def append_log(self, data: st.DataObject) -> None:
        task_id, line = self.pick(data), self.line()
        answer = self.run(self.repository.append_log(task_id, line))
        assert answer is self.model.append_log(task_id, line)

    @rule(data=st.data(), error=st.sampled_from(["e", "오류"]))
    def update_result(self, data: st.DataObject, error: str) -> None:
        task_id = self.pick(data)
        answer = self.run(self.repository.update_result(task_id, error=error))
        assert answer is self.model.update_error(task_id, error)

    @rule(data=st.data(), delete=st.booleans())
    def cancel(self, data: st.DataObject, delete: bool) -> None:
        task_id, line = self.pick(data), self.line()
        answer = self.run(self.managed.cancel(task_id, delete=delete, log_entry=line))
        assert answer is self.model.cancel(task_id, line, delete=delete)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        task_id = self.pick(data)
        assert self.run(self.repository.delete(task_id)) is self.model.delete(task_id)

    # ------------------------------------------------------------------------ scheduler and workers
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        task_id = self.pick(data)
        expected, answer = self.model.accept(task_id), self.run(self.managed.accept(task_id))
        assert answer == (Waiting(task_id, expected) if isinstance(expected, int) else expected)

    @rule(data=st.data(), step=st.sampled_from([1, 1, 1, 0, 2]), worker=st.sampled_from(["v", "w"]))
    def begin(self, data: st.DataObject, step: int, worker: str) -> None:
        task_id, line = self.pick(data), self.line()
        epoch = (self.model.tasks[task_id].epoch if task_id in self.model.tasks else 0) + step
        answer = self.run(
            self.managed.begin(task_id, epoch, worker=worker, lease_seconds=HOUR, log_entry=line)
        )
        assert (answer is not None) is self.model.begin(task_id, epoch, worker, line)

    @rule(data=st.data(), advanced=st.booleans())
    def heartbeat(self, data: st.DataObject, advanced: bool) -> None:
        task_id, epoch = self.pick_attempt(data)
        answer = self.run(
            self.managed.heartbeat(task_id, epoch, lease_seconds=HOUR, advanced=advanced)
        )
        assert answer is self.model.heartbeat(task_id, epoch, advanced=advanced)

    @rule(data=st.data())
    def append_logs(self, data: st.DataObject) -> None:
        (task_id, epoch), line = self.pick_attempt(data), self.line()
        answer = self.run(self.managed.append_logs(task_id, epoch, [format_log_entry(line)]))
        assert answer is self.model.append_logs(task_id, epoch, line)

    @rule(data=st.data(), status=ENDS)
    def finish(self, data: st.DataObject, status: TaskStatus) -> None:
        (task_id, epoch), line = self.pick_attempt(data), self.line()
        answer = self.run(self.managed.finish(task_id, epoch, status, log_entry=line))
        assert answer is self.model.finish(task_id, epoch, status, line)

    @rule(data=st.data(), counted=st.booleans())
    def give_back(self, data: st.DataObject, counted: bool) -> None:
        (task_id, epoch), line = self.pick_attempt(data), self.line()
        give_back = self.managed.retry if counted else self.managed.release
        answer = self.run(give_back(task_id, epoch, log_entry=line))
        assert answer is self.model.give_back(task_id, epoch, line, counted=counted)

    @precondition(lambda self: any(task.held for task in self.model.tasks.values()))
    @rule(data=st.data())
    def let_a_lease_end(self, data: st.DataObject) -> None:
        held = [task for task in self.model.tasks.values() if task.held]
        task = data.draw(st.sampled_from(held))
        self.space.expire_lease(task.task_id)
        task.lease = "expired"

    @rule()
    def rescue(self) -> None:
        self.space.let_rescue()
        answer = {
            item.task_id: (item.status, item.epoch) for item in self.run(self.managed.rescue())
        }
        assert answer == self.model.rescue()

    @precondition(lambda self: any(t.status.is_terminal for t in self.model.tasks.values()))
    @rule(data=st.data())
    def let_one_expire(self, data: st.DataObject) -> None:
        ended = [task for task in self.model.tasks.values() if task.status.is_terminal]
        task = data.draw(st.sampled_from(ended))
        member = f"{task.task_id}:{task.service}:{task.user_id}"
        assert self.client.zscore(keys.EXPIRY, member) is not None
        self.client.zadd(keys.EXPIRY, {member: 1})
        self.space.let_sweep()
        assert self.run(self.managed.sweep()) == 1
        self.model.delete(task.task_id)

    # ----------------------------------------------------------------------------------- invariants
    @invariant()
    def records_agree(self) -> None:
        for task in self.model.tasks.values():
            found = self.run(self.repository.get(task.task_id))
            assert found is not None
            seen = (found.status, found.revision, found.epoch, found.attempts, found.managed)
            assert seen == (task.status, task.revision, task.epoch, task.attempts, task.managed)
            lines = [line.partition(",")[2] for line in found.logs]
            assert ["lost" if line.startswith("Worker") else line for line in lines] == task.logs
            assert task.error in {found.result.error, "poison"}
            assert (found.completed_at is not None) is task.status.is_terminal
            assert self.space.indexes_of(task.task_id) == index_names(
                task.status, task.service, task.user_id
            )

    @invariant()
    def nothing_goes_back(self) -> None:
        for task in self.model.tasks.values():
            assert task.epoch >= self.epochs.get(task.task_id, 0)
            assert task.revision >= self.revisions.get(task.task_id, 0)
            self.epochs[task.task_id] = task.epoch
            self.revisions[task.task_id] = task.revision
        for task_id in set(self.epochs) - set(self.model.tasks):
            del self.epochs[task_id], self.revisions[task_id]

    @invariant()
    def listings_agree(self) -> None:
        if not hasattr(self, "repository"):
            return
        tasks = list(self.model.tasks.values())
        assert self._listed(self.repository.list_all(Paging(limit=200))) == _ids(tasks)
        for service in SERVICES:
            own = [task for task in tasks if task.service == service]
            page = self.repository.list_by_service(service, Paging(limit=200, sort="updated_at"))
            assert self._listed(page) == _ids(own)
            users = self.run(self.repository.list_users_by_service(service))
            assert users == sorted({task.user_id for task in own})
            for user in USERS:
                page = self.repository.list_by_service_and_user(service, user, Paging(limit=200))
                assert self._listed(page) == _ids([task for task in own if task.user_id == user])

    def _listed(self, call: Coroutine[Any, Any, Any]) -> list[str]:
        page = self.run(call)
        assert page.total == len(page)
        assert page.next_cursor is None
        return sorted(task.task_id for task in page)

    @invariant()
    def events_and_leases_agree(self) -> None:
        if not hasattr(self, "space"):
            return
        tasks = self.model.tasks.values()
        assert [(kind, name) for kind, name, _ in self.space.outbox()] == self.model.outbox
        assert int(self.client.hget(keys.COUNTERS, "fenced") or 0) == self.model.fenced
        leased = sorted(task.task_id for task in tasks if task.lease)
        assert sorted(self.space.ids("leases")) == leased
        expiring = [task for task in tasks if not task.managed or task.status.is_terminal]
        assert sorted(self.space.ids("expiry")) == sorted(
            f"{task.task_id}:{task.service}:{task.user_id}" for task in expiring
        )

    def teardown(self) -> None:
        for task_id in list(self.model.tasks):
            assert self.run(self.repository.delete(task_id))
        if hasattr(self, "space"):
            assert self.space.leaks() == set()


def _ids(tasks: list[Task]) -> list[str]:
    return sorted(task.task_id for task in tasks)


def test_random_lives(dms_redis_server: ServerAddress) -> None:
    """About a thousand steps, a few hundred of them new each time."""
    redis_settings = RedisRepositorySettings(write_url=dms_redis_server.url, timeout_seconds=60)
    with asyncio.Runner() as runner, Redis.from_url(dms_redis_server.url) as client:
        provider = RedisRepositoryProvider(redis_settings)
        Lives.runner, Lives.provider, Lives.client = runner, provider, client
        try:
            run_state_machine_as_test(
                Lives, settings=settings(max_examples=30, stateful_step_count=40)
            )
        finally:
            runner.run(provider.close())
