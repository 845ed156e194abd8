"""Both faces of the client behind one: a test written once is run on each of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

from app.client import AsyncClient, Client

FaceName = Literal["sync", "async"]
FACES: tuple[FaceName, ...] = ("sync", "async")


class Face:
    """`await face.call("submit", ...)`, and `async for line in face.each("follow", ...)`."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    async def call(self, name: str, *args: Any, **options: Any) -> Any:
        """What that method of the client returns."""
        method = getattr(self.client, name)
        if isinstance(self.client, AsyncClient):
            return await method(*args, **options)
        return await asyncio.to_thread(method, *args, **options)

    async def each(self, name: str, *args: Any, **options: Any) -> AsyncGenerator[Any]:
        """The items that it gives; left early, the client's own iterator is closed."""
        items = getattr(self.client, name)(*args, **options)
        if isinstance(self.client, AsyncClient):
            async with aclosing(items):
                async for item in items:
                    yield item
            return
        try:
            async for item in _in_threads(items):
                yield item
        finally:
            items.close()


async def _in_threads(items: Iterator[Any]) -> AsyncIterator[Any]:
    over = object()
    while (item := await asyncio.to_thread(next, items, over)) is not over:
        yield item


def _no_time(_: float) -> None:
    """A pause that takes none."""


async def _no_time_either(_: float) -> None:
    """The same to be awaited; others have their turn."""
    await asyncio.sleep(0)


@asynccontextmanager
async def face_of(
    name: FaceName, base_url: str, *, token: str = "", timeout: float = 30.0, quick: bool = False
) -> AsyncGenerator[Face]:
    """A face of a client of that API; the pauses of a `quick` one take no time."""
    if name == "sync":
        pauses: dict[str, Any] = {"pause": _no_time} if quick else {}
        with Client(base_url, token=token, timeout=timeout, **pauses) as client:
            yield Face(client)
        return
    pauses = {"pause": _no_time_either} if quick else {}
    async with AsyncClient(base_url, token=token, timeout=timeout, **pauses) as client:
        yield Face(client)
