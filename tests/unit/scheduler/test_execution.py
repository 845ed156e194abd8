"""A worker's bookkeeping of its calls, without a store."""

import asyncio
from typing import Any

from dms_scheduler.ending import AttemptSettings, Tools
from dms_scheduler.execution import Executor


def made(put_back: Any) -> Executor:
    """An executor that must not touch its store: nothing here begins an attempt."""
    nothing: Any = None
    settings = AttemptSettings(worker="w", term_seconds=0.0, cancel_grace_seconds=0.0)
    return Executor(Tools(nothing, nothing, nothing, nothing, settings), put_back)


async def test_a_call_that_comes_after_the_drain_began_is_put_back() -> None:
    back: list[tuple[str, int]] = []

    async def put_back(task_id: str, epoch: int) -> None:
        back.append((task_id, epoch))

    executor = made(put_back)
    assert await executor.drain(0.0, asyncio.Event())
    await executor.run("1", 7)
    assert back == [("1", 7)]


async def test_the_engines_cancel_does_not_cut_a_call_short() -> None:
    go = asyncio.Event()
    ended: list[str] = []

    async def put_back(task_id: str, _epoch: int) -> None:
        await go.wait()
        ended.append(task_id)

    executor = made(put_back)
    await executor.drain(0.0, asyncio.Event())
    call = asyncio.create_task(executor.run("1", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0)
    await executor.run("1", 1)  # the same call again is a no-op
    go.set()
    await call
    assert ended == ["1"]
    assert not call.cancelled()
