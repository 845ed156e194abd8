"""Connects programs to the task store in Redis or Valkey."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from task_state._store import Store
from task_state.admission import Admission
from task_state.audit import Audit
from task_state.changes import Changes
from task_state.errors import ConfigurationError
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.reports import Reports
from task_state.repository import RedisTaskRepository
from task_state.retention import Retention
from task_state.schedules import Schedules
from task_state.server_facts import StoreServer

NINETY_DAYS = 7_776_000
CENTURY = 3_155_760_000


class RedisRepositorySettings(BaseModel):
    """Where the task store is, and how long its records live.

    `read_url` defaults to `write_url`. `task_ttl_seconds` runs from the last write of an unmanaged
    record, and from the end of a managed one. With `wait_replicas` a write succeeds only once so
    many replicas have confirmed it. `timeout_seconds` is the whole deadline of one call.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    write_url: str = Field(min_length=1)
    read_url: str | None = None
    task_ttl_seconds: int = Field(default=NINETY_DAYS, gt=0, le=CENTURY)
    wait_replicas: int = Field(default=0, ge=0)
    timeout_seconds: float = Field(default=2.0, gt=0)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "RedisRepositorySettings":
        """Read DMS_REDIS_WRITE_URL (required), DMS_REDIS_READ_URL, DMS_REDIS_TASK_TTL_SECONDS and
        DMS_REDIS_WAIT_REPLICAS; raises ConfigurationError."""
        env = os.environ if environ is None else environ
        if not env.get("DMS_REDIS_WRITE_URL"):
            raise ConfigurationError(
                "DMS_REDIS_WRITE_URL is not set: give the task store's URL, such as "
                "redis://localhost:6379/0"
            )
        names = {
            "write_url": "DMS_REDIS_WRITE_URL",
            "read_url": "DMS_REDIS_READ_URL",
            "task_ttl_seconds": "DMS_REDIS_TASK_TTL_SECONDS",
            "wait_replicas": "DMS_REDIS_WAIT_REPLICAS",
        }
        values = {field: env[name] for field, name in names.items() if env.get(name)}
        values.setdefault("read_url", values["write_url"])
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = names[str(first["loc"][0])]
            raise ConfigurationError(f"{name} is wrong: {first['msg']}") from error


class RedisRepositoryProvider:
    """Owns the connections: open on first use, closed by close(), closed too when opening fails."""

    def __init__(self, settings: RedisRepositorySettings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._store: Store | None = None
        self._opening: asyncio.Task[Store] | None = None

    async def get_repository(self) -> RedisTaskRepository:
        """The repository; raises StoreUnavailableError when Redis does not answer."""
        return RedisTaskRepository(await self._open())

    async def get_managed(self) -> ManagedTasks:
        """The life of managed tasks, on the same connections."""
        return ManagedTasks(await self._open())

    async def get_admission(self) -> Admission:
        """Who gets the next slot, and which services are paused, on the same connections."""
        return Admission(await self._open())

    async def get_outbox(self) -> Outbox:
        """The outbox, on the same connections."""
        return Outbox(await self._open())

    async def get_retention(self) -> Retention:
        """The removal and export of finished tasks, on the same connections."""
        return Retention(await self._open())

    async def get_reports(self) -> Reports:
        """The reports of tasks and their series, on the same connections."""
        return Reports(await self._open())

    async def get_schedules(self) -> Schedules:
        """The stored schedules, on the same connections."""
        return Schedules(await self._open())

    async def get_audit(self, group: str, *, mend: bool = False) -> Audit:
        """A walk over the store that compares, and with `mend` repairs; `group` is the one that
        dispatches tasks."""
        return Audit(await self._open(), group=group, mend=mend)

    async def get_server(self) -> StoreServer:
        """What the servers say of themselves, on the same connections."""
        return StoreServer(await self._open())

    async def get_changes(self) -> Changes:
        """The stream of changes, on the same connections."""
        return Changes(await self._open())

    async def ping(self) -> None:
        """Raise StoreUnavailableError unless writer and reader answer."""
        await (await self._open()).ping()

    async def close(self) -> None:
        """Close the connections; closing twice is harmless, and get_repository() opens again.
        One that is just being opened is waited for, in its deadline, and closed too."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
        self._store = None
        await self._stack.aclose()

    async def _open(self) -> Store:
        """The store. Calls that come while it is being opened share that attempt and its failure:
        were they to take turns, each would wait for all the time-outs before its own."""
        if self._store is not None:
            return self._store
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, opening: asyncio.Task[Store]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._store = opening.result()

    async def _connect(self) -> Store:
        settings = self._settings
        async with AsyncExitStack() as stack:
            writer = _client(settings.write_url, stack)
            reader = _client(settings.read_url or settings.write_url, stack)
            store = Store(
                writer,
                reader,
                ttl_seconds=settings.task_ttl_seconds,
                timeout=settings.timeout_seconds,
                wait_replicas=settings.wait_replicas,
            )
            await store.ping()
            self._stack = stack.pop_all()
        return store


def _client(url: str, stack: AsyncExitStack) -> Redis:
    # No retries of redis-py's own: its default repeats a command whose reply was lost, which
    # doubles writes. No socket time-out: the store's deadline covers the call, blocking reads too.
    try:
        client = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            max_connections=512,
            # A lone surrogate (a file name that is not UTF-8) is kept in a form that can be read.
            encoding_errors="backslashreplace",
            protocol=2,
        )
    except ValueError as error:
        raise ConfigurationError(
            f"the task store's URL is wrong: {error}; use redis://host:port/0, rediss:// or unix://"
        ) from error
    stack.push_async_callback(client.aclose)
    return client
