"""Checkpoints on their way: what a handler may save, and how the lease carries it to the store."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from app.tasks import CheckpointError
from dms_scheduler.checkpoint import SavedCheckpoint
from dms_scheduler.lease import Lease, LeaseEvents
from dms_scheduler.series import Series
from task_state import InvalidRequestError, StoreUnavailableError, TaskStatus
from task_state.managed import MAX_CHECKPOINT_BYTES, Checkpoint, Kept, ManagedTasks


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


# -------------------------------------------------------------------------- what a handler may save
@pytest.mark.parametrize(
    ("value", "read"),
    [
        ((1, 2), [1, 2]),
        ({"path": Path("/a"), 3: {4}}, {"path": "/a", "3": [4]}),
        ("파일 \udcff", "파일 \\udcff"),
        (None, None),
        ("x" * (MAX_CHECKPOINT_BYTES - 2), "x" * (MAX_CHECKPOINT_BYTES - 2)),
    ],
)
def test_what_is_saved_is_read_as_json_gives_it_back(value: Any, read: Any) -> None:
    saved = SavedCheckpoint("before")
    assert saved.read() == "before"
    assert saved.save(value) == read
    assert saved.read() == read


def test_nobody_changes_a_checkpoint_by_changing_what_was_read() -> None:
    value = {"done": [1]}
    saved = SavedCheckpoint(None)
    saved.save(value)
    value["done"].append(2)
    saved.read()["done"].append(3)
    assert saved.read() == {"done": [1]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x" * (MAX_CHECKPOINT_BYTES - 1), "65537 bytes of JSON, more than 65536"),
        ("한" * 21_846, "65540 bytes of JSON"),
        (math.nan, "cannot be written as JSON"),
        (object(), "cannot be written as JSON"),
        (nested(500), "cannot be written as JSON"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_the_last_one(value: Any, reason: str) -> None:
    saved = SavedCheckpoint("before")
    with pytest.raises(CheckpointError, match=reason):
        saved.save(value)
    assert saved.read() == "before"


# -------------------------------------------------------------------------------- how it is carried
class Heartbeats:
    """Stands where ManagedTasks does, so that a test decides what each heartbeat meets."""

    def __init__(self, *answers: Exception | None) -> None:
        self.sent: list[tuple[dict[str, Any] | None, Any]] = []
        self.hold: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self.adjusted: dict[str, Any] = {}
        self.series: list[bytes] = []
        self._answers = list(answers)

    async def heartbeat(
        self, task_id: str, epoch: int, *, checkpoint: Checkpoint | None = None, **rest: Any
    ) -> Kept:
        self.sent.append((rest.get("progress"), None if checkpoint is None else checkpoint.value))
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            raise answer
        self.series += [rest["series"]] if rest.get("series") else []
        return Kept(TaskStatus.RUNNING, self.adjusted)

    @property
    def saved(self) -> list[Any]:
        """The checkpoints that were sent."""
        return [value for _, value in self.sent if value is not None]


def made(store: Heartbeats, series: Series | None = None) -> Lease:
    """A lease whose own heartbeats are an hour away."""
    return Lease(
        cast("ManagedTasks", store),
        "7",
        1,
        lease_seconds=7200.0,
        heartbeat_seconds=3600.0,
        begun=time.monotonic(),
        adjusted={},
        series=series or Series(0),
    )


@asynccontextmanager
async def kept(
    lease: Lease, adjusted: Callable[[dict[str, Any]], object] = lambda _: None
) -> AsyncGenerator[None]:
    def nothing(*_: object) -> None:
        """Nobody listens."""

    events = LeaseEvents(
        deadline=nothing,
        cancel_requested=nothing,
        fenced=nothing,
        expired=nothing,
        adjusted=lambda values: nothing(adjusted(values)),
    )
    running = asyncio.create_task(lease.run(events))
    yield
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_checkpoint_is_sent_at_once_and_settled_by_its_arrival() -> None:
    store = Heartbeats()
    lease = made(store)
    async with kept(lease):
        lease.checkpoint({"n": 1})
        await eventually(lambda: store.saved == [{"n": 1}])
    await lease.settle(succeeded=False)
    assert store.saved == [{"n": 1}], "it has arrived, so it is not sent again"


async def test_of_many_checkpoints_the_newest_is_sent_when_the_last_write_is_done() -> None:
    store = Heartbeats()
    store.hold = asyncio.Event()
    lease = made(store)
    async with kept(lease):
        lease.checkpoint(1)
        await store.arrived.wait()
        for number in range(2, 1000):
            lease.checkpoint(number)
        assert store.saved == [1]
        store.hold.set()
        await eventually(lambda: store.saved[-1] == 999)
    assert store.saved == [1, 999]


async def test_a_heartbeat_that_was_cut_off_leaves_its_checkpoint_to_be_settled() -> None:
    store = Heartbeats()
    store.hold = asyncio.Event()
    lease = made(store)
    async with kept(lease):
        lease.checkpoint("last words")
        await store.arrived.wait()
    store.hold.set()
    await lease.settle(succeeded=False)
    assert store.saved == ["last words", "last words"]


async def test_settling_goes_on_until_the_store_is_back() -> None:
    store = Heartbeats(StoreUnavailableError("away"), StoreUnavailableError("away"))
    lease = made(store)
    lease.checkpoint("kept")
    await lease.settle(succeeded=False)
    assert store.saved == ["kept"] * 3


async def test_nothing_saved_is_nothing_to_settle() -> None:
    store = Heartbeats()
    await made(store).settle(succeeded=False)
    assert store.sent == []


async def test_a_checkpoint_outlives_bad_progress() -> None:
    store = Heartbeats(InvalidRequestError("progress cannot be written as JSON"))
    lease = made(store)
    lease.progress({"bad": 1}, advanced=False)
    lease.checkpoint("good")
    async with kept(lease):
        await eventually(lambda: len(store.sent) == 2)
    assert store.sent == [({"bad": 1}, "good"), (None, "good")]


async def test_a_checkpoint_that_is_refused_itself_does_not_stop_the_heartbeats() -> None:
    store = Heartbeats(InvalidRequestError("checkpoint cannot be written as JSON"))
    lease = made(store)
    lease.checkpoint("bad")
    async with kept(lease):
        await store.arrived.wait()
        await eventually(lambda: len(store.sent) == 1)
        lease.progress({"n": 1}, advanced=True)
        await eventually(lambda: len(store.sent) == 2)
    assert store.sent == [(None, "bad"), ({"n": 1}, None)]


# ------------------------------------------------------------------- what else a heartbeat carries
async def test_what_was_adjusted_is_told_once() -> None:
    store, told = Heartbeats(), list[dict[str, Any]]()
    lease = made(store)
    async with kept(lease, told.append):
        for limit in (5, 5, 7):
            store.adjusted = {"bandwidth": limit}
            count = len(store.sent)
            lease.beat_now()
            await eventually(lambda count=count: len(store.sent) > count)
    assert told == [{"bandwidth": 5}, {"bandwidth": 7}]
    assert lease.adjusted == {"bandwidth": 7}


async def test_a_series_is_settled_whatever_the_end_was() -> None:
    for succeeded in (True, False):
        store, series = Heartbeats(StoreUnavailableError("away")), Series(0)
        lease = made(store, series)
        series.add({"bytes": 5})
        await lease.settle(succeeded=succeeded)
        assert len(store.series) == 1
        assert b'"last":[5,0]' in store.series[0]


async def test_a_checkpoint_of_a_success_goes_to_nobody() -> None:
    store = Heartbeats()
    lease = made(store)
    lease.checkpoint("for the next one")
    await lease.settle(succeeded=True)
    assert store.sent == []


async def test_a_series_that_did_not_arrive_goes_with_the_next_heartbeat() -> None:
    store, series = Heartbeats(StoreUnavailableError("away")), Series(0)
    lease = made(store, series)
    series.add({"bytes": 5})
    async with kept(lease):
        lease.beat_now()
        await eventually(lambda: len(store.series) == 1)
    assert len(store.sent) == 2
