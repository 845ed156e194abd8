"""The reader of the outbox, on a real store: what its process has in work does not come again."""

from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from app.services.outbox_reader import OutboxReader
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox, OutboxEvent

GROUP, NAME, COUNT = "dispatch", "replica", 10

Way = Literal["unfinished", "claim", "take_due"]


class Owner:
    """Takes events by a reader, and holds what it has in work."""

    def __init__(self, outbox: Outbox, *, abandoned_seconds: float) -> None:
        self._outbox = outbox
        self._reader = OutboxReader(GROUP, NAME, abandoned_seconds=abandoned_seconds)
        self.held: set[OutboxEvent] = set()

    async def take(self) -> list[str]:
        """The tasks of the events that are in work from now on."""
        events = await self._reader.next(self._outbox, COUNT, held=self.held)
        self.held.update(events)
        return [event.task_id for event in events]

    async def finish(self) -> None:
        """End all that is in work."""
        for event in list(self.held):
            await self._outbox.done(GROUP, event)
            self.held.discard(event)


async def submit(managed: ManagedTasks) -> str:
    made = await managed.submit(service="sync", user_id="alice", parameters={})
    return made.task_id


def on_reply(
    monkeypatch: pytest.MonkeyPatch,
    outbox: Outbox,
    way: Way,
    meanwhile: Callable[[], Awaitable[None]],
) -> list[OutboxEvent]:
    """Do something while the replies to this kind of question travel; what they hold is listed."""
    replies: list[OutboxEvent] = []
    ask: Callable[..., Awaitable[list[OutboxEvent]]] = getattr(outbox, way)

    async def asked(*arguments: object, **options: object) -> list[OutboxEvent]:
        events = await ask(*arguments, **options)
        replies.extend(events)
        await meanwhile()
        return events

    monkeypatch.setattr(outbox, way, asked)
    return replies


async def test_what_is_new_is_not_taken_for_what_was_left_behind(
    managed: ManagedTasks, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are read in turns, and what is new may end while the reader asks what was left."""
    await outbox.ensure_group(GROUP)
    left = await submit(managed)
    assert len(await outbox.read(GROUP, NAME, count=COUNT, block_ms=0)) == 1
    owner = Owner(outbox, abandoned_seconds=3600)
    new = await submit(managed)
    assert await owner.take() == [left]
    assert await owner.take() == [new]
    replies = on_reply(monkeypatch, outbox, "unfinished", owner.finish)
    assert await owner.take() == []
    assert [event.task_id for event in replies] == [new]


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends meanwhile"])
@pytest.mark.parametrize("way", ["claim", "take_due"])
async def test_what_is_long_in_work_is_not_taken_for_abandoned(
    managed: ManagedTasks, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, way: Way, *, ends: bool
) -> None:
    await outbox.ensure_group(GROUP)
    owner = Owner(outbox, abandoned_seconds=0)
    assert await owner.take() == []
    task_id = await submit(managed)
    if way == "take_due":
        (event,) = await outbox.read(GROUP, NAME, count=COUNT, block_ms=0)
        await outbox.defer(GROUP, event, delay_seconds=0)
    assert await owner.take() == [task_id]

    async def meanwhile() -> None:
        if ends:
            await owner.finish()

    replies = on_reply(monkeypatch, outbox, way, meanwhile)
    assert await owner.take() == []
    assert [event.task_id for event in replies] == [task_id]


async def test_what_another_replica_abandoned_is_taken(
    managed: ManagedTasks, outbox: Outbox
) -> None:
    await outbox.ensure_group(GROUP)
    task_id = await submit(managed)
    assert len(await outbox.read(GROUP, "another", count=COUNT, block_ms=0)) == 1
    owner = Owner(outbox, abandoned_seconds=0)
    assert await owner.take() == []
    assert await owner.take() == [task_id]
    await owner.finish()
    assert (await outbox.depth(GROUP)).pending == 0
