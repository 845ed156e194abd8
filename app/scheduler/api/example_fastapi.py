"""A web application with an API trigger: `python -m app.scheduler.api.example_fastapi`.

Then, in another terminal:

    curl -X POST http://localhost:8000/api/webhooks/trigger -H "Content-Type: application/json" \
      -d '{"data": {"webhook_id": "wh_001", "user_id": 123, "action": "purchase"}}'
    curl http://localhost:8000/api/webhooks/status

The trigger is made with the module, for the router needs it, and started with the application.
"""

import argparse
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.event_system import EventBase
from app.event_system.infrastructure import InMemoryBroker
from app.scheduler import Scheduler, create_api_trigger, create_event_trigger
from app.scheduler.api import create_trigger_router

log = logging.getLogger(__name__)


class WebhookEvent(EventBase):
    """A webhook came in."""

    webhook_id: str
    data: dict[str, Any]


class ReceiptEvent(EventBase):
    """A purchase needs a receipt."""

    user_id: int


def _webhook(payload: dict[str, Any]) -> WebhookEvent:
    """A payload without what the event needs is the caller's mistake: 422."""
    fields = {
        "topic": "webhooks.incoming",
        "webhook_id": payload.get("webhook_id"),
        "data": payload,
    }
    return WebhookEvent.model_validate(fields)


api_trigger = create_api_trigger(_webhook)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Triggers and broker live as long as the application."""
    async with InMemoryBroker() as broker, broker.publisher() as publisher:
        scheduler = Scheduler(publisher)
        receipts = create_event_trigger(broker.consumer(), "webhooks.*", _receipt, _is_purchase)
        await scheduler.register_trigger("webhook", api_trigger, "webhooks.incoming")
        await scheduler.register_trigger("receipts", receipts, "receipts.wanted")
        await scheduler.start()
        try:
            yield
        finally:
            await scheduler.stop()


def _is_purchase(event: WebhookEvent) -> bool:
    return event.data.get("action") == "purchase"


def _receipt(event: WebhookEvent) -> ReceiptEvent:
    log.info("Webhook %s is a purchase: a receipt is wanted", event.webhook_id)
    return ReceiptEvent(topic="receipts.wanted", user_id=event.data["user_id"])


app = FastAPI(title="API trigger", lifespan=lifespan)
app.include_router(create_trigger_router(api_trigger, prefix="/api/webhooks"))


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A web application with an API trigger.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
