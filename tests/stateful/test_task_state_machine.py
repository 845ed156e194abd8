"""Random lives of tasks on a real server, beside a plain model: after each step both agree."""

import asyncio
import itertools
from collections.abc import Coroutine
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

from task_state import AttemptOutcome, Paging, TaskRecord, TaskStateError, TaskStatus, keys
from task_state.log_entry import format_log_entry
from task_state.managed import Checkpoint, Failing, Kept, Waiting
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
WORKERS = st.sampled_from(["v", "w"])
ATTEMPTS = ["heartbeat", "append_logs", "finish", "give_back"]
ANY_TIME = [
    *("accept", "append_log", "update_result", "load", "save_a_copy", "set_status"),
    *("cancel", "replace"),
]
OUTCOMES: dict[TaskStatus, AttemptOutcome] = {
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "cancelled",
}
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

    def epoch(self, task_id: str) -> int:
        task = self.model.tasks.get(task_id)
        return task.epoch if task else 0

    def some_epoch(self, data: st.DataObject, task_id: str) -> int:
        return max(self.epoch(task_id) + data.draw(STEPS), 1)

    # ---------------------------------------------------------------------------------------- rules
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

    @rule(data=st.data(), steps=st.integers(1, 4))
    def let_something_happen(self, data: st.DataObject, steps: int) -> None:
        for _ in range(steps):
            task_id = self.pick(data)
            action = data.draw(st.sampled_from(self.actions(task_id)), label=task_id)
            getattr(self, action)(data, task_id)

    def actions(self, task_id: str) -> list[str]:
        """What may happen to a task: anything, but mostly what moves it on."""
        task = self.model.tasks.get(task_id)
        if task is None:
            return [*ANY_TIME, *ATTEMPTS]
        if task.held:
            return [
                *ANY_TIME,
                *ATTEMPTS * 3,
                *["let_the_lease_end"] * 8,
                *["set_status"] * 3,
                "begin",
            ]
        if task.lease:
            return [*ANY_TIME, *ATTEMPTS * 2, *["rescue"] * 10, *["cancel"] * 3, "begin"]
        if task.status.is_terminal:
            return [*ANY_TIME, *ATTEMPTS, "let_it_expire", "delete"]
        return [*ANY_TIME, *ATTEMPTS, *["begin"] * 20]

    # ------------------------------------------------------------- what other programs and users do
    def replace(self, data: st.DataObject, task_id: str) -> None:
        record = TaskRecord(task_id=task_id, service="copy", user_id="bob")
        task = Task(task_id, "copy", "bob", managed=False)
        assert self.run(self.repository.save(record)) is self.model.save_new(task)

    def load(self, data: st.DataObject, task_id: str) -> None:
        record = self.run(self.repository.get(task_id))
        if record is not None:
            self.copies.append(record)

    def save_a_copy(self, data: st.DataObject, task_id: str) -> None:
        if not self.copies:
            return self.load(data, task_id)
        copy = self.copies.pop(data.draw(st.integers(0, len(self.copies) - 1)))
        line = self.line()
        copy.logs.append(format_log_entry(line))
        copy.status = data.draw(st.sampled_from([copy.status, *TaskStatus]))
        expected = self.model.save_loaded(copy, line)
        if (task := self.model.tasks.get(copy.task_id)) and expected is None:
            task.error = copy.result.error
        assert self.run(self.repository.save(copy)) is expected
        return None

    def set_status(self, data: st.DataObject, task_id: str) -> None:
        status, line = data.draw(STATUSES), self.line()
        answer = self.run(self.repository.set_status(task_id, status, log_entry=line))
        assert answer is self.model.set_status(task_id, status, line)

    def append_log(self, data: st.DataObject, task_id: str) -> None:
        line = self.line()
        answer = self.run(self.repository.append_log(task_id, line))
        assert answer is self.model.append_log(task_id, line)

    def update_result(self, data: st.DataObject, task_id: str) -> None:
        error = data.draw(st.sampled_from(["e", "오류"]))
        answer = self.run(self.repository.update_result(task_id, error=error))
        assert answer is self.model.update_error(task_id, error)

    def cancel(self, data: st.DataObject, task_id: str) -> None:
        delete, line = data.draw(st.booleans()), self.line()
        answer = self.run(self.managed.cancel(task_id, delete=delete, log_entry=line))
        assert answer is self.model.cancel(task_id, line, delete=delete)

    def delete(self, data: st.DataObject, task_id: str) -> None:
        assert self.run(self.repository.delete(task_id)) is self.model.delete(task_id)

    # ------------------------------------------------------------------------ scheduler and workers
    def accept(self, data: st.DataObject, task_id: str) -> None:
        expected, answer = self.model.accept(task_id), self.run(self.managed.accept(task_id))
        assert answer == (Waiting(task_id, expected) if isinstance(expected, int) else expected)

    def begin(self, data: st.DataObject, task_id: str) -> None:
        step, worker = data.draw(st.sampled_from([1] * 6 + [0, 2])), data.draw(WORKERS)
        epoch, line = self.epoch(task_id) + step, self.line()
        answer = self.run(
            self.managed.begin(task_id, epoch, worker=worker, lease_seconds=HOUR, log_entry=line)
        )
        assert (answer is not None) is self.model.begin(task_id, epoch, worker, line)

    def heartbeat(self, data: st.DataObject, task_id: str) -> None:
        epoch, advanced = self.some_epoch(data, task_id), data.draw(st.booleans())
        saved = data.draw(st.none() | st.integers(0, 9))
        answer = self.run(
            self.managed.heartbeat(
                task_id,
                epoch,
                lease_seconds=HOUR,
                advanced=advanced,
                checkpoint=None if saved is None else Checkpoint(saved),
            )
        )
        told = answer.status if isinstance(answer, Kept) else answer
        assert told is self.model.heartbeat(task_id, epoch, advanced=advanced, saved=saved)

    def append_logs(self, data: st.DataObject, task_id: str) -> None:
        epoch, line = self.some_epoch(data, task_id), self.line()
        answer = self.run(self.managed.append_logs(task_id, epoch, [format_log_entry(line)]))
        assert answer is self.model.append_logs(task_id, epoch, line)

    def finish(self, data: st.DataObject, task_id: str) -> None:
        epoch, status, line = self.some_epoch(data, task_id), data.draw(ENDS), self.line()
        outcome = OUTCOMES.get(status)
        failing = None if outcome is None else Failing(outcome, line)
        answer = self.run(
            self.managed.finish(task_id, epoch, status, log_entry=line, failing=failing)
        )
        assert answer is self.model.finish(task_id, epoch, status, line, outcome)

    def give_back(self, data: st.DataObject, task_id: str) -> None:
        epoch, counted, line = self.some_epoch(data, task_id), data.draw(st.booleans()), self.line()
        give_back = self.managed.retry if counted else self.managed.release
        failing = Failing("failed" if counted else "released", line)
        answer = self.run(give_back(task_id, epoch, log_entry=line, failing=failing))
        assert answer is self.model.give_back(task_id, epoch, line, counted=counted)

    def let_the_lease_end(self, data: st.DataObject, task_id: str) -> None:
        self.space.expire_lease(task_id)
        self.model.tasks[task_id].lease = "expired"

    def rescue(self, data: st.DataObject, task_id: str) -> None:
        self.space.let_rescue()
        rescued = self.run(self.managed.rescue())
        answer = {item.task_id: (item.status, item.epoch) for item in rescued}
        assert answer == self.model.rescue()

    def let_it_expire(self, data: st.DataObject, task_id: str) -> None:
        task = self.model.tasks[task_id]
        member = f"{task_id}:{task.service}:{task.user_id}"
        assert self.client.zscore(keys.EXPIRY, member) is not None
        self.client.zadd(keys.EXPIRY, {member: 1})
        self.space.let_sweep()
        assert self.run(self.managed.sweep()) == 1
        self.model.delete(task_id)

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
            assert found.checkpoint == task.checkpoint
            notes = [(note.epoch, note.attempt, note.outcome) for note in found.history]
            assert notes == task.history
            assert (found.completed_at is not None) is task.status.is_terminal
            assert self.space.indexes_of(task.task_id) == index_names(
                task.status, task.service, task.user_id
            )

    @invariant()
    def nothing_goes_back(self) -> None:
        for task in self.model.tasks.values():
            found = self.run(self.repository.get(task.task_id))
            assert found.epoch >= task.seen_epoch
            assert found.revision >= task.seen_revision
            assert task.seen_end in {None, found.status}, "nothing follows a terminal state"
            task.seen_epoch, task.seen_revision = found.epoch, found.revision
            task.seen_end = found.status if found.status.is_terminal else None

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


# Finding the shortest life that shows a defect takes longer than an ordinary test may.
@pytest.mark.timeout(900)
def test_random_lives(dms_redis_server: ServerAddress) -> None:
    """About a thousand steps, a few hundred of them new each time."""
    redis_settings = RedisRepositorySettings(write_url=dms_redis_server.url, timeout_seconds=60)
    with asyncio.Runner() as runner, Redis.from_url(dms_redis_server.url) as client:
        provider = RedisRepositoryProvider(redis_settings)
        Lives.runner, Lives.provider, Lives.client = runner, provider, client
        try:
            run_state_machine_as_test(
                Lives, settings=settings(max_examples=35, stateful_step_count=20)
            )
        finally:
            runner.run(provider.close())
