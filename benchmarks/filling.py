"""Fills a store with finished tasks as if they had come over months: the real script, many a call.

`save` is made a function of its arguments and of the clock, and writes each task as its real life
(submit, begin, log, finish) would have left it; tests/contract/test_filling.py compares the two.
"""

import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from redis import Redis

from task_state import keys
from task_state._codec import encode_json, present
from task_state._scripts import script
from task_state.redis import NINETY_DAYS
from task_state.timezone import from_microseconds

DAYS = 85
LINES = 8
SERVICES = ["sync"] * 5 + ["copy"] * 3 + ["check", "rm"]
USERS = 200
STATES = ["COMPLETED"] * 90 + ["FAILED"] * 7 + ["CANCELLED"] * 3
PROCESSES = 3
_BATCH = 50
_CLOCK = "local clock = call('TIME')"
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND


@dataclass(frozen=True, slots=True)
class Part:
    """What one process writes: `count` tasks, one each `step` µs from `start` (µs) on."""

    url: str
    count: int
    start: int
    step: int
    seed: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A task with its end: what `save` is asked to write, and at what time (µs)."""

    arguments: list[str]
    ended_at: int


def source() -> str:
    """A script that saves many records: ARGV is a list of {seconds, µs, number, ARGV of `save`}."""
    return "\n".join(
        [
            "local function save(ARGV, clock)",
            script("save").source.replace(_CLOCK, ""),
            "end",
            "local at = 1",
            "while at <= #ARGV do",
            "  local n = tonumber(ARGV[at + 2])",
            "  save({unpack(ARGV, at + 3, at + 2 + n)}, {ARGV[at], ARGV[at + 1]})",
            "  at = at + 3 + n",
            "end",
        ]
    )


def call_arguments(tasks: list[Finished]) -> list[str]:
    """The ARGV of `source()` for those tasks."""
    call: list[str] = []
    for task in tasks:
        seconds, rest = divmod(task.ended_at, _SECOND)
        whole = [keys.PREFIX, str(NINETY_DAYS * 1000), *task.arguments]
        call += [str(seconds), str(rest), str(len(whole)), *whole]
    return call


def lines(at: int) -> list[str]:
    """Eight formatted log lines with a message of 60 characters each."""
    stamp = from_microseconds(at).isoformat(timespec="microseconds")
    return [
        f"{stamp},{f'copied /data/projects/alpha/run-{at % 97:03}/part-{number}.parquet':.<60.60}"
        for number in range(LINES)
    ]


def parameters(rng: random.Random) -> dict[str, str]:
    """Those of a copy within a site: about a hundred bytes of JSON."""
    folder = f"run-{rng.randrange(10_000):04}"
    return {
        "src": f"/data/projects/alpha/{folder}",
        "dst": f"/data/backup/alpha/{folder}",
        "compare": "size_mtime",
    }


def result(rng: random.Random) -> dict[str, int]:
    """What a task that went well leaves."""
    return {"files": rng.randrange(10_000), "bytes": rng.randrange(10**12)}


def finished(rng: random.Random, at: int) -> Finished:
    """A managed task submitted at `at` (µs), with one attempt that ended within half an hour."""
    end, logged = rng.choice(STATES), lines(at)
    service, user = rng.choice(SERVICES), f"user-{rng.randrange(USERS):03}"
    ended_at = at + rng.randrange(2, 1800) * _SECOND
    left = ["data", encode_json(result(rng), "data")]
    fields = [
        *("managed", "1", "parameters", encode_json(parameters(rng), "parameters")),
        *("max_attempts", "3", "epoch", "1", "attempts", "1", "revision", "3", "batch", "1.1"),
        *("started_at", str(at + _SECOND), "completed_at", str(ended_at)),
        *(left if end == "COMPLETED" else ["error", "exit status 1"]),
    ]
    head = [str(at), "", service, user, end, str(at), "", "", str(len(logged))]
    return Finished([*head, *logged, *present(fields)], ended_at)


def _batches(part: Part) -> Iterator[list[Finished]]:
    rng = random.Random(part.seed)
    for first in range(0, part.count, _BATCH):
        numbers = range(first, min(first + _BATCH, part.count))
        yield [finished(rng, part.start + number * part.step) for number in numbers]


def _write(part: Part) -> None:
    with Redis.from_url(part.url, protocol=2) as client:
        sha = str(client.script_load(source()))
        for batch in _batches(part):
            client.evalsha(sha, 1, keys.SCHEMA, *call_arguments(batch))
            client.xtrim(keys.OUTBOX, maxlen=1000)  # as if every consumer were done with it


def fill(url: str, count: int, seed: int = 0) -> None:
    """Add `count` finished tasks, evenly spread over the last 85 days. Another `seed` puts them
    between those that are there."""
    start = time.time_ns() // 1000 - DAYS * _DAY
    each = -(-count // PROCESSES)
    step = DAYS * _DAY // each
    parts = [
        Part(
            url,
            min(each, count - index * each),
            start + index * step // PROCESSES + seed,
            step,
            seed * PROCESSES + index,
        )
        for index in range(PROCESSES)
    ]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.map(_write, parts)
