"""Making triggers: by function, by type, by name, and what is refused."""

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.event_system import EventBase
from app.event_system.infrastructure import InMemoryBroker
from app.scheduler import (
    APITrigger,
    CronError,
    CronTrigger,
    EventTrigger,
    SchedulerError,
    TriggerConfigError,
    TriggerFactory,
    TriggerType,
    create_cron_trigger,
)
from tests.support.triggers import HandClock


def factory(*_: Any) -> EventBase:
    return EventBase(topic="made")


@pytest.mark.parametrize("kind", [TriggerType.CRON, "cron", "CRON"], ids=["type", "name", "upper"])
def test_cron(kind: str) -> None:
    trigger = TriggerFactory.create_trigger(
        kind, cron_expression="0 0 * * *", event_factory=factory, coalesce="all"
    )
    assert isinstance(trigger, CronTrigger)
    assert trigger.expression.text == "0 0 * * *"
    assert trigger.policy.coalesce == "all"


async def test_api_and_event() -> None:
    assert isinstance(TriggerFactory.create_trigger("api", event_factory=factory), APITrigger)
    async with InMemoryBroker() as broker:
        trigger = TriggerFactory.create_trigger(
            "event", consumer=broker.consumer(), source_topic="a.**", event_factory=factory
        )
    assert isinstance(trigger, EventTrigger)


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("corn", {}, "'corn' is no type of trigger: give one of cron, api, event"),
        (7, {}, "7 is no type"),
        ("cron", {"event_factory": factory}, "missing a required argument: 'cron_expression'"),
        ("api", {"event_factory": factory, "x": 1}, "'x'; it takes event_factory"),
        ("cron", {"cron_expression": "0 0 * * *", "event_factory": 5}, "event_factory is 5"),
        (
            "cron",
            {"cron_expression": "0 0 * * *", "event_factory": factory, "timezone": "Asia/Soul"},
            "timezone 'Asia/Soul' is not known",
        ),
        ("cron", {"cron_expression": "0 25 * * *", "event_factory": factory}, "25 is out of range"),
    ],
)
def test_refusals(kind: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SchedulerError, match=words) as refused:
        TriggerFactory.create_trigger(kind, **arguments)
    assert isinstance(refused.value, TriggerConfigError | CronError)


@pytest.mark.parametrize(
    "zone", ["../../etc/passwd", "", "\0", "x" * 5000, 9, "Asia"], ids=lambda zone: repr(zone)[:12]
)
def test_no_zone_at_all(zone: Any) -> None:
    with pytest.raises(TriggerConfigError, match="is not known"):
        create_cron_trigger("0 0 * * *", factory, zone)


async def test_a_zone_by_name_or_object() -> None:
    clock = HandClock("2026-01-05T08:59:30")
    dues: list[float | None] = []
    for zone in ("Asia/Seoul", ZoneInfo("Asia/Seoul"), "UTC", UTC):
        trigger = create_cron_trigger("0 18 * * *", factory, timezone=zone)
        trigger.use("t", clock)
        await trigger.start()
        dues.append(trigger.due_at())
    assert dues[0] == dues[1] == clock.now() + 30
    assert dues[2] == dues[3] == clock.now() + 30 + 9 * 3600


def test_equal_policies_are_one() -> None:
    """A hundred thousand triggers are wanted in one process."""
    made = [create_cron_trigger("0 0 * * *", factory, "UTC", grace=5) for _ in range(2)]
    assert made[0].policy is made[1].policy
