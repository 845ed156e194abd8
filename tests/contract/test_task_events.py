"""Ends of tasks as events: none is lost, each has one id, and an outage is waited out."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from app.core.events import TASK_EVENTS_GROUP
from app.event_system import Overflow, Subscription, check_topic
from app.event_system.infrastructure import RedisBroker
from app.tasks import TaskEvent, task_topic
from dms_scheduler import task_event_relay
from dms_scheduler.task_event_relay import TaskEventRelay
from task_state import TaskResult, TaskStatus, keys
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.contract.servers import RealServer
from tests.contract.store import Keyspace, record
from tests.contract.test_managed_tasks import begin, running, submit
from tests.support.events import eventually, queue_of, take, take_acked

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


@pytest_asyncio.fixture
async def events(shared_server: RealServer, keyspace: Keyspace) -> AsyncGenerator[RedisBroker]:
    """A broker on the task store's server."""
    async with RedisBroker(shared_server.url, timeout=60) as broker:
        yield broker


@asynccontextmanager
async def relaying(
    provider: RedisRepositoryProvider, broker: RedisBroker, **options: Any
) -> AsyncGenerator[CollectorRegistry]:
    """A relay at work; gives its metrics."""
    registry = CollectorRegistry()
    relay = TaskEventRelay(provider, broker.publisher(), registry, **options)
    task = asyncio.create_task(relay.run())
    try:
        yield registry
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def subscribed(
    broker: RedisBroker, pattern: str = "tasks.**", **options: Any
) -> Subscription[TaskEvent]:
    """A group's subscription to task events."""
    return await broker.consumer().subscribe(pattern, TaskEvent, group="test", **options)


async def complete(managed: ManagedTasks, **values: Any) -> str:
    """A task that began and was completed."""
    task_id = await running(managed, **values)
    await managed.finish(task_id, 1, COMPLETED, log_entry="done")
    return task_id


async def caught_up(outbox: Outbox) -> bool:
    depth = (await outbox.depths()).get(TASK_EVENTS_GROUP)
    return depth is not None and (depth.unread, depth.pending) == (0, 0)


# ----------------------------------------------------------------------------------- what is told
async def test_an_end_is_told_with_what_the_record_says(
    provider: RedisRepositoryProvider,
    managed: ManagedTasks,
    repository: RedisTaskRepository,
    events: RedisBroker,
) -> None:
    subscription = await subscribed(events)
    task_id = await running(managed, user_id="alice@x", retry_of="7", schedule_id="nightly")
    async with relaying(provider, events):
        await managed.finish(task_id, 1, FAILED, log_entry="no", error="공간 없음 " * 200)
        event = (await take(subscription)).event
    found = await repository.get(task_id)
    assert found is not None
    assert event.topic == "tasks.sync.FAILED"
    assert (event.task_id, event.service, event.user_id) == (task_id, "sync", "alice@x")
    assert (event.status, event.attempts) == (FAILED, 1)
    assert event.completed_at == found.completed_at
    assert abs((event.occurred_at - event.completed_at).total_seconds()) < 0.01
    assert event.error == ("공간 없음 " * 200)[:500]
    assert (event.retry_of, event.schedule_id) == ("7", "nightly")


async def test_every_end_of_every_kind_of_record_is_told(
    provider: RedisRepositoryProvider,
    managed: ManagedTasks,
    repository: RedisTaskRepository,
    events: RedisBroker,
    outbox: Outbox,
) -> None:
    subscription = await subscribed(events)
    early = await complete(managed)  # before there was a relay
    async with relaying(provider, events) as registry:
        cancelled = await submit(managed)
        await managed.cancel(cancelled)
        await repository.save(record("saved-as-ended", status=COMPLETED))
        other = record("external-1")
        await repository.save(other)
        await repository.set_status("external-1", TaskStatus.RUNNING)
        await repository.update_result("external-1", error="oh")
        await repository.set_status("external-1", FAILED)
        found = await take_acked(subscription, 4)
        await eventually(lambda: caught_up(outbox))
        assert registry.get_sample_value(
            "dms_task_events_published_total", {"status": "COMPLETED"}
        ) == pytest.approx(2)
    assert {(event.task_id, event.topic) for event in found} == {
        (early, "tasks.sync.COMPLETED"),
        (cancelled, "tasks.sync.CANCELLED"),
        ("saved-as-ended", "tasks.analytics.COMPLETED"),
        ("external-1", "tasks.analytics.FAILED"),
    }
    assert [event.error for event in found if event.task_id == "external-1"] == ["oh"]
    assert (await queue_of(events, "tasks.**", "test")).waiting == 0, "each was told once"


async def test_an_end_is_told_although_its_record_is_gone_or_begun_anew(
    provider: RedisRepositoryProvider,
    managed: ManagedTasks,
    repository: RedisTaskRepository,
    events: RedisBroker,
) -> None:
    subscription = await subscribed(events)
    gone = await complete(managed)
    await repository.delete(gone)
    await repository.save(record("again", status=FAILED, result=TaskResult(error="first")))
    await repository.save(record("again", status=TaskStatus.RUNNING))
    await repository.save(record("other", status=FAILED, result=TaskResult(error="first")))
    await repository.save(record("other", status=COMPLETED, description="the second one"))
    async with relaying(provider, events):
        first, second, third, fourth = await take_acked(subscription, 4)
    assert (first.task_id, first.status, first.attempts) == (gone, COMPLETED, None)
    assert (second.task_id, second.status, second.error) == ("again", FAILED, None)
    assert first.completed_at == first.occurred_at
    assert (third.status, third.error, third.attempts) == (FAILED, None, None)
    assert (fourth.status, fourth.attempts) == (COMPLETED, 0)
    assert third.event_id != fourth.event_id


async def test_a_repeat_has_the_same_id(
    provider: RedisRepositoryProvider,
    managed: ManagedTasks,
    events: RedisBroker,
    keyspace: Keyspace,
    outbox: Outbox,
) -> None:
    subscription = await subscribed(events)
    tasks = [await complete(managed) for _ in range(3)]
    async with relaying(provider, events):
        first = await take_acked(subscription, 3)
        await eventually(lambda: caught_up(outbox))
    keyspace.client.xgroup_destroy(keys.OUTBOX, TASK_EVENTS_GROUP)  # nobody trims here
    async with relaying(provider, events):
        second = await take_acked(subscription, 3)
    assert [event.task_id for event in first] == tasks
    assert first == second
    assert len({event.event_id for event in first}) == 3
    assert first[0].event_id[14] == "7", "a UUID of version 7"


@given(st.from_regex(r"\A[A-Za-z0-9._@-]{1,64}\Z"), st.sampled_from(TaskStatus))
def test_every_service_has_a_topic(service: str, status: TaskStatus) -> None:
    topic = check_topic(task_topic(service, status))
    assert topic.count(".") == 2
    assert topic.endswith(f".{status}")


async def test_a_service_whose_name_is_no_segment(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository, events: RedisBroker
) -> None:
    subscription = await subscribed(events, "tasks.a_b_c.*")
    async with relaying(provider, events):
        await repository.save(record("x", service="a.b@c", status=COMPLETED))
        assert (await take(subscription)).event.service == "a.b@c"


# ------------------------------------------------------------------------------ what goes wrong
async def test_what_a_dead_relay_took_is_published_by_another(
    provider: RedisRepositoryProvider, managed: ManagedTasks, events: RedisBroker, outbox: Outbox
) -> None:
    subscription = await subscribed(events)
    tasks = {await complete(managed) for _ in range(5)}
    await outbox.ensure_group(TASK_EVENTS_GROUP)
    taken = await outbox.read(TASK_EVENTS_GROUP, "dead", count=100, block_ms=0)
    assert len(taken) == 10, "five submissions and five ends"
    async with relaying(provider, events, abandoned_seconds=0.05):
        found = await take_acked(subscription, 5)
        await eventually(lambda: caught_up(outbox))
    assert {event.task_id for event in found} == tasks


async def test_three_relays_share_and_tell_each_end_once(
    provider: RedisRepositoryProvider, managed: ManagedTasks, events: RedisBroker, outbox: Outbox
) -> None:
    subscription = await subscribed(events)
    async with (
        relaying(provider, events),
        relaying(provider, events),
        relaying(provider, events),
    ):
        tasks = [await complete(managed) for _ in range(60)]
        found = await take_acked(subscription, 60)
        await eventually(lambda: caught_up(outbox))
    assert sorted(event.task_id for event in found) == sorted(tasks)
    queue = await queue_of(events, "tasks.**", "test")
    assert (queue.waiting, queue.unsettled) == (0, 0)


async def test_a_full_queue_holds_up_and_loses_nothing(
    provider: RedisRepositoryProvider, managed: ManagedTasks, events: RedisBroker, outbox: Outbox
) -> None:
    """A queue that refuses keeps an event from the others too, who get it once all the same; what
    it does not want comes through meanwhile."""
    strict = await subscribed(events, "tasks.sync.*", overflow=Overflow.ERROR, limit=2)
    easy = await subscribed(events)
    tasks = [await complete(managed) for _ in range(6)]

    async def held_up() -> bool:
        depth = (await outbox.depths()).get(TASK_EVENTS_GROUP)
        return depth is not None and (depth.unread, depth.pending) == (0, 4)

    async with relaying(provider, events):
        await eventually(held_up)
        other = await complete(managed, service="copy")
        early = await take_acked(easy, 3)
        assert early[-1].task_id == other
        found = await take_acked(strict, 6)
        every = early + await take_acked(easy, 4)
        await eventually(lambda: caught_up(outbox))
    assert sorted(event.task_id for event in found) == sorted(tasks)
    assert sorted(event.task_id for event in every) == sorted([*tasks, other])
    assert (await queue_of(events, "tasks.**", "test")).waiting == 0


async def test_more_held_up_than_one_read_takes_hold_up_no_others(
    provider: RedisRepositoryProvider,
    managed: ManagedTasks,
    outbox: Outbox,
    events: RedisBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is stuck is tried again and again, and what comes after it is published meanwhile."""
    monkeypatch.setattr(task_event_relay, "_BATCH", 2)
    strict = await subscribed(events, "tasks.sync.*", overflow=Overflow.ERROR, limit=1)
    easy = await subscribed(events, "tasks.copy.*")
    tasks = [await complete(managed) for _ in range(6)]

    async def held_up() -> bool:
        depth = (await outbox.depths()).get(TASK_EVENTS_GROUP)
        return depth is not None and (depth.unread, depth.pending) == (0, 5)

    async with relaying(provider, events):
        await eventually(held_up)
        other = await complete(managed, service="copy")
        assert [event.task_id for event in await take_acked(easy, 1)] == [other]
        found = await take_acked(strict, 6)
        await eventually(lambda: caught_up(outbox))
    assert sorted(event.task_id for event in found) == sorted(tasks)


async def test_an_outage_is_waited_out(own_server: RealServer) -> None:
    settings = RedisRepositorySettings(write_url=own_server.url, timeout_seconds=2)
    provider = RedisRepositoryProvider(settings)
    async with RedisBroker(own_server.url, timeout=2) as broker:
        managed = await provider.get_managed()
        subscription = await subscribed(broker)
        async with relaying(provider, broker):
            before = await complete(managed)
            assert (await take(subscription)).event.task_id == before
            waiting = [await running(managed) for _ in range(3)]
            own_server.kill()
            own_server.start()
            for task_id in waiting:
                await _persistently(
                    lambda each=task_id: managed.finish(each, 1, COMPLETED, log_entry="done")
                )
            seen: set[str] = set()
            while not seen >= set(waiting):
                delivery = await take(subscription)
                seen.add(delivery.event.task_id)
                delivery.ack()
    await provider.close()


async def _persistently(write: Callable[[], Awaitable[object]]) -> None:
    """As a worker does: until it is written."""

    async def written() -> bool:
        with suppress(Exception):
            await write()
            return True
        return False

    await eventually(written)


# --------------------------------------------------------------------------------------- the outbox
async def test_the_outbox_tells_how_far_each_group_is(
    managed: ManagedTasks, outbox: Outbox, keyspace: Keyspace
) -> None:
    assert await outbox.depths() == {}
    await outbox.ensure_group("dispatch")
    await outbox.ensure_group("events")
    await submit(managed)
    (entry,) = await outbox.read("dispatch", "a", count=10, block_ms=0)
    await outbox.done("dispatch", entry)
    depths = await outbox.depths()
    assert [(depths[name].unread, depths[name].pending) for name in ("dispatch", "events")] == [
        (0, 0),
        (1, 0),
    ]
    assert depths["dispatch"].lag_seconds == 0
    await eventually(lambda: _lags(outbox))


async def _lags(outbox: Outbox) -> bool:
    return (await outbox.depths())["events"].lag_seconds > 0.05


async def test_silent_consumers_that_left_nothing_are_forgotten(
    managed: ManagedTasks, outbox: Outbox, keyspace: Keyspace
) -> None:
    await outbox.ensure_group("events")
    task_id = await submit(managed)
    await outbox.read("events", "holds", count=10, block_ms=0)
    await submit(managed)
    for entry in await outbox.read("events", "left", count=10, block_ms=0):
        await outbox.done("events", entry)

    def names() -> list[bytes]:
        found = keyspace.client.xinfo_consumers(keys.OUTBOX, "events")
        return [consumer["name"] for consumer in found]

    await outbox.trim()
    assert names() == [b"holds", b"left"]
    await outbox.trim(forget_seconds=0)
    assert names() == [b"holds"]
    (held,) = await outbox.unfinished("events", "holds", after="0", count=10)
    assert held.task_id == task_id


async def test_an_end_is_read_of_any_record(
    managed: ManagedTasks, outbox: Outbox, repository: RedisTaskRepository
) -> None:
    active = await submit(managed)
    text = "가" * 1000  # 3000 bytes: the cut goes through a character
    await repository.save(record("cut", status=FAILED, result=TaskResult(error=text)))
    none, gone, cut = await outbox.endings([active, "missing", "cut"])
    assert (none, gone) == (None, None)
    assert cut is not None
    assert cut.error == "가" * 666
    assert await outbox.endings([]) == []
    await begin(managed, active)
