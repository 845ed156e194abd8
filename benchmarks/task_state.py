"""Operations of task_state as ratios to a bare SET on the same server, in the same run.

Each round measures blocks of calls, one call at a time: SET, the operation, SET. The ratio of a
round is that of the medians, the figure the median of the rounds. All clients are set up alike.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from benchmarks.server import ServerCpu, valkey
from benchmarks.table import print_table, verdict
from task_state import TaskRecord, TaskStatus
from task_state.log_entry import format_log_entry
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository

CALLS, ROUNDS = 200, 15
PARAMETERS = {"src": "/data/projects/a", "dst": "/data/backup/a", "compare": "size_mtime"}
Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`prepare` gives one call for each time that is measured."""

    name: str
    goal: float | None
    prepare: Callable[[int], Awaitable[Sequence[Call]]]


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured: µs at the client, their ratio, and µs of the server's CPU."""

    operation: Operation
    set_us: float
    us: float
    ratio: float
    cpu_us: float


class Operations:
    """The operations to measure, on one store."""

    def __init__(self, repository: RedisTaskRepository, managed: ManagedTasks) -> None:
        self._repository = repository
        self._managed = managed
        self._number = 0

    def all(self) -> list[Operation]:
        """In the order of the table."""
        return [
            Operation("create: save a new record", 2.0, self._save),
            Operation("create: submit a managed task", 2.0, self._submit),
            Operation("set_status", 2.0, self._set_status),
            Operation("append_log at 100,000 lines", 1.5, self._append),
            Operation("get (10 log lines)", 1.6, self._get(10)),
            Operation("get (200 log lines)", None, self._get(200)),
            Operation("heartbeat with progress", None, self._heartbeat),
            Operation("begin", None, self._begin),
            Operation("finish", None, self._finish),
            Operation("list_by_service, 50 of many", None, self._list),
        ]

    def _record(self) -> TaskRecord:
        self._number += 1
        return TaskRecord(
            task_id=f"bench-{self._number}",
            service="sync",
            user_id=f"user-{self._number % 10}",
            parameters=PARAMETERS,
        )

    async def _submitted(self) -> str:
        submission = await self._managed.submit(
            service="sync", user_id="alice", parameters=PARAMETERS, log_entry="Submitted"
        )
        return submission.task_id

    async def _begun(self) -> str:
        task_id = await self._submitted()
        await self._managed.begin(task_id, 1, worker="bench")
        return task_id

    async def _save(self, count: int) -> list[Call]:
        records = [self._record() for _ in range(count)]
        return [lambda r=record: self._repository.save(r) for record in records]

    async def _submit(self, count: int) -> list[Call]:
        return [self._submitted] * count

    async def _set_status(self, count: int) -> list[Call]:
        calls: list[Call] = []
        while len(calls) < count:
            record = self._record()
            await self._repository.save(record)
            calls += [
                lambda i=record.task_id, s=status: self._repository.set_status(i, s)
                for status in (TaskStatus.DISPATCHING, TaskStatus.RUNNING, TaskStatus.COMPLETED)
            ]
        return calls[:count]

    async def _append(self, count: int) -> list[Call]:
        if await self._repository.get("long") is None:
            await self._repository.save(TaskRecord(task_id="long", service="sync", user_id="alice"))
            lines = [format_log_entry(f"copied file number {n}") for n in range(10_000)]
            for _ in range(10):
                await self._repository.append_logs("long", lines)
        return [lambda: self._repository.append_log("long", "copied another file")] * count

    def _get(self, lines: int) -> Callable[[int], Awaitable[Sequence[Call]]]:
        async def prepare(count: int) -> Sequence[Call]:
            record = self._record()
            record.logs = [format_log_entry(f"copied file number {n}") for n in range(lines)]
            await self._repository.save(record)
            return [lambda: self._repository.get(record.task_id)] * count

        return prepare

    async def _begin(self, count: int) -> list[Call]:
        ids = [await self._submitted() for _ in range(count)]
        return [lambda i=task_id: self._managed.begin(i, 1, worker="bench") for task_id in ids]

    async def _heartbeat(self, count: int) -> list[Call]:
        task_id = await self._begun()
        progress = {"phase": "copy", "bytes": 10**9, "files": 1234, "speed": 10**8}
        return [lambda: self._managed.heartbeat(task_id, 1, progress=progress)] * count

    async def _finish(self, count: int) -> list[Call]:
        ids = [await self._begun() for _ in range(count)]
        done = TaskStatus.COMPLETED
        return [lambda i=task_id: self._managed.finish(i, 1, done) for task_id in ids]

    async def _list(self, count: int) -> list[Call]:
        return [lambda: self._repository.list_by_service("sync")] * min(count, 50)


async def timed(calls: Sequence[Call]) -> float:
    """The median time of a call, in microseconds."""
    took: list[float] = []
    for call in calls:
        begun = time.perf_counter()
        await call()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


async def measure(operation: Operation, bare: Call, cpu: ServerCpu) -> Figure:
    """All rounds of one operation."""
    sets: list[float] = []
    ours: list[float] = []
    ratios: list[float] = []
    calls, spent = 0, 0.0
    for _ in range(ROUNDS):
        block = await operation.prepare(CALLS)
        before = await timed([bare] * CALLS)
        calls_before, usec_before = cpu.take("evalsha")
        took = await timed(block)
        calls_after, usec_after = cpu.take("evalsha")
        calls, spent = calls + calls_after - calls_before, spent + usec_after - usec_before
        base = (before + await timed([bare] * CALLS)) / 2
        sets.append(base)
        ours.append(took)
        ratios.append(took / base)
    median = statistics.median
    return Figure(operation, median(sets), median(ours), median(ratios), spent / calls)


async def _run(url: str) -> None:
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=url))
    client = Redis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=None, max_connections=512, protocol=2
    )
    cpu = ServerCpu(url)

    async def bare() -> None:
        await client.set("bare", "x" * 100)

    operations = Operations(await provider.get_repository(), await provider.get_managed())
    try:
        await timed([bare] * CALLS)
        figures = [await measure(operation, bare, cpu) for operation in operations.all()]
        set_calls, set_usec = cpu.take("set")
    finally:
        cpu.close()
        await client.aclose()
        await provider.close()
    _print(figures, set_usec / set_calls)


def _print(figures: Sequence[Figure], set_cpu_us: float) -> None:
    rows = [
        [
            figure.operation.name,
            f"{figure.us:.0f}",
            f"{figure.set_us:.0f}",
            f"{figure.ratio:.2f}",
            "" if figure.operation.goal is None else f"<= {figure.operation.goal}",
            "" if figure.operation.goal is None else verdict(figure.ratio, figure.operation.goal),
            f"{figure.cpu_us:.1f}",
        ]
        for figure in figures
    ]
    head = ["operation", "µs", "SET µs", "ratio", "goal", "", "server CPU µs"]
    print_table("task_state against a bare SET", head, rows)
    print(f"\nA bare SET costs the server {set_cpu_us:.1f} µs of CPU.")


def main() -> None:
    """Measure and print."""
    with valkey() as url:
        asyncio.run(_run(url))


if __name__ == "__main__":
    main()
