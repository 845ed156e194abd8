"""The frontend's client of the scheduler, on the event loop that it has in service."""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import uvloop

from app.core.errors import SchedulerUnavailableError
from app.services.scheduler import SchedulerClient, TaskCall
from tests.support.frontend import make_settings

_AT_ONCE, _ROUNDS = 24, 30


@contextmanager
def resetting_server() -> Generator[str]:
    """Resets every connection as soon as it is made, as a dying process does; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()
        thread = threading.Thread(target=_reset_all, args=(listening, ended))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            with socket.create_connection(listening.getsockname()[:2]):
                thread.join()


def _reset_all(listening: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        connection, _ = listening.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def test_a_connection_that_is_reset_at_any_moment_means_unavailable() -> None:
    """Seldom enough the reset comes between two steps of the HTTP library, hence so many calls."""
    with resetting_server() as address:
        raised = uvloop.run(_call_often(address))
    assert raised == {SchedulerUnavailableError: _AT_ONCE * _ROUNDS}


async def _call_often(address: str) -> Counter[type[BaseException]]:
    settings = make_settings("redis://h/0", scheduler_base_url=address, event_worker_count=_AT_ONCE)
    client = SchedulerClient(settings)
    raised: Counter[type[BaseException]] = Counter()
    call = TaskCall("1", "sync", "alice")
    for _ in range(_ROUNDS):
        calls = [client.submit(call, {}) for _ in range(_AT_ONCE)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, BaseException)
            raised[type(result)] += 1
    await client.close()
    return raised
