"""The threads of inline handlers: their own, with what they return and raise."""

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from dms_scheduler.threads import in_own_thread

word: ContextVar[str] = ContextVar("word")


async def test_the_call_has_its_own_thread_and_the_callers_context() -> None:
    def call(argument: int) -> tuple[int, str, bool]:
        return argument + 1, word.get(), threading.current_thread().daemon

    word.set("서울")
    assert await in_own_thread(call, 1) == (2, "서울", True)


@pytest.mark.parametrize("error", [ValueError("v"), StopIteration(3), SystemExit(4)])
async def test_what_it_raises_is_raised_here(error: BaseException) -> None:
    def call(_: None) -> None:
        raise error

    caught: BaseException | None = None
    try:
        await in_own_thread(call, None)
    except BaseException as raised:  # noqa: BLE001 - it is looked at below
        caught = raised
    # A coroutine cannot raise StopIteration: Python turns it into a RuntimeError.
    assert caught is error or (isinstance(caught, RuntimeError) and caught.__cause__ is error)


async def test_calls_that_hang_leave_the_common_threads_alone() -> None:
    go, started = threading.Event(), threading.Semaphore(0)

    def hang(_: None) -> bool:
        started.release()
        return go.wait(60)

    hanging = [asyncio.create_task(in_own_thread(hang, None)) for _ in range(40)]
    try:
        async with asyncio.timeout(60):
            for _ in hanging:
                await asyncio.to_thread(started.acquire)
        assert not any(task.done() for task in hanging)
    finally:
        go.set()
    assert await asyncio.gather(*hanging) == [True] * 40


async def test_a_call_that_nobody_awaits_any_more_ends_unnoticed() -> None:
    go, over = threading.Event(), threading.Event()

    def late(_: None) -> Any:
        go.wait(60)
        over.set()
        raise ValueError("nobody hears it")

    task = asyncio.create_task(in_own_thread(late, None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert await asyncio.to_thread(over.wait, 60)
