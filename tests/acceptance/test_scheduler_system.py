"""The document on the scheduler system: its blocks run verbatim, on a real broker and real servers.

The preamble that the document leaves out is `names`: event classes, broker, publisher, consumer,
scheduler, triggers and factories of the names that the blocks use.
"""

import ast
import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI

from app.event_system import BrokerPort, EventBase, Subscription
from app.event_system.infrastructure import InMemoryBroker, InMemoryConsumer, InMemoryPublisher
from app.scheduler import (
    APITrigger,
    CronExpression,
    CronTrigger,
    EventTrigger,
    Scheduler,
    SchedulerPort,
    TriggerPort,
    create_api_trigger,
    create_cron_trigger,
    create_event_trigger,
)
from tests.acceptance import scheduler_blocks as blocks
from tests.support.servers import quiet_port
from tests.support.triggers import HandClock, left_behind, until

Names = dict[str, Any]


class MyEvent(EventBase):
    pass


class WebhookEvent(EventBase):
    webhook_id: str | None
    data: dict[str, Any]


class ProcessingEvent(EventBase):
    source_id: str


class DataCollectionEvent(EventBase):
    source: str


class DataProcessingEvent(EventBase):
    data_id: str


class NotificationEvent(EventBase):
    recipient: str
    message: str


class AlertEvent(EventBase):
    level: str
    message: str


class WebhookReceivedEvent(EventBase):
    repository: str | None
    action: str | None
    data: dict[str, Any]


EVENT_CLASSES = (
    MyEvent,
    WebhookEvent,
    ProcessingEvent,
    DataCollectionEvent,
    DataProcessingEvent,
    NotificationEvent,
    AlertEvent,
    WebhookReceivedEvent,
)


def event_factory(*_: Any) -> MyEvent:
    """For cron triggers, which give nothing, and for the others, which give one thing."""
    return MyEvent(topic="made")


@pytest.fixture
async def names() -> AsyncGenerator[Names]:
    async with InMemoryBroker() as broker:
        publisher, consumer = InMemoryPublisher(broker), InMemoryConsumer(broker)
        names: Names = {each.__name__: each for each in EVENT_CLASSES}
        names |= {
            "broker": broker,
            "publisher": publisher,
            "consumer": consumer,
            "scheduler": Scheduler(publisher),
            "cron_trigger": create_cron_trigger("0 0 * * *", event_factory),
            "api_trigger": create_api_trigger(event_factory),
            "event_trigger": create_event_trigger(consumer, "source.topic", event_factory),
            "event_factory": event_factory,
            "process_factory": event_factory,
            "lunch_event_factory": event_factory,
            "create_cron_trigger": create_cron_trigger,
            "create_api_trigger": create_api_trigger,
            "create_event_trigger": create_event_trigger,
            "Scheduler": Scheduler,
            "datetime": datetime,
            "timedelta": timedelta,
        }
        ours = names["scheduler"]
        yield names
        for scheduler in (ours, names["scheduler"]):
            await scheduler.stop()
    assert left_behind() == []


async def run(block: str, names: Names) -> None:
    """Run a block that awaits at its top level."""
    code = compile(block, "<document>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, names)
    if inspect.isawaitable(outcome):
        await cast("Awaitable[None]", outcome)


async def listen(names: Names, pattern: str) -> Subscription[EventBase]:
    broker: BrokerPort = names["broker"]
    return await broker.consumer().subscribe(pattern)


async def received(subscription: Subscription[EventBase]) -> dict[str, Any]:
    async with asyncio.timeout(30):
        delivery = await anext(subscription)
    delivery.ack()
    return delivery.event.model_dump()


def client_of(names: Names) -> httpx2.AsyncClient:
    app: FastAPI = names["app"]
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://localhost:8000"
    )


async def test_cron(names: Names) -> None:
    await run(blocks.CRON, names)
    trigger: CronTrigger[MyEvent] = names["cron_trigger"]
    assert trigger.is_running()
    assert trigger.expression.describe() == "every 5 minutes"
    registered = names["scheduler"].get_registered_triggers()
    assert registered == {"daily_report": (trigger, "scheduled.reports")}


async def test_a_cron_trigger_of_the_document_fires(names: Names) -> None:
    clock = HandClock()
    head = blocks.CRON.replace("Scheduler(publisher)", "Scheduler(publisher, clock=clock)")
    setup, found, start = head.partition("# Register and start\n")
    assert found
    names["clock"] = clock
    await run(setup, names)
    arrived = await listen(names, "scheduled.*")
    await run(start, names)
    await until(lambda: clock.asleep, "it sleeps")
    clock.advance(30)
    event = await received(arrived)
    assert event["topic"] == "scheduled.reports"
    assert event["headers"]["dms-slot"] == "2026-01-05T09:00:00+00:00"


@pytest.mark.parametrize(
    ("line", "words"),
    list(
        zip(
            blocks.EXPRESSIONS.splitlines(),
            [
                "every minute",
                "every hour",
                "at 00:00",
                "at 09:00, on Monday to Friday",
                "every 15 minutes",
            ],
            strict=True,
        )
    ),
    ids=range(5),
)
def test_expressions(line: str, words: str) -> None:
    assert CronExpression.parse(ast.literal_eval(line)).describe() == words


async def test_api_by_hand(names: Names) -> None:
    arrived = await listen(names, "webhooks.incoming")
    await run(blocks.API_BY_HAND, names)
    event = await received(arrived)
    assert event["webhook_id"] == "wh_001"
    assert event["data"] == {"webhook_id": "wh_001", "user_id": 123, "action": "purchase"}


async def test_api_by_http(names: Names) -> None:
    arrived = await listen(names, "webhooks.incoming")
    await run(blocks.API_BY_HTTP, names)
    await names["scheduler"].start()
    async with client_of(names) as client:
        data = {"webhook_id": "wh_001", "user_id": 123, "action": "login"}
        answer = await client.post("/api/webhooks/trigger", json={"data": data})
        assert answer.json() == {
            "success": True,
            "message": "Event triggered successfully",
            "trigger_count": 1,
        }
        status = await client.get("/api/webhooks/status")
        assert status.json() == {"running": True, "trigger_count": 1}
    assert (await received(arrived))["topic"] == "webhooks.incoming"


async def test_event(names: Names) -> None:
    arrived = await listen(names, "data.processing")
    await run(blocks.EVENT, names)
    for name, rows in (("small", 1000), ("large", 1001)):
        fields = {"topic": "data.ingestion", "source_name": name, "rows_count": rows}
        await names["publisher"].publish("data.ingestion", EventBase.model_validate(fields))
    assert (await received(arrived))["source_id"] == "large"


@pytest.mark.parametrize("block", [blocks.FACTORY, blocks.FACTORY_BY_NAME], ids=["type", "name"])
async def test_factory(names: Names, block: str) -> None:
    if block is blocks.FACTORY_BY_NAME:  # the import stands in the block before it
        await run(blocks.FACTORY, names)
    await run(block, names)
    assert isinstance(names["trigger"], CronTrigger)


async def test_functions(names: Names) -> None:
    await run(blocks.FUNCTIONS, names)
    assert isinstance(names["cron"], CronTrigger)
    assert isinstance(names["api"], APITrigger)
    assert isinstance(names["event"], EventTrigger)


async def test_management(names: Names, capsys: pytest.CaptureFixture[str]) -> None:
    await run(blocks.MANAGEMENT, names)
    assert capsys.readouterr().out == "Active triggers: ['trigger_2']\n"
    assert not names["cron_trigger"].is_running()
    assert not names["api_trigger"].is_running()
    assert left_behind() == []


async def test_dynamic(names: Names) -> None:
    await run(blocks.DYNAMIC, names)
    assert names["new_trigger"].is_running()


async def test_pipeline(names: Names) -> None:
    processing, mails = await listen(names, "pipeline.processing"), await listen(names, "*.email")
    await run(blocks.PIPELINE, names)
    assert set(names["scheduler"].get_registered_triggers()) == {
        "daily_collection",
        "auto_processing",
        "completion_notify",
    }
    for step in ("collection", "processing"):
        topic = f"pipeline.{step}.completed"
        event = EventBase.model_validate({"topic": topic, "data_id": "자료-1"})
        await names["publisher"].publish(topic, event)
    assert (await received(processing))["data_id"] == "자료-1"
    assert (await received(mails))["message"] == "Pipeline completed: 자료-1"


async def test_monitoring(names: Names) -> None:
    alerts = await listen(names, "alerts.critical")
    await run(blocks.MONITORING, names)
    await names["scheduler"].start()
    for topic, level in (("logs.a", "INFO"), ("logs", "ERROR"), ("logs.a.b.c", "ERROR")):
        fields = {"topic": topic, "level": level, "service": topic, "error_message": "broken"}
        await names["publisher"].publish(topic, EventBase.model_validate(fields))
    messages = [(await received(alerts))["message"] for _ in range(2)]
    assert messages == ["Error in logs: broken", "Error in logs.a.b.c: broken"]


async def test_webhook(names: Names) -> None:
    arrived = await listen(names, "webhooks.github")
    await run(blocks.WEBHOOK, names)
    async with client_of(names) as client:
        answer = await client.post("/webhooks/github", json={"repository": "dms", "action": "push"})
        assert answer.json() == {"status": "processed"}
    event = await received(arrived)
    assert (event["repository"], event["action"]) == ("dms", "push")


async def test_zone(names: Names) -> None:
    await run(blocks.ZONE, names)
    trigger: CronTrigger[MyEvent] = names["cron_trigger"]
    trigger.use("t", HandClock("2026-01-05T23:59:30"))  # Tuesday 08:59:30 in Seoul
    await trigger.start()
    due = trigger.due_at()
    assert due is not None
    assert due % 86_400 == 0, "09:00 in Seoul is 00:00 UTC"


async def test_filter(names: Names) -> None:
    arrived = await listen(names, "made")
    await run(blocks.FILTER, names)
    trigger: EventTrigger[MyEvent] = names["event_trigger"]
    await names["scheduler"].register_trigger("filter", trigger, "made")
    await names["scheduler"].start()
    now = datetime.now()  # noqa: DTZ005  (the block's time is naive, and so must the event's be)
    for priority, source, age, aware in (
        ("LOW", "api", 0, False),
        ("HIGH", "person", 0, False),
        ("HIGH", "batch", 2, False),
        ("HIGH", "api", 0, True),  # cannot be compared: logged, skipped
        ("HIGH", "api", 0, False),
    ):
        timestamp = now - timedelta(hours=age)
        fields: Names = {"topic": "data.events", "priority": priority, "source": source}
        fields["timestamp"] = timestamp.astimezone() if aware else timestamp
        await names["publisher"].publish("data.events", EventBase.model_validate(fields))
    await received(arrived)
    await until(lambda: trigger.get_trigger_count() == 1, "one went through")
    assert trigger.get_error_count() == 1


async def test_status(names: Names, capsys: pytest.CaptureFixture[str]) -> None:
    await names["scheduler"].register_trigger("cron", names["cron_trigger"], "made")
    await names["scheduler"].register_trigger("api", names["api_trigger"], "made")
    await names["scheduler"].start()
    await run(blocks.HOW_TO_CALL, names)
    await run(blocks.STATUS, names)
    assert capsys.readouterr().out.splitlines() == [
        "Triggered 1 times",
        "Processed 0 events",
        "Cron trigger is active",
    ]


async def test_fastapi(names: Names) -> None:
    """The router there is made before the lifespan makes its trigger, so it has the one that the
    name stood for before. `example_fastapi` has one trigger for both."""
    before: APITrigger[MyEvent] = names["api_trigger"]
    await run(blocks.FASTAPI, names)
    app: FastAPI = names["app"]
    async with names["lifespan"](app), client_of(names) as client:
        assert names["api_trigger"] is not before
        assert names["api_trigger"].is_running()
        answer = await client.post("/api/webhooks/trigger", json={"data": {}})
        assert answer.status_code == 503
        await names["scheduler"].register_trigger("before", before, "webhooks")
        answer = await client.post("/api/webhooks/trigger", json={"data": {}})
        assert answer.json()["trigger_count"] == 1
    assert not names["api_trigger"].is_running()


async def test_custom_endpoint(names: Names) -> None:
    arrived = await listen(names, "made")
    await names["scheduler"].register_trigger("api", names["api_trigger"], "made")
    await names["scheduler"].start()
    await run(blocks.CUSTOM_ENDPOINT, names)
    async with client_of(names) as client:
        answer = await client.post("/webhooks/github", json={"hook_id": 5, "action": "push"})
        assert answer.json() == {"status": "processed"}
    await received(arrived)


@pytest.mark.parametrize(
    ("block", "port"),
    [(blocks.TRIGGER_PORT, TriggerPort), (blocks.SCHEDULER_PORT, SchedulerPort)],
    ids=["trigger", "scheduler"],
)
def test_reference(block: str, port: type) -> None:
    """Same methods, same parameters, awaitable where the document says so."""
    source = "\n".join(f"{line}: ..." for line in block.splitlines())
    for wanted in ast.parse(source).body:
        assert isinstance(wanted, ast.FunctionDef | ast.AsyncFunctionDef)
        real = getattr(port, wanted.name)
        parameters = [each.arg for each in wanted.args.args]
        assert list(inspect.signature(real).parameters) == ["self", *parameters]
        assert inspect.iscoroutinefunction(real) == isinstance(wanted, ast.AsyncFunctionDef)
        assert real.__isabstractmethod__


def test_the_examples_run() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "app.scheduler.examples"],
        capture_output=True,
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8"},
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "orders: 3, invoices: 1"
    assert sum("clock.second: " in line for line in lines) >= 2


@pytest.fixture
def address() -> Generator[str]:
    """Where the example's server listens."""
    port = quiet_port()
    command = [sys.executable, "-m", "app.scheduler.api.example_fastapi", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        assert server.wait(timeout=60) in {0, -15}


async def test_the_fastapi_example_serves(address: str) -> None:
    """What the document does with curl."""
    with closing(httpx2.Client(base_url=address, trust_env=False)) as client:

        def serves() -> bool:
            try:
                return client.get("/api/webhooks/status").status_code == 200
            except httpx2.TransportError:
                return False

        await until(serves, "the server listens", seconds=60)
        assert client.get("/api/webhooks/status").json() == {"running": True, "trigger_count": 0}
        data = {"webhook_id": "wh_001", "user_id": 123, "action": "purchase"}
        answer = client.post("/api/webhooks/trigger", json={"data": data})
        assert answer.json() == {
            "success": True,
            "message": "Event triggered successfully",
            "trigger_count": 1,
        }
        assert client.get("/docs").status_code == 200
