"""The contract suite runs on each server that task_state supports."""

from collections.abc import AsyncGenerator, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from app.event_system import BrokerPort, ConsumerPort, PublisherPort
from app.event_system.infrastructure import InMemoryBroker, RedisBroker
from task_state.admission import Admission
from task_state.changes import Changes
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from task_state.schedules import Schedules
from tests.contract.rclone_place import KINDS, Scene
from tests.contract.servers import RealServer, ServerKind, running
from tests.contract.store import Keyspace
from tests.support.remotes import Remotes, remotes

SERVERS = ["valkey", pytest.param("redis", marks=pytest.mark.redis_server)]


@pytest.fixture(scope="session", params=SERVERS)
def shared_server(request: pytest.FixtureRequest) -> Generator[RealServer]:
    """One server a kind for the whole run; the tests empty it."""
    with running(cast("ServerKind", request.param)) as server:
        yield server


@pytest.fixture(params=SERVERS)
def own_server(request: pytest.FixtureRequest) -> Generator[RealServer]:
    """A server of the test's own, on disk at every write: to be stopped, killed and started."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with running(cast("ServerKind", request.param), *options) as server:
        yield server


@pytest.fixture
def keyspace(shared_server: RealServer) -> Generator[Keyspace]:
    """What the server holds, emptied before the test."""
    with shared_server.client() as client:
        client.flushall()
        yield Keyspace(client)


@pytest_asyncio.fixture
async def provider(
    shared_server: RealServer, keyspace: Keyspace
) -> AsyncGenerator[RedisRepositoryProvider]:
    """A provider on the empty store. The deadline is long: these tests are not about it."""
    settings = RedisRepositorySettings(write_url=shared_server.url, timeout_seconds=60)
    opened = RedisRepositoryProvider(settings)
    await opened.ping()
    keyspace.note_empty()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def repository(provider: RedisRepositoryProvider) -> RedisTaskRepository:
    return await provider.get_repository()


@pytest_asyncio.fixture
async def managed(provider: RedisRepositoryProvider) -> ManagedTasks:
    return await provider.get_managed()


@pytest_asyncio.fixture
async def admission(provider: RedisRepositoryProvider) -> Admission:
    return await provider.get_admission()


@pytest_asyncio.fixture
async def schedules(provider: RedisRepositoryProvider) -> Schedules:
    return await provider.get_schedules()


@pytest_asyncio.fixture
async def outbox(provider: RedisRepositoryProvider) -> Outbox:
    return await provider.get_outbox()


@pytest_asyncio.fixture
async def changes(provider: RedisRepositoryProvider) -> Changes:
    return await provider.get_changes()


@pytest_asyncio.fixture(params=["memory", "redis"])
async def broker(request: pytest.FixtureRequest) -> AsyncGenerator[BrokerPort]:
    """Each broker of events, with nothing in it."""
    if request.param == "memory":
        opened: BrokerPort = InMemoryBroker()
    else:
        opened = RedisBroker(request.getfixturevalue("dms_redis_url"), timeout=60)
    async with opened:
        yield opened


@pytest.fixture
def publisher(broker: BrokerPort) -> PublisherPort:
    return broker.publisher()


@pytest.fixture
def consumer(broker: BrokerPort) -> ConsumerPort:
    return broker.consumer()


@pytest.fixture(scope="session")
def remote_servers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Remotes]:
    """A server of each kind that rclone speaks to in these tests, each with a bucket."""
    with remotes(tmp_path_factory.mktemp("remotes")) as found:
        for kind in KINDS:
            (found.start(kind).top / "bucket").mkdir()
        yield found


@pytest.fixture
def scene(remote_servers: Remotes, tmp_path: Path, scene_numbers: Iterator[int]) -> Scene:
    """A place of its own at each server, and a source."""
    (tmp_path / "src").mkdir()
    return Scene(remote_servers, tmp_path, f"test {next(scene_numbers)}")


@pytest.fixture(scope="session")
def scene_numbers() -> Iterator[int]:
    """Numbers that tell the scenes of a run apart."""
    return count()
