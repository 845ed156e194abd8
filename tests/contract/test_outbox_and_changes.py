"""The two streams: the outbox, of which nothing is lost, and the changes for live views."""

import asyncio
from itertools import pairwise
from typing import cast

import pytest

from task_state import InvalidRequestError, TaskStatus, keys
from task_state.changes import Changes
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox, OutboxDepth, OutboxEvent
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace, record
from tests.contract.test_managed_tasks import begin, running, submit


async def take(outbox: Outbox, group: str = "dispatch", consumer: str = "a") -> list[OutboxEvent]:
    return await outbox.read(group, consumer, count=100, block_ms=0)


# ------------------------------------------------------------------------------------------ outbox
async def test_a_group_misses_nothing_that_came_before_it(
    managed: ManagedTasks, outbox: Outbox
) -> None:
    early = await submit(managed)
    await outbox.ensure_group("dispatch")
    late = await submit(managed, user_id="bob@x")
    await outbox.ensure_group("dispatch")
    first, second = await take(outbox)
    assert (first.task_id, second.task_id) == (early, late)
    assert (first.kind, first.service, first.user_id) == ("submitted", "sync", "alice")
    assert (second.user_id, second.status, second.tries) == ("bob@x", TaskStatus.PENDING, 0)
    assert await take(outbox) == []


async def test_consumers_of_a_group_share_and_groups_do_not(
    managed: ManagedTasks, outbox: Outbox
) -> None:
    for group in ("dispatch", "events"):
        await outbox.ensure_group(group)
    ids = [await submit(managed) for _ in range(4)]
    shared = [await outbox.read("dispatch", name, count=2, block_ms=0) for name in ("a", "b")]
    assert [event.task_id for batch in shared for event in batch] == ids
    assert [event.task_id for event in await take(outbox, "events")] == ids


async def test_read_waits_for_the_first_event(managed: ManagedTasks, outbox: Outbox) -> None:
    await outbox.ensure_group("dispatch")
    assert await outbox.read("dispatch", "a", count=1, block_ms=1) == []
    waiting = asyncio.create_task(outbox.read("dispatch", "a", count=1, block_ms=50_000))
    await asyncio.sleep(0)
    task_id = await submit(managed)
    assert [event.task_id for event in await waiting] == [task_id]


async def test_done_events_do_not_come_again(
    managed: ManagedTasks, outbox: Outbox, keyspace: Keyspace
) -> None:
    await outbox.ensure_group("dispatch")
    done, left = await submit(managed), await submit(managed)
    events = await take(outbox)
    await outbox.done("dispatch", events[0])
    await outbox.done("dispatch", events[0])
    claimed = await outbox.claim("dispatch", "b", min_idle_ms=0, count=10)
    assert [event.task_id for event in claimed] == [left]
    assert claimed[0] == events[1]
    assert await outbox.claim("dispatch", "b", min_idle_ms=3_600_000, count=10) == []
    assert done not in {event.task_id for event in claimed}
    assert await outbox.depth("dispatch") == OutboxDepth(unread=0, pending=1, due=0)


async def test_a_deferred_event_comes_again_once_it_is_due(
    managed: ManagedTasks, outbox: Outbox, keyspace: Keyspace
) -> None:
    await outbox.ensure_group("dispatch")
    task_id = await submit(managed)
    (event,) = await take(outbox)
    await outbox.defer("dispatch", event, delay_seconds=3600)
    assert await outbox.take_due("dispatch", hide_ms=1000, count=10) == []
    assert await outbox.claim("dispatch", "b", min_idle_ms=0, count=10) == []
    assert await outbox.depth("dispatch") == OutboxDepth(unread=0, pending=0, due=1)
    _let_due(keyspace)
    (again,) = await outbox.take_due("dispatch", hide_ms=3_600_000, count=10)
    assert (again.task_id, again.kind, again.tries) == (task_id, "submitted", 1)
    assert (again.entry_id, again.status, again.user_id) == ("", TaskStatus.PENDING, "alice")
    assert await outbox.take_due("dispatch", hide_ms=1000, count=10) == [], "hidden"
    _let_due(keyspace)
    assert await outbox.take_due("dispatch", hide_ms=0, count=10) == [again], "a crash loses none"
    await outbox.defer("dispatch", again, delay_seconds=0)
    (third,) = await outbox.take_due("dispatch", hide_ms=0, count=10)
    assert third.tries == 2
    assert (await outbox.depth("dispatch")).due == 1, "the old member is gone"
    await outbox.done("dispatch", third)
    assert await outbox.depth("dispatch") == OutboxDepth(unread=0, pending=0, due=0)


def _let_due(keyspace: Keyspace) -> None:
    for member in cast("list[bytes]", keyspace.client.zrange(keys.due("dispatch"), 0, -1)):
        keyspace.client.zadd(keys.due("dispatch"), {member: 1})


async def test_trim_keeps_what_any_group_still_needs(
    managed: ManagedTasks, outbox: Outbox, keyspace: Keyspace
) -> None:
    for group in ("dispatch", "events"):
        await outbox.ensure_group(group)
    ids = [await submit(managed) for _ in range(6)]

    async def left() -> list[str]:
        await outbox.trim()
        return [task_id for _, task_id, _ in keyspace.outbox()]

    assert await left() == ids, "nobody has read anything"
    fast = await take(outbox, "events")
    for event in fast:
        await outbox.done("events", event)
    assert await left() == ids, "dispatch has not"
    slow = await outbox.read("dispatch", "a", count=4, block_ms=0)
    assert await left() == ids, "read, but not done"
    await outbox.done("dispatch", slow[1])
    await outbox.defer("dispatch", slow[2], delay_seconds=3600)
    assert await left() == ids, "the first is pending"
    await outbox.done("dispatch", slow[0])
    assert await left() == ids[3:]
    await outbox.done("dispatch", slow[3])
    assert await left() == ids[4:]
    for event in await take(outbox):
        await outbox.done("dispatch", event)
    assert await left() == []
    late = await submit(managed)
    assert [event.task_id for event in await take(outbox, "events")] == [late]
    assert [event.task_id for event in await take(outbox, "dispatch")] == [late]


async def test_trim_without_groups_or_stream(
    managed: ManagedTasks, outbox: Outbox, keyspace: Keyspace
) -> None:
    await outbox.trim()
    await submit(managed)
    await outbox.trim()
    assert len(keyspace.outbox()) == 1


async def test_trim_beside_consumers_that_finish(managed: ManagedTasks, outbox: Outbox) -> None:
    """What was pending when trim looked may be done a moment later."""
    await outbox.ensure_group("dispatch")
    for _ in range(200):
        await submit(managed)
    seen: list[str] = []

    async def consume() -> None:
        while len(seen) < 200:
            for event in await outbox.read("dispatch", "a", count=1, block_ms=100):
                seen.append(event.task_id)
                await outbox.done("dispatch", event)

    async def trim() -> None:
        while len(seen) < 200:
            await outbox.trim()

    await asyncio.gather(consume(), trim(), trim())
    assert len(set(seen)) == 200


async def test_the_depth_of_a_group_that_is_not_there(outbox: Outbox) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="ensure_group"):
            await outbox.depth("nobody")
        await outbox.ensure_group("dispatch")


async def test_an_unread_backlog_is_counted(managed: ManagedTasks, outbox: Outbox) -> None:
    await outbox.ensure_group("dispatch")
    for _ in range(5):
        await submit(managed)
    await outbox.read("dispatch", "a", count=2, block_ms=0)
    assert await outbox.depth("dispatch") == OutboxDepth(unread=3, pending=2, due=0)


# ----------------------------------------------------------------------------------------- changes
async def test_changes_tell_a_tasks_story(
    managed: ManagedTasks, repository: RedisTaskRepository, changes: Changes
) -> None:
    assert await changes.last_id() == "0-0"
    task_id = await running(managed)
    await managed.append_logs(task_id, 1, ["x"])
    await managed.heartbeat(task_id, 1)
    await managed.heartbeat(task_id, 1, progress={"a": 1})
    await repository.update_result(task_id, error="e")
    await managed.finish(task_id, 1, TaskStatus.FAILED)
    await repository.set_status(task_id, TaskStatus.FAILED, log_entry="again")
    await repository.set_status(task_id, TaskStatus.FAILED)
    await repository.delete(task_id)
    story = await changes.read("0-0", block_ms=0)
    assert [(change.kind, str(change.status)) for change in story] == [
        ("created", "PENDING"),
        ("status", "RUNNING"),
        ("log", "RUNNING"),
        ("progress", "RUNNING"),
        ("result", "RUNNING"),
        ("status", "FAILED"),
        ("log", "FAILED"),
        ("deleted", "FAILED"),
    ]
    assert {(change.task_id, change.service, change.user_id) for change in story} == {
        (task_id, "sync", "alice")
    }
    numbers = [tuple(map(int, change.change_id.split("-"))) for change in story]
    assert all(before < after for before, after in pairwise(numbers))
    assert await changes.last_id() == story[-1].change_id
    assert await changes.read(story[-1].change_id, block_ms=0) == []
    assert await changes.read(story[-3].change_id, block_ms=0) == story[-2:]
    assert await changes.read("0", block_ms=0, count=3) == story[:3]


async def test_changes_wait_for_the_next_one(
    repository: RedisTaskRepository, changes: Changes
) -> None:
    assert await changes.read("0-0", block_ms=1) == []
    waiting = asyncio.create_task(changes.read("0-0", block_ms=50_000))
    await asyncio.sleep(0)
    await repository.save(record())
    assert [change.kind for change in await waiting] == ["created"]


async def test_changes_stay_bounded(
    managed: ManagedTasks, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    task_id = await submit(managed)
    await begin(managed, task_id)
    pipeline = keyspace.client.pipeline(transaction=False)
    for _ in range(10_100):
        pipeline.xadd(keys.CHANGES, {"e": f"log {task_id} sync alice RUNNING"})
    pipeline.execute()
    for _ in range(200):
        await repository.append_log(task_id, "one more")
    assert int(keyspace.client.xlen(keys.CHANGES)) < 10_200  # pyright: ignore[reportArgumentType]
    assert keyspace.outbox() == [("submitted", task_id, "PENDING")], (
        "the outbox is never trimmed so"
    )
