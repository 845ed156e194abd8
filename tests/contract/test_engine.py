"""What the engine promises about queued calls, on a real server; and the journal's on the store."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from redis import Redis

from dms_scheduler.engine import Call, EngineClient, EngineWorker, Holding
from dms_scheduler.journal import Journal
from task_state import StoreUnavailableError
from task_state.managed import ManagedTasks
from tests.contract.servers import RealServer
from tests.support.worker_process import Client, eventually

STREAM, GROUP = "dms-engine:stream", "docket-workers"


@pytest.fixture
async def engine(dms_redis_url: str) -> AsyncGenerator[EngineClient]:
    made = EngineClient(dms_redis_url)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def raw(dms_redis_url: str) -> Redis:
    return Redis.from_url(dms_redis_url)


class TestLooking:
    """The rescuer's question: does somebody take care of this call?"""

    async def test_unknown_and_queued_calls(self, engine: EngineClient) -> None:
        await engine.enqueue_many([Call("1", 1), Call("2", 1)])
        calls = [Call("1", 1), Call("2", 1), Call("3", 1), Call("1", 2)]
        held, absent = Holding.HELD, Holding.ABSENT
        assert await engine.look(calls) == [held, held, absent, absent]
        assert await engine.look([]) == []

    async def test_a_call_of_a_living_worker_is_held_and_of_a_dead_one_stranded(
        self, engine: EngineClient, raw: Redis
    ) -> None:
        await engine.enqueue_many([Call("1", 1), Call("2", 1)])
        seconds = int(str(raw.time()[0]))
        raw.zadd("dms-engine:workers", {"living": seconds, "frozen": seconds - 3600})
        raw.hset("dms-engine:runs:1:1", mapping={"state": "running", "worker": "living"})
        raw.hset("dms-engine:runs:2:1", mapping={"state": "running", "worker": "frozen"})
        found = await engine.look([Call("1", 1), Call("2", 1)])
        assert found == [Holding.HELD, Holding.STRANDED]

    async def test_a_call_lost_between_delivery_and_claim_is_stranded(
        self, engine: EngineClient, raw: Redis
    ) -> None:
        await engine.enqueue_many([Call("1", 1), Call("2", 1)])
        raw.xgroup_create(STREAM, GROUP, id="0")
        raw.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=1)
        found = await engine.look([Call("1", 1), Call("2", 1)])
        assert found == [Holding.STRANDED, Holding.HELD]
        await engine.enqueue_many([Call("1", 1)], replace=True)
        assert await engine.look([Call("1", 1)]) == [Holding.HELD]

    async def test_a_call_whose_message_is_gone_is_stranded(
        self, engine: EngineClient, raw: Redis
    ) -> None:
        await engine.enqueue_many([Call("1", 1)])
        raw.xtrim(STREAM, maxlen=0, approximate=False)
        assert await engine.look([Call("1", 1)]) == [Holding.STRANDED]

    async def test_cancel_withdraws(self, engine: EngineClient) -> None:
        await engine.enqueue_many([Call("1", 1), Call("2", 1)])
        for task_id in ("1", "2", "unknown"):
            await engine.cancel(task_id, 1)
        assert await engine.look([Call("1", 1), Call("2", 1)]) == [Holding.ABSENT] * 2


ASKS: dict[str, Callable[[EngineClient], Awaitable[object]]] = {
    "enqueue_many": lambda engine: engine.enqueue_many([Call("1", 1)]),
    "cancel": lambda engine: engine.cancel("1", 1),
    "look": lambda engine: engine.look([Call("1", 1)]),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
async def test_without_redis_every_request_fails_at_once(
    ask: Callable[[EngineClient], Awaitable[object]],
) -> None:
    server = RealServer("valkey")
    engine = EngineClient(server.url)
    await engine.start()
    try:
        with pytest.raises(StoreUnavailableError, match="check the server"):
            await ask(engine)
    finally:
        await engine.close()
        server.close()


async def test_a_worker_runs_each_call_once_and_ends_what_it_has_begun(
    engine: EngineClient, dms_redis_url: str
) -> None:
    ran: list[tuple[str, int]] = []
    go = asyncio.Event()

    async def run(task_id: str, epoch: int) -> None:
        ran.append((task_id, epoch))
        await go.wait()

    stop = asyncio.Event()
    worker = EngineWorker(dms_redis_url, name="w", concurrency=4, run=run)
    await engine.enqueue_many([Call("1", 1)])
    work = asyncio.create_task(worker.work(stop))
    await eventually(lambda: ran == [("1", 1)], "the call runs")
    await engine.enqueue_many([Call("1", 1)])
    await engine.enqueue_many([Call("1", 2)])
    await eventually(lambda: ran == [("1", 1), ("1", 2)], "the next epoch runs, no call twice")
    stop.set()
    await asyncio.sleep(0)
    assert not work.done()
    go.set()
    await work
    assert await engine.look([Call("1", 1), Call("1", 2)]) == [Holding.ABSENT] * 2


class LosesAnswers:
    """The store, but the answer to each first write is lost on its way back."""

    def __init__(self, managed: ManagedTasks) -> None:
        self._managed = managed
        self._lose = True

    async def append_logs(self, *args: Any, **kwargs: Any) -> None:
        await self._managed.append_logs(*args, **kwargs)
        self._lose = not self._lose
        if not self._lose:
            raise StoreUnavailableError("the answer was lost")


async def test_a_line_whose_answer_was_lost_is_not_written_twice(dms_redis_url: str) -> None:
    async with Client(dms_redis_url) as client:
        task = await client.managed.submit(service="s", user_id="u", parameters={})
        await client.managed.begin(task.task_id, 1, worker="w")
        store: Any = LosesAnswers(client.managed)
        journal = Journal(store, task.task_id, 1, output_limit=1000)
        for number in range(2500):
            journal.line(f"line {number}")
        journal.output("끝".encode()[:2])
        journal.output("끝".encode()[2:])
        await journal.flush()
        journal.line("last")
        await journal.flush()
        record = await client.get(task.task_id)
        output = await client.repository.get_launcher_output(task.task_id)
    assert record.logs_total == 2501
    assert record.logs[-1].endswith(",last")
    assert output == "끝"


async def test_begin_repeated_by_the_same_worker_is_the_same_attempt(dms_redis_url: str) -> None:
    async with Client(dms_redis_url) as client:
        task = await client.managed.submit(service="s", user_id="u", parameters={})
        first = await client.managed.begin(task.task_id, 1, worker="w", log_entry="started")
        again = await client.managed.begin(task.task_id, 1, worker="w", log_entry="started")
        other = await client.managed.begin(task.task_id, 1, worker="other")
        record = await client.get(task.task_id)
    assert first is not None
    assert again is not None
    assert again.task.attempts == first.task.attempts == 1
    assert other is None
    assert record.logs_total == 1
