"""A worker's bookkeeping of its calls, without a store."""

import asyncio
from collections.abc import Callable
from typing import Any

from dms_scheduler.ending import AttemptSettings, Tools
from dms_scheduler.execution import Executor


def made(
    put_back: Any, repository: Any = None, ended: Callable[[], None] = lambda: None
) -> Executor:
    """An executor that must not touch its store: nothing here begins an attempt."""
    nothing: Any = None
    settings = AttemptSettings(worker="w", term_seconds=0.0, cancel_grace_seconds=0.0)
    return Executor(Tools(nothing, repository, nothing, settings, nothing), put_back, ended)


async def test_a_call_that_comes_after_the_drain_began_is_put_back() -> None:
    back: list[tuple[str, int]] = []

    async def put_back(task_id: str, epoch: int) -> None:
        back.append((task_id, epoch))

    executor = made(put_back)
    assert await executor.drain(0.0, asyncio.Event())
    await executor.run("1", 7)
    assert back == [("1", 7)]


class SlowRepository:
    """Finds no record, when it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.answers = 0

    async def get(self, task_id: str) -> None:
        self.asked.set()
        await self.go.wait()
        self.answers += 1


async def test_the_engines_cancel_does_not_cut_a_call_short() -> None:
    async def put_back(_task_id: str, _epoch: int) -> None:
        raise AssertionError("nothing is drained here")

    ends: list[str] = []
    repository = SlowRepository()
    executor = made(put_back, repository, lambda: ends.append("1"))
    call = asyncio.create_task(executor.run("1", 1))
    await repository.asked.wait()
    call.cancel()
    await asyncio.sleep(0)
    await executor.run("1", 1)  # the same call again is a no-op
    assert not ends, "its slot is still taken"
    repository.go.set()
    await call
    assert repository.answers == 1
    assert ends == ["1"], "its slot is free"
    assert not call.cancelled()


async def test_a_worker_that_leaves_takes_its_calls_along() -> None:
    async def put_back(_task_id: str, _epoch: int) -> None:
        raise AssertionError("the call came before the drain")

    repository = SlowRepository()
    executor = made(put_back, repository)
    call = asyncio.create_task(executor.run("1", 1))
    await repository.asked.wait()
    assert not await executor.drain(0.0, asyncio.Event())
    await asyncio.wait({call})
    assert repository.answers == 0
