"""The event system: topics, events in memory, events through Redis, each beside something plain.

FastStream is compared with when it is installed: `pip install "faststream[redis]"`.
"""

import asyncio
import importlib
import importlib.util
import random
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

from redis.asyncio import Redis

from app.event_system import EventBase, Subscription, TopicTrie
from app.event_system.infrastructure import InMemoryBroker, RedisBroker
from benchmarks.server import valkey
from benchmarks.table import print_table, verdict

ROUNDS = 7
PATTERNS = 10_000
TOPICS = 20
IN_MEMORY = 40_000
FAN_OUT = 100
PUBLISHED = 5_000
CONSUMED = 20_000
SHORT = 2_000
"""How many events FastStream gets: the time of one is what counts."""

HEAD = ("what", "plain µs", "ours µs", "ratio", "goal", "")
Row = tuple[str, str, str, str, str, str]


class Measured(EventBase):
    """An event such as they are: a few fields of its own."""

    service: str = "sync"
    rows: int = 0
    message: str = "a line of text that says what happened"


def main() -> None:
    """Measure it all, and print the table."""
    rows = [_topics(), *asyncio.run(_memory())]
    with valkey() as url:
        rows += asyncio.run(_redis(url))
    print_table(f"Events: medians of {ROUNDS} rounds in turns", HEAD, rows)


def _row(what: str, pairs: Iterable[tuple[float, float]], goal: float | None) -> Row:
    """The medians of both, and of their ratio: how many times quicker ours is."""
    pairs = list(pairs)
    plain, ours = (statistics.median(each) * 1e6 for each in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / own for theirs, own in pairs)
    wanted = "" if goal is None else f">= {goal:g}"
    met = "" if goal is None else verdict(ratio, goal, at_most=False)
    return what, f"{plain:.2f}", f"{ours:.2f}", f"{ratio:.2f}", wanted, met


# ------------------------------------------------------------------------------------------- topics
def _patterns() -> list[str]:
    dice = random.Random(7)
    names = [f"name{number}" for number in range(40)]

    def part() -> str:
        return dice.choices([dice.choice(names), "*", "**"], [8, 1, 1])[0]

    found: set[str] = set()
    while len(found) < PATTERNS:
        parts = [part() for _ in range(dice.randint(2, 6))]
        if parts.count("**") <= 1:
            found.add(".".join([f"root{dice.randrange(200)}", *parts]))
    return sorted(found)


def _expression(pattern: str) -> re.Pattern[str]:
    pieces = {"*": r"[^.]+\.", "**": r"(?:[^.]+\.)*"}
    parts = pattern.split(".")
    return re.compile("".join(pieces.get(part, re.escape(part) + r"\.") for part in parts))


def _topics() -> Row:
    """Topics that were not asked for before: the answers that are remembered are no measure."""
    patterns = _patterns()
    trie: TopicTrie[str] = TopicTrie(cache_size=1)
    for pattern in patterns:
        trie.add(pattern, pattern)
    expressions = [(pattern, _expression(pattern).fullmatch) for pattern in patterns]
    topics = [
        re.sub(r"\*+", "name1", pattern) for pattern in random.Random(1).sample(patterns, TOPICS)
    ]

    def scan(topic: str) -> set[str]:
        dotted = topic + "."
        return {pattern for pattern, fits in expressions if fits(dotted)}

    for topic in topics:
        assert set(trie.match(topic)) == scan(topic)
    pairs: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        plain = _each(scan, topics)
        pairs.append((plain, _each(trie.match, topics * 50)))
    return _row(f"find a topic among {PATTERNS} patterns (a scan with re)", pairs, 300)


def _each(call: Callable[[str], object], topics: list[str]) -> float:
    start = time.perf_counter()
    for topic in topics:
        call(topic)
    return (time.perf_counter() - start) / len(topics)


# ---------------------------------------------------------------------------------------- in memory
async def _memory() -> list[Row]:
    cases = [
        ("in memory 1 to 1: `events()` (asyncio.Queue)", 1, _take_events, 1.0),
        (f"in memory 1 to {FAN_OUT}: `events()` ({FAN_OUT} queues)", FAN_OUT, _take_events, 3.0),
        ("in memory 1 to 1: deliveries, each acknowledged", 1, _take_deliveries, None),
        (f"in memory 1 to {FAN_OUT}: deliveries", FAN_OUT, _take_deliveries, None),
        ("in memory 1 to 1: `batches()`", 1, _take_batches, None),
        (f"in memory 1 to {FAN_OUT}: `batches()`", FAN_OUT, _take_batches, 3.0),
    ]
    rows: list[Row] = []
    for what, width, taking, goal in cases:
        count = IN_MEMORY // width
        pairs = [
            (await _raw_queues(width, count), await _in_memory(width, count, taking))
            for _ in range(ROUNDS)
        ]
        rows.append(_row(what, pairs, goal))
    return rows


async def _raw_queues(width: int, count: int) -> float:
    queues: list[asyncio.Queue[EventBase]] = [asyncio.Queue(1000) for _ in range(width)]
    event = Measured(topic="bench.event")

    async def put() -> None:
        for _ in range(count):
            for queue in queues:
                await queue.put(event)

    async def get(queue: asyncio.Queue[EventBase]) -> None:
        for _ in range(count):
            await queue.get()

    return await _timed(width * count, put(), *(get(queue) for queue in queues))


Taking = Callable[[Subscription[EventBase], int], Awaitable[None]]


async def _in_memory(width: int, count: int, taking: Taking) -> float:
    async with InMemoryBroker() as broker:
        publisher, consumer = broker.publisher(), broker.consumer()
        members = [await consumer.subscribe("bench.*") for _ in range(width)]
        event = Measured(topic="bench.event")

        async def put() -> None:
            for _ in range(count):
                await publisher.publish("bench.event", event)

        return await _timed(width * count, put(), *(taking(each, count) for each in members))


async def _take_events(subscription: Subscription[EventBase], count: int) -> None:
    left = count
    async with aclosing(subscription.events()) as events:
        async for _ in events:
            left -= 1
            if not left:
                return


async def _take_batches(subscription: Subscription[EventBase], count: int) -> None:
    left = count
    async with aclosing(subscription.batches()) as batches:
        async for batch in batches:
            for _ in batch:
                left -= 1
            if not left:
                return


async def _take_deliveries(subscription: Subscription[EventBase], count: int) -> None:
    left = count
    async for delivery in subscription:
        delivery.ack()
        left -= 1
        if not left:
            return


async def _timed(count: int, *work: Awaitable[Any]) -> float:
    start = time.perf_counter()
    await asyncio.gather(*work)
    return (time.perf_counter() - start) / count


# ------------------------------------------------------------------------------------ through Redis
async def _redis(url: str) -> list[Row]:
    publishing: list[tuple[float, float]] = []
    batches: list[tuple[float, float]] = []
    consuming: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        xadd = await _xadd_loop(url)
        ours, at_once, consumed = await _through_redis(url)
        publishing.append((xadd, ours))
        batches.append((xadd, at_once))
        if importlib.util.find_spec("faststream"):
            consuming.append((await _faststream(url), consumed))
        else:
            consuming.append((float("nan"), consumed))
    goal = 10 if importlib.util.find_spec("faststream") else None
    return [
        _row("Redis: publish, 100 at a time (serial XADD)", publishing, 4),
        _row("Redis: publish_many (serial XADD)", batches, None),
        _row("Redis: consume and acknowledge (FastStream)", consuming, goal),
    ]


async def _xadd_loop(url: str) -> float:
    async with Redis.from_url(url) as client:
        await client.flushall()
        payload = Measured(topic="bench.event").model_dump_json()
        start = time.perf_counter()
        for _ in range(SHORT):
            await client.xadd("plain", {"e": payload})
        return (time.perf_counter() - start) / SHORT


async def _through_redis(url: str) -> tuple[float, float, float]:
    """Seconds for each event: published by a hundred at once, published together, consumed."""
    async with RedisBroker(url) as broker:
        consumer, publisher = broker.consumer(), broker.publisher()
        await (await consumer.subscribe("bench.*", group="team")).close()

        async def publish(own: list[Measured]) -> None:
            for event in own:
                await publisher.publish("bench.event", event)

        events = [Measured(topic="bench.event") for _ in range(CONSUMED)]
        singly, rest = events[:PUBLISHED], events[PUBLISHED:]
        one_by_one = await _timed(PUBLISHED, *(publish(singly[n::100]) for n in range(100)))
        together = await _timed(len(rest), publisher.publish_many(rest))
        start = time.perf_counter()
        subscription = await consumer.subscribe("bench.*", group="team")
        await _take_deliveries(subscription, CONSUMED)
        await subscription.flush()
        return one_by_one, together, (time.perf_counter() - start) / CONSUMED


async def _faststream(url: str) -> float:
    """The same work for FastStream: events of the same model in one stream, a group, batches of as
    many as ours reads ahead."""
    parts: Any = importlib.import_module("faststream.redis")
    broker: Any = parts.RedisBroker(url, logger=None)
    done = asyncio.Event()
    left = SHORT

    async def handle(event: Measured) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    stream = parts.StreamSub("faststream", group="team", consumer="one", max_records=200)
    broker.subscriber(stream=stream)(handle)
    async with Redis.from_url(url) as client:
        await client.delete("faststream")
        await client.xgroup_create("faststream", "team", "0", mkstream=True)
    await broker.connect()
    for _ in range(SHORT):
        await broker.publish(Measured(topic="bench.event"), stream="faststream")
    start = time.perf_counter()
    await broker.start()
    await done.wait()
    taken = (time.perf_counter() - start) / SHORT
    await broker.stop()
    return taken
