"""Search at 10,000, 100,000 and 1,000,000 tasks: times as ratios to a bare SET, and memory a task.

Each round measures SET, the search, SET, one call at a time; the ratio of a round is that of the
medians, the figure the median of the rounds. "Undisturbed" is the ratio of the fastest tenth of
all calls, which says what a busy machine hides. `DMS_BENCH_TASKS=10000,100000` measures fewer.
"""

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from benchmarks.filling import fill
from benchmarks.server import ServerCpu, valkey
from benchmarks.table import print_table, verdict
from task_state import TaskPage, TaskSearch, TaskStatus, keys
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from task_state.timezone import now

SIZES = (10_000, 100_000, 1_000_000)
ROUNDS, CALLS, SETS = 9, 40, 80
ACTIVE = 200  # tasks that wait or run, beside the finished ones
FIRST = 1000
GOAL_BYTES = 2048
Search = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One search at one size: records found, ratios, µs at the client, µs of the server's CPU."""

    found: int
    ratio: float
    undisturbed: float
    us: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Case:
    """A search to measure, and its goal as a ratio to a bare SET."""

    name: str
    goal: float | None
    call: Search


async def cases(repository: RedisTaskRepository, size: int) -> list[Case]:
    """In the order of the table."""
    hour, days = now() - timedelta(hours=1), now() - timedelta(days=80)
    depth = size // 2
    cursor = (await repository.search(TaskSearch(offset=depth))).next_cursor
    failed, done, sync = [TaskStatus.FAILED], [TaskStatus.COMPLETED], {"service": "sync"}

    def case(name: str, goal: float | None, **options: Any) -> Case:
        search = TaskSearch(**options)
        return Case(name, goal, lambda: repository.search(search))

    return [
        case("page of the 50 newest", 12),
        case("page of the 200 newest", None, limit=200),
        case("service + FAILED + 1 h", 3, **{**sync, "status": failed, "created_after": hour}),
        case("service + COMPLETED + 80 d", 12, **{**sync, "status": done, "created_after": days}),
        case("cursor page, half way down", 13, cursor=cursor),
        case("offset page, half way down", None, offset=depth),
        Case("counts of everything", 1.5, repository.counts),
        Case("counts of a service", None, lambda: repository.counts("sync")),
        case("one user, all services", None, user_id="user-007"),
        case("50 by id", None, sort="id"),
        case("50 by update", None, sort="updated_at"),
        case("text in one user's tasks", None, user_id="user-007", service="rm", q="alpha/run-1"),
        case("text nowhere (500 looked at)", None, q="no such text"),
    ]


async def times(call: Search, count: int) -> list[float]:
    """What each of so many calls took, in microseconds."""
    took: list[float] = []
    for _ in range(count):
        begun = time.perf_counter()
        await call()
        took.append((time.perf_counter() - begun) * 1e6)
    return took


def fastest(took: Sequence[float]) -> float:
    """The time that a tenth of the calls did not exceed."""
    return statistics.quantiles(took, n=10)[0]


async def measure(case: Case, bare: Search, cpu: ServerCpu) -> Figure:
    """All rounds of one search."""
    found = await case.call()
    ours: list[float] = []
    sets: list[float] = []
    ratios: list[float] = []
    calls, spent = 0, 0.0
    for _ in range(ROUNDS):
        around = await times(bare, SETS)
        calls_before, usec_before = cpu.take("evalsha")
        took = await times(case.call, CALLS)
        calls_after, usec_after = cpu.take("evalsha")
        around += await times(bare, SETS)
        calls, spent = calls + calls_after - calls_before, spent + usec_after - usec_before
        ours, sets = ours + took, sets + around
        ratios.append(statistics.median(took) / statistics.median(around))
    return Figure(
        len(found) if isinstance(found, TaskPage) else 0,
        statistics.median(ratios),
        fastest(ours) / fastest(sets),
        statistics.median(ours),
        spent / calls,
    )


async def some_active(managed: ManagedTasks) -> None:
    """Tasks that wait and tasks that run, as every store has."""
    for number in range(ACTIVE):
        user = f"user-{number % 20:03}"
        task = await managed.submit(service="sync", user_id=user, parameters={"number": number})
        if number % 2:
            await managed.begin(task.task_id, 1, worker="benchmark", lease_seconds=3600)


async def _search(url: str, size: int) -> list[tuple[Case, Figure]]:
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=url, timeout_seconds=60))
    client = AsyncRedis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=None, max_connections=512, protocol=2
    )
    cpu = ServerCpu(url)

    async def bare() -> None:
        await client.set("bare", "x" * 100)

    try:
        await some_active(await provider.get_managed())
        wanted = await cases(await provider.get_repository(), size)
        await times(bare, SETS)
        return [(case, await measure(case, bare, cpu)) for case in wanted]
    finally:
        cpu.close()
        await client.aclose()
        await provider.close()


# ------------------------------------------------------------------------------------------- memory
PARTS = {
    "record": "task:*",
    "log of 8 lines": "logs:*",
    "by creation: all, service, user": "c:*",
    "by update: all, service": "u:*",
    "by id": "ids",
    "expiry": "expiry",
}
_SAMPLED = {"task:*", "logs:*"}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes a task: in all by used_memory, and of each kind of key by MEMORY USAGE."""

    whole: float
    parts: dict[str, float]


def used(client: "Redis") -> int:
    """Bytes that the server has allocated."""
    return int(client.info("memory")["used_memory"])


def of_parts(client: "Redis", size: int) -> dict[str, float]:
    """Of each kind of key, the bytes a task; records and logs are sampled."""
    found: dict[str, float] = {}
    for name, pattern in PARTS.items():
        match = keys.PREFIX + pattern
        some = cast("Iterator[bytes]", client.scan_iter(match=match, count=1000))
        names = list(itertools.islice(some, 500 if pattern in _SAMPLED else None))
        total = sum(client.memory_usage(key, samples=100) or 0 for key in names)
        found[name] = total / (len(names) if pattern in _SAMPLED else size)
    return found


# -------------------------------------------------------------------------------------------- sizes
def _sizes() -> list[int]:
    given = os.environ.get("DMS_BENCH_TASKS")
    return [int(size) for size in given.split(",")] if given else list(SIZES)


def measure_size(size: int) -> tuple[list[tuple[Case, Figure]], Memory]:
    """Fill a new server with so many tasks, and measure it."""
    with valkey() as url, Redis.from_url(url) as client:
        fill(url, FIRST, seed=1)  # what the first tasks bring with them is not a task's cost
        before, begun = used(client), time.monotonic()
        fill(url, size - FIRST)
        print(f"{size} tasks written in {time.monotonic() - begun:.0f} s", flush=True)
        whole = (used(client) - before) / (size - FIRST)
        memory = Memory(whole, of_parts(client, size))
        return asyncio.run(_search(url, size)), memory


def _print_times(size: int, figures: list[tuple[Case, Figure]]) -> None:
    rows = [
        [
            case.name,
            str(figure.found),
            f"{figure.us:.0f}",
            f"{figure.ratio:.2f}",
            f"{figure.undisturbed:.2f}",
            "" if case.goal is None else f"<= {case.goal:g}",
            "" if case.goal is None else verdict(figure.ratio, case.goal),
            f"{figure.cpu_us:.0f}",
        ]
        for case, figure in figures
    ]
    head = ["search", "found", "µs", "ratio", "undisturbed", "goal", "", "server CPU µs"]
    print_table(f"Search among {size:,} tasks", head, rows)


def _print_memory(memories: dict[int, Memory]) -> None:
    rows = [
        [name, *(f"{memory.parts[name]:.0f}" for memory in memories.values())] for name in PARTS
    ]
    whole = [f"{memory.whole:.0f}" for memory in memories.values()]
    goal = [verdict(memory.whole, GOAL_BYTES) for memory in memories.values()]
    rows += [["in all (used_memory)", *whole], [f"<= {GOAL_BYTES}", *goal]]
    head = ["bytes a finished task", *(f"{size:,} tasks" for size in memories)]
    print_table("Memory", head, rows)


def main() -> None:
    """Measure and print."""
    memories: dict[int, Memory] = {}
    for size in _sizes():
        figures, memories[size] = measure_size(size)
        _print_times(size, figures)
    _print_memory(memories)


if __name__ == "__main__":
    main()
