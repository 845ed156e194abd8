"""The scheduler service's routes on a real store: what it takes, refuses and withdraws."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from redis import Redis

from app.core.config import Settings
from app.tasks import TaskLoadError
from dms_scheduler.engine import Call, Holding
from dms_scheduler.main import create_app
from task_state import TaskRecord, TaskStatus, keys
from tests.contract.servers import RealServer
from tests.support.worker_process import Client, eventually


@asynccontextmanager
async def serving(
    url: str, task_modules: list[str] | None = None
) -> AsyncGenerator[httpx2.AsyncClient]:
    """The application with its lifespan, called without a socket."""
    settings = Settings(
        redis_write_url=url,
        lease_seconds=4,
        heartbeat_seconds=1,
        task_modules=["tests.support.handlers"] if task_modules is None else task_modules,
    )
    app = create_app(settings)
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://dms-scheduler") as http,
    ):
        yield http


@pytest.fixture
async def http(dms_redis_url: str) -> AsyncGenerator[httpx2.AsyncClient]:
    async with serving(dms_redis_url) as made:
        yield made


@pytest.fixture
async def client(dms_redis_url: str) -> AsyncGenerator[Client]:
    async with Client(dms_redis_url) as made:
        yield made


async def submitted(client: Client, service: str = "t.add") -> dict[str, Any]:
    """The body that the frontend sends for a new task."""
    parameters = {"first": "1"}
    task = await client.managed.submit(service=service, user_id="hong", parameters=parameters)
    return body(task.task_id, service) | {"parameters": parameters}


def body(task_id: str, service: str = "t.add") -> dict[str, Any]:
    return {"task_id": task_id, "service": service, "user_id": "hong"}


async def is_queued(client: Client, task_id: str) -> bool:
    """Whether the engine has the task's first call."""
    return await client.engine.look([Call(task_id, 1)]) == [Holding.HELD]


async def test_a_task_is_queued_once(http: httpx2.AsyncClient, client: Client) -> None:
    await client.offer_slots(2)
    task = await submitted(client)
    for _ in range(2):
        answer = await http.post("/task", json=task, headers={"Idempotency-Key": task["task_id"]})
        assert (answer.status_code, answer.json()) == (202, {"status": "QUEUED"})
    await eventually(lambda: is_queued(client, task["task_id"]), "its call is queued")
    with Redis.from_url(client.url) as server:
        assert server.zrange(keys.QUEUED, 0, -1) == [task["task_id"].encode()]
    assert await client.engine.look([Call(task["task_id"], 2)]) == [Holding.ABSENT]


async def test_a_task_that_is_taken_wakes_the_admitter(
    dms_redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own rounds are an hour apart here."""
    monkeypatch.setattr("dms_scheduler.admitter._PERIOD_SECONDS", 3600.0)
    await client.offer_slots(1)
    async with serving(dms_redis_url) as http:
        await http.get("/readyz")
        task = await submitted(client)
        await http.post("/task", json=task)
        await eventually(lambda: is_queued(client, task["task_id"]), "its call is queued")


async def test_without_a_worker_a_task_waits_in_its_lane(
    http: httpx2.AsyncClient, client: Client
) -> None:
    task = await submitted(client)
    assert (await http.post("/task", json=task)).json() == {"status": "QUEUED"}
    assert await client.admission.position(await client.get(task["task_id"])) == 1
    assert not await is_queued(client, task["task_id"])
    await client.offer_slots(1)
    await eventually(lambda: is_queued(client, task["task_id"]), "its call is queued")


async def test_a_running_or_ended_task_is_a_no_op(http: httpx2.AsyncClient, client: Client) -> None:
    task = await submitted(client)
    await client.managed.begin(task["task_id"], 1, worker="w")
    running = await http.post("/task", json=task)
    await client.managed.finish(task["task_id"], 1, TaskStatus.COMPLETED)
    ended = await http.post("/task", json=task)
    assert (running.status_code, running.json()) == (200, {"status": "RUNNING"})
    assert (ended.status_code, ended.json()) == (200, {"status": "COMPLETED"})
    assert await client.engine.look([Call(task["task_id"], 2)]) == [Holding.ABSENT]


async def test_an_unknown_service_is_404_with_what_is_known(
    http: httpx2.AsyncClient, client: Client
) -> None:
    answer = await http.post("/task", json=await submitted(client, "nobody"))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "'nobody'" in answer.json()["detail"]
    assert "t.add" in answer.json()["detail"]
    assert "sync" in answer.json()["detail"]


async def test_a_task_that_is_not_there_or_not_ours_is_refused(
    http: httpx2.AsyncClient, client: Client
) -> None:
    missing = await http.post("/task", json=body("12345"))
    record = TaskRecord(task_id="external-1", service="t.add", user_id="hong")
    await client.repository.save(record)
    foreign = await http.post("/task", json=body("external-1"))
    assert (missing.status_code, foreign.status_code) == (404, 422)
    assert await client.engine.look([Call("external-1", 1)]) == [Holding.ABSENT]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {**body("1"), "status": "COMPLETED"},
        body("a:b"),
        body("1", "with space"),
        {**body("1"), "parameters": [1]},
    ],
)
async def test_a_body_that_means_nothing_is_422(
    http: httpx2.AsyncClient, wrong: dict[str, Any]
) -> None:
    for route in ("/task", "/cancel"):
        assert (await http.post(route, json=wrong)).status_code == 422


async def test_a_web_page_of_another_site_cannot_write(
    http: httpx2.AsyncClient, client: Client
) -> None:
    task = await submitted(client)
    answer = await http.post("/task", json=task, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    rebound = await http.post("/task", json=task, headers={"Host": "evil.example"})
    assert rebound.status_code == 421


async def test_cancel_withdraws_what_waits(http: httpx2.AsyncClient, client: Client) -> None:
    await client.offer_slots(1)
    task = await submitted(client)
    await http.post("/task", json=task)
    await eventually(lambda: is_queued(client, task["task_id"]), "its call is queued")
    answer = await http.post("/cancel", json=body(task["task_id"]))
    assert answer.json() == {"status": "CANCELLED"}
    assert await client.engine.look([Call(task["task_id"], 1)]) == [Holding.ABSENT]
    again = await http.post("/cancel", json=body(task["task_id"]))
    assert again.json() == {"status": "CANCELLED"}


async def test_cancel_asks_a_running_task_and_leaves_an_ended_one(
    http: httpx2.AsyncClient, client: Client
) -> None:
    task = await submitted(client)
    await client.managed.begin(task["task_id"], 1, worker="w")
    asked = await http.post("/cancel", json=body(task["task_id"]))
    assert asked.json() == {"status": "CANCEL_REQUESTED"}
    await client.managed.finish(task["task_id"], 1, TaskStatus.COMPLETED)
    late = await http.post("/cancel", json=body(task["task_id"]))
    assert (late.status_code, late.json()) == (200, {"status": "COMPLETED"})


async def test_cancel_of_another_users_task_is_404(
    http: httpx2.AsyncClient, client: Client
) -> None:
    task = await submitted(client)
    answer = await http.post("/cancel", json={**body(task["task_id"]), "user_id": "kim"})
    assert answer.status_code == 404
    assert (await client.get(task["task_id"])).status is TaskStatus.PENDING


async def test_definitions_say_what_can_be_run(http: httpx2.AsyncClient) -> None:
    listed = {each["id"]: each for each in (await http.get("/definitions")).json()["definitions"]}
    assert listed["sync"]["isolation"] == "process"
    assert listed["sync"]["parameters"]["required"] == ["src", "dst"]
    assert listed["t.add"]["parameters"]["additionalProperties"] is False
    assert listed["t.add-inline"]["isolation"] == "inline"
    assert listed["t.fail"]["max_attempts"] == 2
    assert listed["t.timeout"]["timeout_seconds"] == 0.3
    assert listed["t.timeout"]["parameters"] is None


async def test_health_and_metrics(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 200
    metrics = await http.get("/metrics")
    assert metrics.status_code == 200
    assert 'route="/readyz"' in metrics.text


async def test_it_starts_without_redis_answers_503_and_recovers(client: Client) -> None:
    server = RealServer("valkey")
    try:
        async with serving(server.url) as http:
            refused = await http.post("/task", json=body("1"))
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 503
            server.start()

            async def ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            await eventually(ready, "the service found its server")
            async with Client(server.url) as other:
                answer = await http.post("/task", json=await submitted(other))
            assert answer.status_code == 202
    finally:
        server.close()


async def test_a_module_that_does_not_load_stops_the_start(dms_redis_url: str) -> None:
    with pytest.raises(TaskLoadError, match="no_such_module_of_ours"):
        async with serving(dms_redis_url, task_modules=["no_such_module_of_ours"]):
            raise AssertionError("it started")
