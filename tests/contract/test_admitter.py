"""The admitter on a real store and engine: what may start is queued, soon, whatever is away."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import pytest
from redis import Redis

from dms_scheduler.admitter import Admitter, policies
from dms_scheduler.engine import Call, EngineClient, Holding
from task_state import StoreUnavailableError, keys
from task_state.admission import Policy
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from tests.contract.servers import RealServer
from tests.support import handlers
from tests.support.worker_process import Client, eventually


@pytest.fixture
async def client(dms_redis_url: str) -> AsyncGenerator[Client]:
    async with Client(dms_redis_url) as made:
        yield made


@pytest.fixture
def server() -> Generator[RealServer]:
    """A server with its data on disk, to be killed and started again."""
    made = RealServer("valkey", "--appendonly", "yes", "--appendfsync", "always")
    made.start()
    yield made
    made.close()


async def waiting(client: Client, service: str = "t.add", user: str = "hong") -> str:
    """A task that was accepted, and about which nobody was told."""
    task = await client.managed.submit(service=service, user_id=user, parameters={})
    await client.managed.accept(task.task_id)
    return task.task_id


async def queued(client: Client, task_id: str, epoch: int = 1) -> bool:
    """Whether the engine has the call."""
    return await client.engine.look([Call(task_id, epoch)]) == [Holding.HELD]


@asynccontextmanager
async def running(admitter: Admitter) -> AsyncGenerator[None]:
    """The admitter at work."""
    task = asyncio.create_task(admitter.run())
    try:
        yield
    finally:
        assert not task.done(), "it never ends by itself"
        await admitter.end(task)
        assert task.done()
        assert task.exception() is None, "it was not cut off"


async def test_a_round_queues_all_that_may_start(
    dms_provider: RedisRepositoryProvider, client: Client
) -> None:
    ids = [await waiting(client) for _ in range(250)]
    admitter = Admitter(dms_provider, client.engine, worker="w", slots=240)
    assert await admitter.round() is None
    found = await client.engine.look([Call(task_id, 1) for task_id in ids])
    assert found == [Holding.HELD] * 240 + [Holding.ABSENT] * 10


async def test_it_follows_wakes_and_the_time_of_what_was_put_off(
    dms_provider: RedisRepositoryProvider, client: Client
) -> None:
    admitter = Admitter(dms_provider, client.engine, worker="w", slots=1)
    async with running(admitter):
        task_id = await waiting(client)
        admitter.wake()
        await eventually(lambda: queued(client, task_id), "it was let through")
        await client.managed.begin(task_id, 1, worker="w", admitted=True)
        await client.managed.retry(task_id, 1, delay_seconds=0.3)
        admitter.wake()
        await eventually(lambda: queued(client, task_id, 2), "its time came")


async def test_many_wakes_are_one_look(
    dms_provider: RedisRepositoryProvider, client: Client, dms_redis_url: str
) -> None:
    admitter = Admitter(dms_provider, client.engine)
    await admitter.round()
    with Redis.from_url(dms_redis_url) as server:
        before = server.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
        for _ in range(1000):
            admitter.wake()
        await admitter.round()
        after = server.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert after - before == 1


async def test_a_worker_of_short_attempts_gets_some_ahead_and_one_of_long_ones_none(
    dms_provider: RedisRepositoryProvider, client: Client, dms_redis_url: str
) -> None:
    now = 1000.0
    admitter = Admitter(dms_provider, client.engine, worker="w", slots=4, clock=lambda: now)
    ids = [await waiting(client) for _ in range(20)]

    async def admitted() -> int:
        await admitter.round()
        with Redis.from_url(dms_redis_url) as server:
            return int(server.zcard(keys.QUEUED))

    assert await admitted() == 4
    admitter.ended()
    assert await admitted() == 5
    for _ in range(10):
        admitter.ended()
    assert await admitted() == 6, "half as many at most"
    now += 0.2
    await client.managed.cancel(ids[0])
    assert await admitted() == 5, "its time is over"
    single = Admitter(dms_provider, client.engine, worker="single", slots=1, clock=lambda: now)
    single.ended()
    await single.round()
    await client.managed.cancel(ids[1])
    await client.managed.cancel(ids[2])
    assert await admitted() == 5, "four, and the single one"


async def test_who_leaves_takes_its_slots_along_and_still_lets_others_work(
    dms_provider: RedisRepositoryProvider, client: Client, dms_redis_url: str
) -> None:
    leaving = Admitter(dms_provider, client.engine, worker="leaving", slots=5)
    await leaving.round()
    await leaving.leave()
    first, second = await waiting(client), await waiting(client)
    await leaving.round()
    with Redis.from_url(dms_redis_url) as server:
        assert server.hlen(keys.WORKERS) == 0
    assert not await queued(client, first)
    await client.offer_slots(1)
    await leaving.round()
    assert await queued(client, first)
    assert not await queued(client, second)


async def test_the_end_waits_for_the_round_that_is_under_way(
    dms_provider: RedisRepositoryProvider, client: Client, dms_redis_url: str
) -> None:
    await client.offer_slots(1)
    task_id = await waiting(client)
    admitter = Admitter(dms_provider, client.engine)
    with Redis.from_url(dms_redis_url) as server:

        async def admitted() -> bool:
            return bool(server.zcard(keys.QUEUED))

        task = asyncio.create_task(admitter.run())
        await eventually(admitted, "it was admitted, and is perhaps not queued yet")
        await admitter.end(task)
    assert await queued(client, task_id)


async def test_what_could_not_be_queued_is_queued_in_the_next_round(
    dms_provider: RedisRepositoryProvider, client: Client
) -> None:
    """The store answered, the engine's Redis did not."""
    await client.offer_slots(1)
    task_id = await waiting(client)
    away = RealServer("valkey")
    engine = EngineClient(away.url)
    await engine.start()
    try:
        admitter = Admitter(dms_provider, engine)
        with pytest.raises(StoreUnavailableError):
            await admitter.round()
        assert await client.admission.position(await client.get(task_id)) == 1
        away.start()
        await admitter.round()
        assert await engine.look([Call(task_id, 1)]) == [Holding.HELD]
    finally:
        await engine.close()
        away.close()


async def test_it_outlives_redis(server: RealServer) -> None:
    async with Client(server.url) as client:
        provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=server.url))
        admitter = Admitter(provider, client.engine, worker="w", slots=2)
        async with running(admitter):
            first, second = await waiting(client), await waiting(client)
            admitter.wake()
            await eventually(lambda: queued(client, second), "both were let through")
            server.kill()
            admitter.wake()
            with pytest.raises(StoreUnavailableError):
                await client.admission.states()
            server.start()

            async def again() -> bool:
                try:
                    return await queued(client, first)
                except StoreUnavailableError:
                    return False

            await eventually(again, "Redis is back, with all it had")
            await client.managed.cancel(first)
            third = await waiting(client)
            await eventually(lambda: queued(client, third), "the free slot was given to the next")
        await provider.close()


def test_policies_are_those_of_the_definitions() -> None:
    assert handlers.__name__ == "tests.support.handlers"
    chosen = policies()
    assert chosen["t.add"] == Policy()
    assert chosen["t.first"] == Policy(priority=10)
    assert chosen["t.two-at-once"] == Policy(concurrency_limit=2)
    assert chosen["t.one-a-user"] == Policy(per_user_limit=1)
