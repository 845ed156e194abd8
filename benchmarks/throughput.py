"""Empty tasks a second from submit to COMPLETED, and what the service adds to one task when idle.

All parts are real processes, as `dms-frontend up` starts them, the server's AOF always on.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import httpx2

from benchmarks.table import print_table, verdict
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import TaskRepository
from tests.support.stack import Stack

IDLE_TASKS, LOADED_TASKS, CONNECTIONS, GOAL_MS = 60, 1000, 16, 100.0
ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "DMS_TASK_MODULES": "benchmarks.empty_task",
    "DMS_LEASE_SECONDS": "60",
    "DMS_HEARTBEAT_SECONDS": "15",
    "DMS_LOG_LEVEL": "WARNING",
    "PYTHONPATH": str(ROOT),
}


async def _submit(client: httpx2.AsyncClient) -> str:
    answer = await client.post("/api/v1/services/empty/users/bench/tasks", json={"parameters": {}})
    answer.raise_for_status()
    return str(answer.json()["task_id"])


async def _wait(repository: TaskRepository, wanted: set[str], seconds: float) -> None:
    """Wait until all have ended; asks the store, so that the API is not part of the load."""
    deadline = time.monotonic() + seconds
    while wanted:
        page = await repository.list_by_ids(sorted(wanted)[:200])
        wanted -= {task.task_id for task in page if task.status.is_terminal}
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(wanted)} tasks did not end within {seconds:g} s")
        await asyncio.sleep(0.005)


async def _overheads(repository: TaskRepository, ids: list[str]) -> list[float]:
    """Milliseconds from the record's creation to its end, by the server's one clock."""
    overheads: list[float] = []
    for task_id in ids:
        task = await repository.get(task_id)
        if task is None or task.status != "COMPLETED" or task.completed_at is None:
            raise SystemExit(f"task {task_id} did not complete: {task}")
        overheads.append((task.completed_at - task.created_at).total_seconds() * 1000)
    return sorted(overheads)


async def _idle(client: httpx2.AsyncClient, repository: TaskRepository) -> list[float]:
    ids: list[str] = []
    for _ in range(IDLE_TASKS):
        ids.append(await _submit(client))
        await _wait(repository, {ids[-1]}, 60)
    return await _overheads(repository, ids)


async def _loaded(
    client: httpx2.AsyncClient, repository: TaskRepository
) -> tuple[float, list[float]]:
    ids: list[str] = []

    async def submit(count: int) -> None:
        ids.extend([await _submit(client) for _ in range(count)])

    begun = time.perf_counter()
    await asyncio.gather(*(submit(LOADED_TASKS // CONNECTIONS) for _ in range(CONNECTIONS)))
    await _wait(repository, set(ids), 300)
    rate = len(ids) / (time.perf_counter() - begun)
    return rate, await _overheads(repository, ids)


async def _run(stack: Stack) -> None:
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=stack.redis_url))
    async with httpx2.AsyncClient(
        base_url=stack.plan.address, timeout=30.0, trust_env=False
    ) as client:
        repository = await provider.get_repository()
        await _idle(client, repository)  # the first tasks find cold caches
        idle = await _idle(client, repository)
        rate, loaded = await _loaded(client, repository)
    await provider.close()
    median = statistics.median(idle)
    print_table(
        "Empty tasks, submit to COMPLETED",
        ["measure", "p50 ms", "p99 ms", "tasks/s"],
        [
            ["one at a time", f"{median:.1f}", f"{idle[len(idle) * 99 // 100]:.1f}", ""],
            [
                f"{len(loaded)} at once, {CONNECTIONS} connections",
                f"{statistics.median(loaded):.1f}",
                f"{loaded[len(loaded) * 99 // 100]:.1f}",
                f"{rate:.0f}",
            ],
        ],
    )
    print(f"\nOverhead {median:.1f} ms, goal <= {GOAL_MS:g}: {verdict(median, GOAL_MS)}.")


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="dms-bench-") as folder,
        Stack(Path(folder), workers=1, env=ENVIRONMENT) as stack,
    ):
        asyncio.run(_run(stack))


if __name__ == "__main__":
    main()
