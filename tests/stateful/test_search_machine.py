"""Searches among random records on a real server, beside a filter and a sort in Python."""

import asyncio
import contextlib
import itertools
from collections.abc import Coroutine, Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from task_state import TaskRecord, TaskSearch, TaskStateError, TaskStatus, _listing, keys
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.testing import ServerAddress
from tests.contract.store import Keyspace
from tests.stateful.search_model import Records

START = datetime(2025, 1, 1, tzinfo=UTC)
SERVICES, USERS = ["copy", "sync", "rm"], ["alice", "Bob", "7"]
IDS = st.text("AZaz09._-", min_size=1, max_size=3).filter(lambda text: text.strip(".") != "")
STATUSES = st.sampled_from(list(TaskStatus))
# Many share an instant. Long values are stored in pieces of 64 bytes, beside them the edges.
TIMES = st.integers(0, 4).map(lambda us: START + timedelta(microseconds=us))
PARAMETERS = st.sampled_from(
    [
        {},
        {"src": "/data/A", "dst": "/data/b"},
        {"경로": "/데이터/가", "Mode": "slow"},
        *({"p": "x" * (size - 9) + "y"} for size in (63, 64, 65, 127, 128, 129, 512, 513)),
    ]
)
TEXTS = st.sampled_from(
    ["a", "B", "z", "-", "7", "slow", "데이터/", "x" * 70, "xy", '"p":"', "bob", "%a", "/DATA/"]
)
NAMED = ["task_id", "service", "user_id", "status", "q"]
RANGES = ["created_after", "created_before", "updated_after", "updated_before"]


class Searches(RuleBasedStateMachine):
    """One store; programs write to it, and somebody searches."""

    runner: asyncio.Runner
    provider: RedisRepositoryProvider
    client: "Redis"

    def __init__(self) -> None:
        super().__init__()
        self.records = Records()

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    @initialize(
        budget=st.sampled_from([2, 7, 2000]),
        gather=st.sampled_from([0, 5, 1000]),
    )
    def start(self, budget: int, gather: int) -> None:
        """Small limits, so that few records go every way that a search can take."""
        _listing.SCAN_BUDGET, _listing.GATHER_LIMIT = budget, gather
        self.client.flushall()
        self.space = Keyspace(self.client)
        self.repository = self.run(self.provider.get_repository())
        self.managed = self.run(self.provider.get_managed())

    # -------------------------------------------------------------------------------------- writes
    def reread(self, task_id: str) -> None:
        """Bring the model up to date with the record."""
        self.records.tasks.pop(task_id, None)
        if (task := self.run(self.repository.get(task_id))) is not None:
            self.records.tasks[task_id] = task

    def attempt(self, call: Coroutine[Any, Any, Any], task_id: str) -> None:
        """Do what may be refused: refusals are for the other suites to test."""
        with contextlib.suppress(TaskStateError):
            self.run(call)
        self.reread(task_id)

    @rule(data=st.data(), count=st.integers(1, 12))
    def save(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            task = TaskRecord(
                task_id=data.draw(IDS),
                service=data.draw(st.sampled_from(SERVICES)),
                user_id=data.draw(st.sampled_from(USERS)),
                status=data.draw(STATUSES),
                created_at=data.draw(TIMES),
                parameters=data.draw(PARAMETERS),
            )
            self.attempt(self.repository.save(task), task.task_id)

    @rule(
        service=st.sampled_from(SERVICES),
        user=st.sampled_from(USERS),
        steps=st.integers(0, 3),
        parameters=PARAMETERS,
    )
    def live(self, service: str, user: str, steps: int, parameters: dict[str, str]) -> None:
        submitted = self.run(
            self.managed.submit(service=service, user_id=user, parameters=parameters)
        )
        task_id = submitted.task_id
        ways = [
            self.managed.begin(task_id, 1, worker="w"),
            self.managed.append_logs(task_id, 1, ["2025-01-01T00:00:00,line"]),
            self.managed.finish(task_id, 1, TaskStatus.COMPLETED, data={"y": "x" * 100}),
        ]
        for number, way in enumerate(ways):
            if number < steps:
                self.run(way)
            else:
                way.close()
        self.reread(task_id)

    @precondition(lambda self: self.records.tasks)
    @rule(data=st.data(), count=st.integers(1, 4))
    def change(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            if self.records.tasks:
                self.change_one(data, data.draw(st.sampled_from(sorted(self.records.tasks))))

    def change_one(self, data: st.DataObject, task_id: str) -> None:
        ways = {
            "status": lambda: self.repository.set_status(task_id, data.draw(STATUSES)),
            "log": lambda: self.repository.append_log(task_id, "a line"),
            "result": lambda: self.repository.update_result(task_id, error="e" * 70),
            "jobs": lambda: self.repository.add_jobs(task_id, ["j" * 30, data.draw(IDS) * 20]),
            "cancel": lambda: self.managed.cancel(task_id),
            "delete": lambda: self.repository.delete(task_id),
            "expire": lambda: self.expire(task_id, natively=data.draw(st.booleans())),
        }
        self.attempt(ways[data.draw(st.sampled_from(sorted(ways)))](), task_id)

    async def expire(self, task_id: str, *, natively: bool) -> None:
        """Let its time to live be over, for the sweeper or, a day too late for that, for Redis."""
        task = self.records.tasks[task_id]
        if task.managed and not task.status.is_terminal:
            return
        if natively:
            self.client.delete(keys.task(task_id), keys.logs(task_id))
        self.space.let_expire(task)
        assert await self.managed.sweep() == 1

    # ------------------------------------------------------------------------------------- searches
    def draw(self, data: st.DataObject) -> TaskSearch:
        """A search with some of the options."""
        tasks = list(self.records.tasks.values())
        updated = sorted({task.updated_at for task in tasks} | {START})
        values: dict[str, st.SearchStrategy[Any]] = {
            "task_id": st.sampled_from(["gone", *sorted(self.records.tasks)]),
            "service": st.sampled_from(SERVICES),
            "user_id": st.sampled_from([*USERS, "nobody"]),
            "status": st.lists(STATUSES, min_size=1, max_size=4),
            "q": TEXTS,
            "created_after": TIMES,
            "created_before": TIMES.map(lambda at: at + timedelta(microseconds=1)),
            "updated_after": st.sampled_from(updated),
            "updated_before": st.just(updated[-1] + timedelta(microseconds=data.draw(_ONE))),
        }
        wanted = data.draw(st.lists(st.sampled_from([*NAMED[1:], *NAMED, *RANGES]), max_size=4))
        options: dict[str, Any] = {
            name: data.draw(values[name], label=name) for name in sorted(set(wanted))
        }
        for name in ("created", "updated"):
            after, before = options.get(f"{name}_after"), options.get(f"{name}_before")
            if after and before and after >= before:
                options.pop(f"{name}_after")
        options["sort"] = data.draw(st.sampled_from(["created_at", "updated_at", "id"]))
        options["order"] = data.draw(st.sampled_from(["asc", "desc"]))
        return TaskSearch(**options, limit=data.draw(LIMITS))

    def pages(self, search: TaskSearch) -> Generator[list[str], None, None]:
        """The ids of page after page."""
        while True:
            page = self.run(self.repository.search(search))
            assert len(page) <= search.limit
            yield [self.as_known(task) for task in page]
            if page.next_cursor is None:
                return
            search = replace(search, cursor=page.next_cursor, offset=0)

    def as_known(self, task: TaskRecord) -> str:
        """Its id; a page shows each record as it is by its id, without log and output."""
        known = self.records.tasks.get(task.task_id)
        if known is not None and known.revision == task.revision:
            assert task.model_dump(exclude={"logs"}) == known.model_dump(exclude={"logs"})
        return task.task_id

    @rule(data=st.data())
    def search(self, data: st.DataObject) -> None:
        search = self.draw(data)
        expected = self.records.found(search)
        page = self.run(self.repository.search(search))
        assert page.total in {None, len(expected)}
        assert list(itertools.chain(*self.pages(search))) == expected
        offset = data.draw(st.integers(0, len(expected) + 2), label="offset")
        rest = replace(search, offset=offset)
        assert list(itertools.chain(*self.pages(rest))) == expected[offset:]

    @rule(data=st.data())
    def search_while_others_write(self, data: st.DataObject) -> None:
        """Records that nobody touched are there once, in their order."""
        search, before = self.draw(data), dict(self.records.tasks)
        expected, found = self.records.found(search), list[str]()
        for number, page in enumerate(self.pages(search)):
            found += page
            if number < 3 and self.records.tasks:
                self.change(data, 1)
                self.save(data, 1)
        same = {
            task_id
            for task_id, task in self.records.tasks.items()
            if before.get(task_id) == task and before[task_id].revision == task.revision
        }
        assert [name for name in found if name in same] == [
            name for name in expected if name in same
        ]

    @rule(
        service=st.sampled_from([None, *SERVICES]),
        user=st.sampled_from([None, *USERS, "nobody"]),
    )
    def count(self, service: str | None, user: str | None) -> None:
        counted = self.run(self.repository.counts(service, user))
        assert counted == self.records.counts(service, user)

    def teardown(self) -> None:
        for task_id in list(self.records.tasks):
            assert self.run(self.repository.delete(task_id))
        if hasattr(self, "space"):
            assert self.space.leaks() == set()


_ONE = st.integers(0, 1)
LIMITS = st.sampled_from([1, 2, 5, 50])


@pytest.mark.timeout(900)  # to find the shortest example takes longer than an ordinary test may
def test_random_searches(dms_redis_server: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred searches, each followed through its pages."""
    monkeypatch.setattr(_listing, "SCAN_BUDGET", _listing.SCAN_BUDGET)
    monkeypatch.setattr(_listing, "GATHER_LIMIT", _listing.GATHER_LIMIT)
    redis_settings = RedisRepositorySettings(write_url=dms_redis_server.url, timeout_seconds=60)
    with asyncio.Runner() as runner, Redis.from_url(dms_redis_server.url) as client:
        provider = RedisRepositoryProvider(redis_settings)
        Searches.runner, Searches.provider, Searches.client = runner, provider, client
        try:
            run_state_machine_as_test(
                Searches, settings=settings(max_examples=45, stateful_step_count=16)
            )
        finally:
            runner.run(provider.close())
