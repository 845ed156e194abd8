"""A thread for each blocking call of an inline handler, which may never come back."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


class _Raised(Exception):
    """Carries what a call raised over to the event loop: a future refuses some exceptions."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


async def in_own_thread(call: Callable[[A], R], argument: A) -> R:
    """`call(argument)` in a thread of its own, with this context's variables.

    Not `asyncio.to_thread`: its few threads are shared with all else that must not block, such as
    looking whether a killed process is gone, and handlers that hang would use them up. A daemon
    thread, so that the process may end while it runs.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[R] = loop.create_future()
    context = contextvars.copy_context()

    def tell(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if ended.done() else settle())

    def run() -> None:
        try:
            result = context.run(call, argument)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            raised = _Raised(error)
            tell(lambda: ended.set_exception(raised))
        else:
            tell(lambda: ended.set_result(result))

    threading.Thread(target=run, name="dms-inline", daemon=True).start()
    try:
        return await ended
    except _Raised as raised:
        raise raised.error from None
