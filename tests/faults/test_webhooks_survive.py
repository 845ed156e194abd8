"""Webhooks while Redis and frontends die: what is done is not done twice, and a repeat heals."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from app.core.errors import DmsError
from app.core.metrics import Metrics
from app.event_system import BrokerUnavailableError, Subscription
from app.event_system.infrastructure import RedisBroker
from app.services.tasks import TaskService
from app.services.webhooks import Answer, WebhookReceived, WebhookService
from task_state import Paging, StoreUnavailableError
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.contract.servers import RealServer, running
from tests.support.events import take_acked
from tests.support.frontend import API, eventually, make_settings, running_frontend
from tests.support.frontend_process import FrontendProcess, frontend_process
from tests.support.servers import PERSISTENT, quiet_port, valkey
from tests.support.webhooks import PAYLOAD, Sent, by_github, webhooks_file

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@asynccontextmanager
async def webhooks(
    folder: Path, store: RealServer, broker: RealServer
) -> AsyncGenerator[WebhookService]:
    """The service with its tasks on one server and its events on another."""
    provider = RedisRepositoryProvider(
        RedisRepositorySettings(write_url=store.url, timeout_seconds=10)
    )
    async with RedisBroker(broker.url, timeout=10) as carrier:
        service = WebhookService(
            webhooks_file(folder),
            TaskService(provider, timeout_seconds=10),
            carrier,
            Metrics(),
            timeout_seconds=20,
        )
        await service.start()
        try:
            yield service
        finally:
            await service.stop()
            await provider.close()


async def deliver(service: WebhookService, sent: Sent) -> Answer:
    """A delivery that reached the service."""
    call = service.authenticate("deploys", sent.lines, sent.body)
    return await service.receive(call, lambda: PAYLOAD)


async def _task_ids(server: RealServer) -> list[str]:
    settings = RedisRepositorySettings(write_url=server.url, timeout_seconds=30)
    provider = RedisRepositoryProvider(settings)
    repository = await provider.get_repository()
    try:
        return [task.task_id for task in await repository.list_all(Paging(limit=200))]
    finally:
        await provider.close()


async def test_the_task_is_stored_and_the_broker_is_away(tmp_path: Path) -> None:
    with running("valkey") as store, running("valkey", *DURABLE) as broker:
        async with (
            RedisBroker(broker.url, timeout=30) as consuming,
            webhooks(tmp_path, store, broker) as service,
        ):
            events = await consuming.consumer().subscribe("**", WebhookReceived, group="t")
            sent = by_github()
            broker.kill()
            with pytest.raises(BrokerUnavailableError):
                await deliver(service, sent)
            (task_id,) = await _task_ids(store)
            broker.start()
            answers = [await deliver(service, sent) for _ in range(3)]
            assert {answer.task_id for answer in answers} == {task_id}
            assert await _task_ids(store) == [task_id]
            assert [event.task_id for event in await _until_quiet(consuming, events)] == [task_id]
            assert service.status("deploys").trigger_count == 1


async def test_the_store_is_away_and_nothing_is_published(tmp_path: Path) -> None:
    with running("valkey", *DURABLE) as store, running("valkey") as broker:
        async with (
            RedisBroker(broker.url, timeout=30) as consuming,
            webhooks(tmp_path, store, broker) as service,
        ):
            events = await consuming.consumer().subscribe("**", WebhookReceived, group="t")
            sent = by_github()
            store.kill()
            with pytest.raises(StoreUnavailableError):
                await deliver(service, sent)
            assert await _until_quiet(consuming, events) == []
            store.start()
            answer = await deliver(service, sent)
            assert await _task_ids(store) == [answer.task_id]
            (event,) = await _until_quiet(consuming, events)
            assert event.task_id == answer.task_id


async def test_after_its_stop_it_asks_for_a_repeat(tmp_path: Path) -> None:
    with running("valkey") as server:
        async with webhooks(tmp_path, server, server) as service:
            await service.stop()
            with pytest.raises(DmsError, match="repeat the delivery"):
                await deliver(service, by_github())
            assert not service.status("deploys").running


async def _until_quiet(
    broker: RedisBroker, events: Subscription[WebhookReceived]
) -> list[WebhookReceived]:
    """All that was published so far: the group's queue is read until it is empty."""

    async def left() -> int:
        (queue,) = await broker.queues()
        return queue.waiting + queue.unsettled

    found: list[WebhookReceived] = []
    while count := await left():
        found += await take_acked(events, count)
    return found


async def test_without_redis_it_is_503_in_time_and_works_again(tmp_path: Path) -> None:
    port = quiet_port()
    settings = make_settings(
        f"redis://127.0.0.1:{port}/0",
        webhooks_file=webhooks_file(tmp_path),
        redis_timeout_seconds=1,
    )
    async with running_frontend(settings) as frontend:
        url, sent = f"{API}/webhooks/deploys/trigger", by_github()

        async def status(sent: Sent) -> int:
            answer = await frontend.client.post(url, content=sent.body, headers=sent.lines)
            return answer.status_code

        assert await status(sent) == 503
        assert await status(by_github(secret="x" * 20)) == 401
        assert await status(by_github(event="ping")) == 200
        assert await asyncio.gather(*(status(sent) for _ in range(20))) == [503] * 20
        with valkey(tmp_path, port, PERSISTENT):
            await eventually(lambda: _is(status, sent, 202))


async def _is(status: Callable[[Sent], object], sent: Sent, wanted: int) -> bool:
    answer = status(sent)
    assert asyncio.iscoroutine(answer)
    return await answer == wanted


async def test_frontends_killed_under_load_do_everything_once(
    dms_redis_url: str, dms_repository: RedisTaskRepository, tmp_path: Path
) -> None:
    """A sender repeats each delivery until it is answered; each is one task and one event."""
    sends = [by_github(delivery=f"d-{number}") for number in range(60)]
    answered: dict[int, str] = {}
    variables = {
        "DMS_WEBHOOKS_FILE": str(webhooks_file(tmp_path)),
        "DMS_REDIS_TIMEOUT_SECONDS": "20",
    }
    async with RedisBroker(dms_redis_url, timeout=30) as broker:
        events = await broker.consumer().subscribe("ci.*", WebhookReceived, group="all")
        for rounds in (1, 2, 3):
            async with frontend_process(dms_redis_url, **variables) as frontend:
                sending = asyncio.create_task(_send_all(frontend, sends, answered))
                if rounds < 3:
                    await eventually(lambda rounds=rounds: len(answered) >= 15 * rounds)
                    await frontend.end(signal.SIGKILL)
                await sending
        got = await _until_quiet(broker, events)
    assert len(answered) == len(sends)
    tasks = await dms_repository.list_all(Paging(limit=200))
    assert sorted(task.task_id for task in tasks) == sorted(answered.values())
    assert {event.task_id: event.delivery for event in got} == {
        task_id: f"d-{number}" for number, task_id in answered.items()
    }
    assert len(got) == len(sends)


async def _send_all(frontend: FrontendProcess, sends: list[Sent], answered: dict[int, str]) -> None:
    """All of them, those that were answered too, several at once; stop where the frontend dies."""
    url = f"{frontend.api_prefix}/webhooks/deploys/trigger"
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:

        async def one(number: int) -> None:
            sent = sends[number]
            response = await client.post(url, content=sent.body, headers=sent.lines)
            assert response.status_code == 202, response.text
            task_id = response.json()["task_id"]
            assert answered.setdefault(number, task_id) == task_id

        for start in range(0, len(sends), 5):
            some = [one(number) for number in range(start, start + 5)]
            results = await asyncio.gather(*some, return_exceptions=True)
            for result in results:
                if isinstance(result, httpx2.TransportError):
                    return
                if result is not None:
                    raise result
