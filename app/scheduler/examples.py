"""The three triggers at work for a few seconds: `python -m app.scheduler.examples`."""

import asyncio
import sys
from collections import Counter
from datetime import UTC, datetime

from app.event_system import ConsumerPort, EventBase
from app.event_system.infrastructure import InMemoryBroker
from app.scheduler import (
    CronExpression,
    Scheduler,
    create_api_trigger,
    create_cron_trigger,
    create_event_trigger,
)

WANTED = {"clock.second": 2, "orders.new": 3, "invoices.new": 1}
SECONDS = 30.0


class Tick(EventBase):
    """A second began."""


class Order(EventBase):
    """Somebody ordered something."""

    item: str
    amount: int


class Invoice(EventBase):
    """An order is to be paid."""

    item: str


async def main() -> None:
    """Two ticks of a cron trigger, three orders by an API trigger, one invoice by an event
    trigger."""
    async with InMemoryBroker() as broker, broker.publisher() as publisher:
        consumer = broker.consumer()
        shown = asyncio.create_task(_show(consumer))
        await asyncio.sleep(0)  # it subscribes
        scheduler = Scheduler(publisher)
        orders = create_api_trigger(lambda payload: Order(topic="orders.new", **payload))
        ticks = create_cron_trigger("* * * * * *", lambda: Tick(topic="clock.second"))
        invoices = create_event_trigger(
            consumer,
            "orders.*",
            lambda order: Invoice(topic="invoices.new", item=order.item),
            lambda order: order.amount > 1000,
        )
        await scheduler.register_trigger("ticks", ticks, "clock.second")
        await scheduler.register_trigger("orders", orders, "orders.new")
        await scheduler.register_trigger("invoices", invoices, "invoices.new")
        await scheduler.start()
        _say(f"every second is {CronExpression.parse('* * * * * *').describe()!r} in cron")
        for item, amount in (("pencil", 2), ("책상", 1200), ("lamp", 80)):
            await orders.trigger({"item": item, "amount": amount})
        async with asyncio.timeout(SECONDS):
            await shown
        await scheduler.stop()
        _say(f"orders: {orders.get_trigger_count()}, invoices: {invoices.get_trigger_count()}")


async def _show(consumer: ConsumerPort) -> None:
    """Print events until there were as many as are wanted."""
    seen: Counter[str] = Counter()
    subscription = await consumer.subscribe("**")
    async for delivery in subscription:
        delivery.ack()
        event = delivery.event
        seen[event.topic] += 1
        _say(f"{datetime.now(UTC):%H:%M:%S.%f} {event.topic}: {_details(event)}")
        if seen >= Counter(WANTED):
            return


def _details(event: EventBase) -> str:
    match event:
        case Order():
            return f"{event.amount} for {event.item}"
        case Invoice():
            return event.item
        case _:
            return event.headers.get("dms-slot", "")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    asyncio.run(main())
