"""What the service adds to one small sync: submit to COMPLETED, beside the bare mover."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from benchmarks.mover_trees import moved
from benchmarks.table import print_table, verdict
from benchmarks.throughput import ENVIRONMENT
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from tests.support.stack import Stack

GOAL_MS = 100.0


def measure(folder: Path, tasks: int) -> None:
    """Sync one file of 4 KiB so many times, each to a new destination, one after the other."""
    data = folder / "data"
    (data / "src").mkdir(parents=True)
    (data / "src/file").write_bytes(bytes(4096))
    bare = [
        answer["seconds"] * 1000
        for answer in moved(data / "src", data / "bare", {}, extra={"repeat": tasks})
    ]
    with Stack(folder / "stack", roots=[data], workers=1, env=ENVIRONMENT) as stack:
        asyncio.run(_served(stack, data, 3, "warm"))
        served = asyncio.run(_served(stack, data, tasks, "dst"))
    added = statistics.median(served) - statistics.median(bare)
    print_table(
        "One file of 4 KiB",
        ["what", "p50 ms", "p99 ms"],
        [_row("bare mover", bare), _row("task, created to COMPLETED", served)],
    )
    print(f"\nOverhead {added:.1f} ms, goal <= {GOAL_MS:g}: {verdict(added, GOAL_MS)}.")


def _row(name: str, times: list[float]) -> list[str]:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return [name, f"{statistics.median(ordered):.1f}", f"{p99:.1f}"]


async def _served(stack: Stack, data: Path, tasks: int, name: str) -> list[float]:
    """Milliseconds from each record's creation to its end, by the server's one clock."""
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=stack.redis_url))
    repository = await provider.get_repository()
    times: list[float] = []
    for number in range(tasks):
        task_id = stack.submit(
            "sync", "bench", src=str(data / "src"), dst=str(data / f"{name}-{number}")
        )
        deadline = time.monotonic() + 60
        while (task := await repository.get(task_id)) is None or not task.status.is_terminal:
            if time.monotonic() > deadline:
                raise SystemExit(f"task {task_id} did not end within a minute: {task}")
            await asyncio.sleep(0.005)
        if task.status != "COMPLETED" or task.completed_at is None:
            raise SystemExit(f"task {task_id} did not complete: {task}")
        times.append((task.completed_at - task.created_at).total_seconds() * 1000)
    await provider.close()
    return times
