"""How the task store talks to Redis: two clients, one deadline, one way to run a script."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from task_state import keys
from task_state._scripts import Script, script
from task_state.errors import (
    ConfigurationError,
    ConflictError,
    FencedError,
    IdempotencyMismatchError,
    InvalidRequestError,
    LeaseHeldError,
    ServiceDrainingError,
    StoreUnavailableError,
    TaskEndedError,
    TaskNotFoundError,
    TransitionError,
)

Argument = str | bytes | int
_CONFLICTS = {
    "REVISION": "it was changed since it was loaded: load it again and repeat the change",
    "OWNER": "its service and user never change: save a new task instead",
    "ACTIVE": "its id belongs to a managed task that is still active: choose another id",
}


def _refused(reply: Any) -> list[str]:
    parts = cast("list[bytes]", reply) if isinstance(reply, list) else []
    return [part.decode() for part in parts[1:]] if parts and parts[0] == b"!" else []


def _refusal(task_id: str, requested: str, code: str, *rest: str) -> NoReturn:
    match code:
        case "MISSING":
            raise TaskNotFoundError(task_id)
        case "TRANSITION":
            raise TransitionError(rest[0], requested)
        case "CONFLICT":
            raise ConflictError(f"task {task_id!r} was not written: {_CONFLICTS[rest[0]]}")
        case "ENDED":
            raise TaskEndedError(task_id, rest[0])
        case "LEASED":
            raise LeaseHeldError(task_id)
        case "DRAINING":
            raise ServiceDrainingError(rest[0])
        case "MISMATCH":
            raise IdempotencyMismatchError
        case "UNMANAGED":
            raise InvalidRequestError(
                f"task {task_id!r} belongs to the program that saved it: DMS does not run it"
            )
        case _:
            raise AssertionError(f"the scripts have no refusal {code!r}")


class Store:
    """The writer and the reader of one task store, and the deadline of every call to them.

    A call that Redis does not answer within `timeout` seconds in all (connecting, waiting for a
    connection and replies included) raises StoreUnavailableError. Nothing is ever retried here: a
    repeat must be safe by revision, epoch or idempotency key, and only the caller knows.
    """

    def __init__(
        self,
        writer: "Redis",
        reader: "Redis",
        *,
        ttl_seconds: int,
        timeout: float,
        wait_replicas: int = 0,
        concurrency: int = 128,
    ) -> None:
        self.writer = writer
        self.reader = reader
        self.timeout = timeout
        self._ttl_ms = ttl_seconds * 1000
        self._wait = wait_replicas
        self._slots = asyncio.Semaphore(concurrency)
        self._schema_known = False
        self.seen = 0
        """The latest change that this process knows of, in µs; admission compares it."""

    async def _within(self, answer: Awaitable[Any], seconds: float | None = None) -> Any:
        """Await it; every fault of Redis becomes StoreUnavailableError, in time."""
        limit = self.timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"the task store did not answer within {limit:g} s: is Redis up and reachable?"
            ) from error
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the task store failed: {error}") from error

    async def write(self, name: str, *args: Argument) -> Any:
        """Run a mutating script on the writer: one round trip. Its refusals are returned as is."""
        return await self._within(self._run(self.writer, script(name), args, self._wait))

    async def mutate(
        self, name: str, task_id: str, *args: Argument, requested: str = "", epoch: int = 0
    ) -> Any:
        """Run a script on one task, and raise what it refuses."""
        reply: Any = await self.write(name, task_id, *args)
        if refused := _refused(reply):
            code, *rest = refused
            if code == "FENCED" or (epoch and code == "MISSING"):
                raise FencedError(task_id, epoch)
            _refusal(task_id, requested, code, *rest)
        return reply

    async def read(self, name: str, *args: Argument, fresh: bool = False) -> Any:
        """Run a read-only script, on the reader unless the answer must be `fresh`."""
        client = self.writer if fresh else self.reader
        return await self._within(self._run(client, script(name), args, 0))

    async def call(
        self, command: Callable[[], Awaitable[Any]], *, seconds: float | None = None
    ) -> Any:
        """Await one plain command under the deadline."""
        return await self._within(self._command(command), seconds)

    async def time_us(self) -> int:
        """The writer's clock: microseconds since 1970."""
        seconds, rest = await self.call(lambda: cast("Awaitable[Any]", self.writer.time()))
        return seconds * 1_000_000 + rest

    async def ping(self) -> None:
        """Raise StoreUnavailableError unless both ends answer."""
        await self._within(self._ping())

    async def _ping(self) -> None:
        await cast("Awaitable[Any]", self.writer.ping())
        await cast("Awaitable[Any]", self.reader.ping())

    async def _command(self, command: Callable[[], Awaitable[Any]]) -> Any:
        if not self._schema_known:
            await self._check_schema()
        return await command()

    async def _run(
        self, client: "Redis", wanted: Script, args: Sequence[Argument], wait: int
    ) -> Any:
        arguments = (keys.PREFIX, self._ttl_ms, *args)
        async with self._slots:
            if not self._schema_known:
                await self._check_schema()
            try:
                return await self._evaluate(client, wanted.sha, arguments, wait)
            except NoScriptError:
                await cast("Awaitable[Any]", client.script_load(wanted.source))
                return await self._evaluate(client, wanted.sha, arguments, wait)

    async def _evaluate(
        self, client: "Redis", sha: str, args: Sequence[Argument], wait: int
    ) -> Any:
        # The scripts make their key names from the prefix: all share one hash tag, hence one slot,
        # and KEYS names one of them for a cluster's routing.
        command = ("EVALSHA", sha, 1, keys.SCHEMA, *args)
        if not wait:
            return cast("Any", await client.execute_command(*command))
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command(*command)
        # Before our own deadline, so that the caller learns which of the two failed.
        pipeline.execute_command("WAIT", wait, int(self.timeout * 800))
        reply, replicas = await pipeline.execute()
        if replicas < wait:
            raise StoreUnavailableError(
                f"written, but only {replicas} of {wait} replicas confirmed it in time, so it may "
                "yet be lost: repeat with the same key"
            )
        return reply

    async def _check_schema(self) -> None:
        newest = keys.SCHEMA_VERSION
        found = await self.reader.get(keys.SCHEMA)
        # The writer is asked too: the reader may only lag behind.
        if found is None or int(cast("bytes", found)) < newest:
            await self.writer.set(keys.SCHEMA, str(newest), nx=True)
            found = await self.writer.get(keys.SCHEMA)
        version = int(cast("bytes", found))
        if not keys.OLDEST_SCHEMA <= version <= newest + 1:
            raise ConfigurationError(
                f"the task store has layout {version}, this version of DMS reads "
                f"{keys.OLDEST_SCHEMA} to {newest + 1}: run the version that matches"
            )
        if version < newest:
            # From now on the older version refuses this store: it cannot read what we write.
            marks = {keys.OLDER: "1"} if version < keys.COUNTED_SCHEMA else {}
            await self.writer.mset({**marks, keys.SCHEMA: str(newest)})
        self._schema_known = True
