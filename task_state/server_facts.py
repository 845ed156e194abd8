"""What the server of the task store says of itself: the ground that every promise stands on."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from task_state import keys
from task_state._store import Store

_READ_ONLY = "slave"
_Command = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One server, as INFO and CONFIG tell it. None: it does not say, or the ACL forbids to ask.

    `data_id` is the same on servers that hold the same data (the replication id). `clock_ahead`
    is by how many seconds its clock is surely ahead of this machine's (or behind), the
    round trip taken off.
    """

    name: str
    version: str
    role: str
    data_id: str
    replicas: int
    link_up: bool
    eviction: str | None
    append_only: bool
    fsync: str | None
    last_write_ok: bool
    used_bytes: int
    most_bytes: int
    clock_ahead: float


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A consumer group of the outbox: events not read (None: unknown), read and not done, put off;
    and how long ago, in seconds, its liveliest consumer last asked (None: it has none)."""

    name: str
    unread: int | None
    pending: int
    put_off: int
    quiet_seconds: float | None


@dataclass(frozen=True, slots=True)
class RescueFacts:
    """When a rescuer last ran, and since when without a gap, in seconds ago; None: never."""

    last_seconds: float | None
    since_seconds: float | None


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker that attends: how many attempts it can run, and for how long it is believed (less
    than nothing: it has been silent)."""

    name: str
    slots: int
    believed_seconds: float


class StoreServer:
    """Asks the writer and the reader. Raises StoreUnavailableError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def writer(self) -> ServerFacts:
        """The server that is written to."""
        return await self._facts(self._store.writer)

    async def reader(self) -> ServerFacts:
        """The server that lists are read from; it may be the same."""
        return await self._facts(self._store.reader)

    async def schema(self) -> str | None:
        """The version of the layout that the store has."""
        found = await self._call(lambda redis: redis.get(keys.SCHEMA))
        return None if found is None else cast("bytes", found).decode()

    async def groups(self) -> list[GroupFacts]:
        """The consumer groups of the outbox."""
        found: list[GroupFacts] = []
        for row in await self._rows(lambda redis: redis.xinfo_groups(keys.OUTBOX)):
            name = row["name"].decode()
            found.append(await self._group(name, row.get("lag"), row["pending"]))
        return found

    async def _group(self, name: str, unread: int | None, pending: int) -> GroupFacts:
        consumers = await self._rows(lambda redis: redis.xinfo_consumers(keys.OUTBOX, name))
        put_off = await self._call(lambda redis: redis.zcard(keys.due(name)))
        quiet = min((each["idle"] / 1000 for each in consumers), default=None)
        return GroupFacts(name, unread, pending, put_off, quiet)

    async def rescue(self) -> RescueFacts:
        """How the rescuers do."""
        key = keys.PREFIX + "rescue"
        last, since = await self._call(lambda redis: redis.hmget(key, ["last", "since"]))
        now_ms = await self._now_ms()
        return RescueFacts(
            *(None if at is None else (now_ms - int(at)) / 1000 for at in (last, since))
        )

    async def workers(self) -> list[WorkerFacts]:
        """The workers that said how much they can run."""
        found = await self._call(lambda redis: redis.hgetall(keys.WORKERS))
        now_ms = await self._now_ms()
        workers: list[WorkerFacts] = []
        for name, value in cast("dict[bytes, bytes]", found).items():
            slots, believed = value.decode().split(" ")
            workers.append(
                WorkerFacts(name.decode(), int(slots), (float(believed) - now_ms) / 1000)
            )
        return workers

    async def _now_ms(self) -> float:
        seconds, micros = await self._call(lambda redis: redis.time())
        return seconds * 1000 + micros / 1000

    async def _facts(self, redis: "Redis") -> ServerFacts:
        before = time.time()
        seconds, micros = await self._store.call(lambda: cast("Any", redis.time()))
        ahead = _ahead(seconds + micros / 1_000_000, before, time.time())
        info = await self._store.call(lambda: cast("Any", redis.info("everything")))
        config = await self._config(redis)
        role = str(info["role"])
        return ServerFacts(
            name="valkey" if "valkey_version" in info else "redis",
            version=str(info.get("valkey_version") or info["redis_version"]),
            role=role,
            data_id=str(info["master_replid"]),
            replicas=int(info["connected_slaves"]),
            link_up=role != _READ_ONLY or info.get("master_link_status") == "up",
            eviction=info.get("maxmemory_policy"),
            append_only=bool(info.get("aof_enabled")),
            fsync=config.get("appendfsync"),
            last_write_ok=info.get("aof_last_write_status", "ok") == "ok",
            used_bytes=int(info["used_memory"]),
            most_bytes=int(info.get("maxmemory", 0)),
            clock_ahead=ahead,
        )

    async def _config(self, redis: "Redis") -> Mapping[str, str]:
        """What CONFIG tells; nothing where the ACL forbids to ask."""

        async def ask() -> Any:
            try:
                return await cast("Any", redis.config_get("appendfsync"))
            except ResponseError:
                return {}

        found = cast("dict[str | bytes, str | bytes]", await self._store.call(ask))
        return {_text(name): _text(value) for name, value in found.items()}

    async def _rows(self, command: _Command) -> list[dict[str, Any]]:
        """The rows of an XINFO; none where the stream is not there."""

        async def ask() -> Any:
            try:
                return await command(self._store.writer)
            except ResponseError:
                return []

        return cast("list[dict[str, Any]]", await self._store.call(ask))

    async def _call(self, command: _Command) -> Any:
        return await self._store.call(lambda: command(self._store.writer))


def _ahead(there: float, before: float, after: float) -> float:
    """By how much a clock that said `there` at some time in between was surely ahead or behind."""
    return max(there - after, 0.0) or min(there - before, 0.0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
