"""The gauges of queues, dead letters and the relay: right, bounded, no trouble when Redis is."""

import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app.event_system import BrokerPort, EventBase
from app.event_system.infrastructure import InMemoryBroker, RedisBroker
from dms_scheduler import event_metrics
from dms_scheduler.event_metrics import OTHERS, EventMetrics
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from tests.contract.servers import RealServer
from tests.contract.test_managed_tasks import submit
from tests.support.events import eventually, numbered, publish, take
from tests.support.frontend import REDIS_NOWHERE


async def measured(provider: RedisRepositoryProvider, broker: BrokerPort) -> CollectorRegistry:
    """What a scrape finds."""
    registry = CollectorRegistry()
    await EventMetrics(provider, broker, registry, timeout_seconds=60).measure()
    return registry


def events_of(registry: CollectorRegistry, pattern: str, group: str, state: str) -> float | None:
    labels = {"pattern": pattern, "group": group, "state": state}
    return registry.get_sample_value("dms_event_queue_events", labels)


async def test_queues_and_letters_are_told(
    provider: RedisRepositoryProvider, managed: ManagedTasks, outbox: Outbox
) -> None:
    async with InMemoryBroker() as broker:
        consumer, publisher = broker.consumer(), broker.publisher()
        team = await consumer.subscribe("numbers.*", group="team", max_deliveries=1)
        for _ in range(2):  # of no group: told together
            await consumer.subscribe("numbers.**")
        await publish(publisher, 1, 2, 3)
        (await take(team)).nack("no")
        await take(team)
        await outbox.ensure_group("events")
        await submit(managed)
        registry = await measured(provider, broker)
    assert events_of(registry, "numbers.*", "team", "waiting") == 1
    assert events_of(registry, "numbers.*", "team", "unsettled") == 1
    assert events_of(registry, "numbers.*", "team", "dead") == 1
    assert events_of(registry, "numbers.**", "", "waiting") == 6
    assert registry.get_sample_value("dms_event_dead_letters") == 1
    assert registry.get_sample_value("dms_event_broker_up") == 1
    assert registry.get_sample_value("dms_task_events_waiting", {"state": "unread"}) == 1
    lag = registry.get_sample_value("dms_task_events_lag_seconds")
    assert lag is not None
    assert lag >= 0


async def test_series_are_bounded_and_nothing_is_left_out(
    provider: RedisRepositoryProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_metrics, "MOST_QUEUES", 3)
    async with InMemoryBroker() as broker:
        consumer, publisher = broker.consumer(), broker.publisher()
        for number in range(6):
            await consumer.subscribe(f"n.{number}", group="team")
            for _ in range(number):
                await publisher.publish(f"n.{number}", numbered(number))
        registry = await measured(provider, broker)
    shown = {number: events_of(registry, f"n.{number}", "team", "waiting") for number in range(6)}
    assert shown == {0: None, 1: None, 2: None, 3: 3, 4: 4, 5: 5}
    assert events_of(registry, OTHERS, "", "waiting") == 0 + 1 + 2


async def test_a_queue_that_is_gone_is_told_no_more(
    provider: RedisRepositoryProvider, shared_server: RealServer
) -> None:
    registry = CollectorRegistry()
    async with RedisBroker(shared_server.url, timeout=60) as broker:
        metrics = EventMetrics(provider, broker, registry, timeout_seconds=60)
        subscription = await broker.consumer().subscribe("a.b", EventBase, group="team")
        await metrics.measure()
        assert events_of(registry, "a.b", "team", "waiting") == 0
        await subscription.close()
        await broker.drop_group("a.b", "team")
        await metrics.measure()
        assert events_of(registry, "a.b", "team", "waiting") is None


async def test_an_outage_is_told_and_fails_nothing(own_server: RealServer) -> None:
    settings = RedisRepositorySettings(write_url=own_server.url, timeout_seconds=5)
    provider, registry = RedisRepositoryProvider(settings), CollectorRegistry()
    async with RedisBroker(own_server.url, timeout=5) as broker:
        metrics = EventMetrics(provider, broker, registry, timeout_seconds=5)
        await (await provider.get_outbox()).ensure_group("events")
        await broker.consumer().subscribe("a.b", group="team")
        await metrics.measure()
        assert registry.get_sample_value("dms_event_broker_up") == 1
        own_server.kill()
        await metrics.measure()
        assert registry.get_sample_value("dms_event_broker_up") == 0
        assert events_of(registry, "a.b", "team", "waiting") is None
        assert math.isnan(registry.get_sample_value("dms_event_dead_letters") or 0)
        assert b"dms_task_events_lag_seconds NaN" in generate_latest(registry)
        own_server.start()

        async def up() -> bool:
            await metrics.measure()
            return registry.get_sample_value("dms_event_broker_up") == 1

        await eventually(up)
    await provider.close()


async def test_a_store_that_never_was_fails_nothing() -> None:
    provider = RedisRepositoryProvider(
        RedisRepositorySettings(write_url=REDIS_NOWHERE, timeout_seconds=5)
    )
    async with RedisBroker(REDIS_NOWHERE, timeout=5) as broker:
        registry = await measured(provider, broker)
    assert registry.get_sample_value("dms_event_broker_up") == 0
    await provider.close()
