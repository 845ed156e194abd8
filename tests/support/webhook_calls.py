"""Calls of webhooks over HTTP for tests, and what came of them."""

import asyncio
from typing import Any

import httpx2

from app.event_system import Subscription
from app.services.webhooks import WebhookReceived
from tests.support.frontend import ALICE, API, Frontend
from tests.support.webhooks import Sent


async def send(frontend: Frontend, name: str, sent: Sent) -> httpx2.Response:
    """Deliver it."""
    url = f"{API}/webhooks/{name}/trigger"
    return await frontend.client.post(url, content=sent.body, headers=sent.lines)


async def accepted(frontend: Frontend, name: str, sent: Sent) -> dict[str, Any]:
    """The answer to a delivery that took effect."""
    answer = await send(frontend, name, sent)
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["success"] is True
    assert body["event_id"]
    return body


async def published(
    frontend: Frontend, events: Subscription[WebhookReceived]
) -> list[WebhookReceived]:
    """All events that were published and not looked at; one more marks the end."""
    end = WebhookReceived(topic="end", webhook="", delivery="", event=None, payload={})
    publisher = frontend.container.broker.publisher()
    await publisher.publish("end", end)
    found: list[WebhookReceived] = []
    async with asyncio.timeout(60):
        async for event in events.events():
            if event.event_id == end.event_id:
                return found
            found.append(event)
    raise AssertionError("the subscription ended")


async def tasks(frontend: Frontend) -> list[dict[str, Any]]:
    """Alice's tasks."""
    return (await frontend.client.get(ALICE)).json()["tasks"]


def counted(frontend: Frontend, webhook: str, outcome: str) -> float:
    """What the metrics say."""
    labels = {"webhook": webhook, "outcome": outcome}
    value = frontend.container.metrics.registry.get_sample_value("dms_webhook_calls_total", labels)
    return value or 0.0
