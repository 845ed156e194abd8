"""The two routes of an API trigger, their refusals, and the example application."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app.event_system import BrokerUnavailableError, EventBase, EventEncodeError
from app.event_system.infrastructure import InMemoryBroker
from app.scheduler import APITrigger, Scheduler, create_api_trigger
from app.scheduler.api import create_trigger_router, example_fastapi
from tests.support.triggers import Recorder, until

SECRET = "s3cret-in-a-traceback"


class Hook(EventBase):
    """An event of these tests."""

    webhook_id: str


def hook(payload: Any) -> Hook:
    if payload.get("boom"):
        raise RuntimeError(SECRET)
    fields = {"topic": "hooks", "webhook_id": payload.get("webhook_id"), "data": payload}
    return Hook.model_validate(fields)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def trigger(recorder: Recorder) -> AsyncGenerator[APITrigger[Hook]]:
    trigger = create_api_trigger(hook)
    scheduler = Scheduler(recorder)
    await scheduler.register_trigger("hook", trigger, "hooks")
    await scheduler.start()
    await until(lambda: trigger._publish is not None, "it runs")
    yield trigger
    await scheduler.stop()


def client_of(app: FastAPI) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.fixture
async def client(trigger: APITrigger[Hook]) -> AsyncGenerator[httpx2.AsyncClient]:
    app = FastAPI()
    app.include_router(create_trigger_router(trigger, prefix="/hooks"))
    async with client_of(app) as client:
        yield client


async def test_trigger_and_status(client: httpx2.AsyncClient, recorder: Recorder) -> None:
    data = {"webhook_id": "wh_001", "깊이": [{"값": None}, 1.5]}
    answer = await client.post("/hooks/trigger", json={"data": data})
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "message": "Event triggered successfully",
        "trigger_count": 1,
    }
    ((topic, event),) = recorder.published
    assert topic == "hooks"
    assert event.model_dump()["data"] == data
    status = await client.get("/hooks/status")
    assert status.json() == {"running": True, "trigger_count": 1}


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "{}",
        '{"data": null}',
        '{"data": []}',
        '{"data": "x"}',
        '{"data": {}, "more": 1}',
    ],
)
async def test_bodies_of_another_form_are_refused(
    client: httpx2.AsyncClient, recorder: Recorder, body: str
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/hooks/trigger", content=body, headers=headers)
    assert answer.status_code == 422
    assert recorder.published == []


def check_problem(answer: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:dms:problem:{slug}"
    assert problem["status"] == status
    assert problem["instance"] == "/hooks/trigger"
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text
    return problem


async def test_a_payload_that_makes_no_event(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/hooks/trigger", json={"data": {"webhook_id": 5}})
    problem = check_problem(answer, 422, "invalid-payload")
    assert problem["errors"][0]["where"] == "webhook_id"
    assert "valid string" in problem["detail"]


async def test_a_factory_that_fails(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.post("/hooks/trigger", json={"data": {"boom": True}})
    check_problem(answer, 500, "event-factory-failed")
    assert SECRET in caplog.text, "the log has the cause"


async def test_a_broker_that_is_away(trigger: APITrigger[Hook]) -> None:
    scheduler = Scheduler(Recorder([BrokerUnavailableError("away"), EventEncodeError("no JSON")]))
    other = create_api_trigger(hook)
    await scheduler.register_trigger("other", other, "hooks")
    await scheduler.start()
    app = FastAPI()
    app.include_router(create_trigger_router(other, prefix="/hooks"))
    body = {"data": {"webhook_id": "x"}}
    async with client_of(app) as client:
        answer = await client.post("/hooks/trigger", json=body)
        check_problem(answer, 503, "broker-unavailable")
        assert answer.headers["retry-after"] == "2"
        check_problem(await client.post("/hooks/trigger", json=body), 500, "not-published")
    await scheduler.stop()


async def test_a_trigger_that_is_not_running() -> None:
    app = FastAPI()
    app.include_router(create_trigger_router(create_api_trigger(hook), prefix="/hooks"))
    async with client_of(app) as client:
        answer = await client.post("/hooks/trigger", json={"data": {"webhook_id": "x"}})
        problem = check_problem(answer, 503, "trigger-not-running")
        assert "register it with a scheduler" in problem["detail"]
        status = await client.get("/hooks/status")
        assert status.json() == {"running": False, "trigger_count": 0}


async def test_two_routers_in_one_application(recorder: Recorder) -> None:
    app = FastAPI()
    factories: list[Callable[[Any], Hook]] = [hook, hook]
    triggers = [create_api_trigger(factory) for factory in factories]
    scheduler = Scheduler(recorder)
    for number, trigger in enumerate(triggers):
        app.include_router(create_trigger_router(trigger, prefix=f"/hooks/{number}"))
        await scheduler.register_trigger(str(number), trigger, f"hooks.{number}")
    await scheduler.start()
    async with client_of(app) as client:
        await client.post("/hooks/1/trigger", json={"data": {"webhook_id": "x"}})
    assert [topic for topic, _ in recorder.published] == ["hooks.1"]
    await scheduler.stop()
    assert set(app.openapi()["paths"]) == {
        f"/hooks/{number}/{name}" for number in (0, 1) for name in ("trigger", "status")
    }


async def test_the_example_application(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with (
        example_fastapi.lifespan(example_fastapi.app),
        client_of(example_fastapi.app) as client,
    ):
        before = (await client.get("/api/webhooks/status")).json()["trigger_count"]
        data = {"webhook_id": "wh_001", "user_id": 123, "action": "purchase"}
        answer = await client.post("/api/webhooks/trigger", json={"data": data})
        assert answer.json()["trigger_count"] == before + 1
        refused = await client.post("/api/webhooks/trigger", json={"data": {}})
        assert refused.status_code == 422
        await until(lambda: "a receipt is wanted" in caplog.text, "the event trigger fired")
    assert not example_fastapi.api_trigger.is_running()


async def test_a_broker_in_memory() -> None:
    async with InMemoryBroker() as broker:
        arrived = await broker.consumer().subscribe("hooks")
        trigger = create_api_trigger(hook)
        scheduler = Scheduler(broker.publisher())
        await scheduler.register_trigger("hook", trigger, "hooks")
        await scheduler.start()
        event = await trigger.trigger({"webhook_id": "x"})
        assert (await anext(arrived)).event is event
        await scheduler.stop()
