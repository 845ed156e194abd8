"""Cron: `next()` beside cronsim's, and 100,000 cron triggers beside as many asyncio tasks.

Each measurement of many triggers is a process of its own, so that memory is its own.
"""

import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, NoReturn, cast
from zoneinfo import ZoneInfo

import psutil
from cronsim import CronSim  # dev only: pip install cronsim, where `.[dev]` is not installed

from app.event_system import EventBase, PublisherPort
from app.scheduler import CronExpression, Scheduler, create_cron_trigger
from benchmarks.table import print_table, verdict

NEXT_GOAL, BOOT_GOAL, MEMORY_GOAL, LATENESS_GOAL = 8.0, 7.0, 8.0, 20.0
TRIGGERS, SECONDS, WARM_SECONDS = 100_000, 12.0, 4.0
STEPS, ROUNDS = 300, 5
ZONE = ZoneInfo("Asia/Seoul")
ZONES = ("UTC", "Asia/Seoul", "America/New_York", "Europe/Berlin")
EXPRESSIONS = (
    "* * * * *",
    "*/5 * * * *",
    "0 * * * *",
    "0 0 * * *",
    "0 9 * * MON-FRI",
    "*/15 9-17 * * MON-FRI",
    "15,45 */6 * * *",
    "30 3 1 * *",
    "0 4 8-14 * *",
    "0 0 L * *",
    "0 12 * * MON#2",
    "0 0 29 2 *",
)


class Tick(EventBase):
    number: int


class Lateness(PublisherPort):
    """Takes events and notes when which slot came."""

    def __init__(self) -> None:
        self.came: list[tuple[float, str]] = []

    async def publish(self, topic: str, event: EventBase) -> None:
        self.came.append((time.time(), event.headers["dms-slot"]))

    async def publish_many(self, events: Iterable[EventBase]) -> None:
        for event in events:
            await self.publish(event.topic, event)

    async def close(self) -> None:
        self.came.clear()

    def late(self) -> list[float]:
        return sorted(at - datetime.fromisoformat(slot).timestamp() for at, slot in self.came)


# ----------------------------------------------------------------------------------- one search


def _cost(walk: Callable[[], None]) -> float:
    """Microseconds of CPU a step, the least of some rounds: others use the machine too."""
    costs: list[float] = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        walk()
        costs.append((time.process_time() - begun) / STEPS * 1e6)
    return min(costs)


def _next_costs(text: str, start: datetime) -> tuple[float, float]:
    def theirs() -> None:
        moments: Iterator[datetime] = CronSim(text, start)
        for _ in range(STEPS):
            next(moments)

    expression = CronExpression.parse(text)

    def ours() -> None:
        at = start
        for _ in range(STEPS):
            at = expression.next(at)

    return _cost(theirs), _cost(ours)


def _measure_next() -> None:
    rows: list[list[str]] = []
    all_ratios: list[float] = []
    for text in EXPRESSIONS:
        costs = [
            _next_costs(text, datetime(2026, 1, 15, 8, 30, tzinfo=ZoneInfo(zone))) for zone in ZONES
        ]
        ratios = [theirs / ours for theirs, ours in costs]
        all_ratios += ratios
        theirs, ours = (statistics.mean(each) for each in zip(*costs, strict=True))
        rows.append([f"`{text}`", f"{theirs:.1f}", f"{ours:.1f}", f"{statistics.mean(ratios):.1f}"])
    print_table(
        f"`next()`, mean of {', '.join(ZONES)}",
        ["expression", "cronsim µs", "DMS µs", "ratio"],
        rows,
    )
    mean = statistics.mean(all_ratios)
    goal = verdict(mean, NEXT_GOAL, at_most=False)
    print(f"\nMean ratio {mean:.1f}, goal >= {NEXT_GOAL:g}: {goal}.")


# --------------------------------------------------------------------------------- many triggers


def _expressions(kind: str) -> list[str]:
    """`boot`: thousands of different ones, as people write them. `fire`: 10,000 fires a second."""
    if kind == "fire":
        return [f"{n % 10}-59/10 * * * * *" for n in range(TRIGGERS)]
    chance = random.Random(1)
    shapes = (
        "{m} {h} * * *",
        "{m} {h} * * MON-FRI",
        "{m} * * * *",
        "*/{s} {h}-23 * * *",
        "{m} {h} 1 * *",
    )
    return [
        chance.choice(shapes).format(
            m=chance.randrange(60), h=chance.randrange(24), s=chance.choice([5, 10, 15])
        )
        for _ in range(TRIGGERS)
    ]


async def _task(text: str, number: int, publisher: PublisherPort) -> None:
    """What one would write without a scheduler."""
    for moment in CronSim(text, datetime.now(ZONE)):
        await asyncio.sleep(max(0.0, moment.timestamp() - time.time()))
        headers = {"dms-slot": moment.isoformat()}
        await publisher.publish("tick", Tick(topic="tick", number=number, headers=headers))


async def _boot_tasks(texts: list[str], publisher: PublisherPort) -> Any:
    tasks = [
        asyncio.create_task(_task(text, number, publisher)) for number, text in enumerate(texts)
    ]
    await asyncio.sleep(0)  # each computes its first slot and sleeps
    return tasks


async def _boot_triggers(texts: list[str], publisher: PublisherPort) -> Any:
    scheduler = Scheduler(publisher)
    for number, text in enumerate(texts):
        trigger = create_cron_trigger(text, lambda n=number: Tick(topic="tick", number=n), ZONE)
        await scheduler.register_trigger(f"trigger-{number}", trigger, "tick")
    await scheduler.start()
    return scheduler


async def _child(kind: str, system: str) -> NoReturn:
    publisher, texts = Lateness(), _expressions(kind)
    boot = _boot_tasks if system == "tasks" else _boot_triggers
    await boot(["0 0 1 1 *"], publisher)  # modules and caches
    gc.collect()
    process = psutil.Process()
    memory, begun = process.memory_info().rss, time.process_time()
    kept = await boot(texts, publisher)
    booted = time.process_time() - begun
    gc.collect()
    found = {"boot": booted, "memory": (process.memory_info().rss - memory) / TRIGGERS}
    if kind == "fire":
        await asyncio.sleep(WARM_SECONDS)
        publisher.came.clear()
        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.sleep(SECONDS)
        passed = time.perf_counter() - begun
        found["cpu"] = (time.process_time() - cpu) / passed
        late = publisher.late()
        found["fires"] = len(late) / passed
        found["p50"], found["p99"] = (late[len(late) * part // 100] for part in (50, 99))
    print(json.dumps(found), flush=True)
    del kept
    os._exit(0)  # a hundred thousand tasks take their time to be cancelled


def _in_a_process(kind: str, system: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.triggers", kind, system]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return cast("dict[str, float]", json.loads(done.stdout))


def _measure_many() -> None:
    systems = ("tasks", "triggers")
    boot = [_in_a_process("boot", system) for system in systems]
    fire = [_in_a_process("fire", system) for system in systems]
    rows = [
        [
            "a task and a CronSim each" if system == "tasks" else "DMS",
            f"{booted['boot']:.2f}",
            f"{booted['memory']:.0f}",
            f"{fired['fires']:.0f}",
            f"{fired['cpu'] * 100:.0f}",
            f"{fired['p50'] * 1000:.1f}",
            f"{fired['p99'] * 1000:.1f}",
        ]
        for system, booted, fired in zip(systems, boot, fire, strict=True)
    ]
    head = [
        "100,000 cron triggers",
        "boot s CPU",
        "bytes each",
        "fires/s",
        "CPU %",
        "late p50 ms",
        "p99 ms",
    ]
    print_table("Many cron triggers", head, rows)
    print()
    for name, ratio, goal in (
        ("Boot", boot[0]["boot"] / boot[1]["boot"], BOOT_GOAL),
        ("Memory", boot[0]["memory"] / boot[1]["memory"], MEMORY_GOAL),
        ("p99 lateness", fire[0]["p99"] / fire[1]["p99"], LATENESS_GOAL),
    ):
        print(f"{name}: 1/{ratio:.1f}, goal 1/{goal:g}: {verdict(ratio, goal, at_most=False)}.")


def main() -> None:
    """Measure and print; `python -m benchmarks.triggers KIND SYSTEM` is one process of it."""
    _measure_next()
    _measure_many()


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(_child(*sys.argv[1:]))
    else:
        main()
