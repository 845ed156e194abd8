"""How the events talk to Redis: one client, one deadline, one way to run a script."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from app.event_system.domain.errors import BrokerUnavailableError, ClosedError, ConfigurationError
from app.event_system.infrastructure._scripts import Script, script

PREFIX: Final = "dms:{events}:"
GROUP: Final = "members"
"""The one consumer group of each queue's stream."""

Argument = str | bytes | int
Fields = dict[bytes, bytes]
Entry = tuple[str, Fields]


class Link:
    """The connections of one broker. A call that is not answered within `timeout` seconds in all
    raises BrokerUnavailableError; nothing is repeated here, for only the caller knows whether a
    repeat is harmless."""

    def __init__(self, url: str, *, prefix: str, timeout: float) -> None:
        self.prefix = prefix
        self.timeout = timeout
        self.closed = False
        self._client = _client(url)

    def queue_key(self, queue_id: str) -> str:
        """The stream of a queue."""
        return f"{self.prefix}queue:{queue_id}"

    @property
    def dead_key(self) -> str:
        """The stream of dead letters."""
        return f"{self.prefix}dead"

    def connection(self) -> "Reader":
        """A connection of its own, for reads that block; the caller closes it."""
        self._check_open()
        return Reader(self, self._client.client())

    async def run(self, name: str, *args: Argument) -> Any:
        """Run a script: one round trip."""
        self._check_open()
        return await self.within(self._evaluate(script(name), args))

    async def call(self, *command: Argument) -> Any:
        """Run one command."""
        self._check_open()
        return await self.within(cast("Awaitable[Any]", self._client.execute_command(*command)))

    async def close(self) -> None:
        """Close the connections."""
        self.closed = True
        await self._client.aclose()

    async def within(self, answer: Awaitable[Any], seconds: float = 0.0) -> Any:
        """Await it, `seconds` longer than the deadline; every fault becomes our own error."""
        limit = self.timeout + seconds
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError as error:
            raise BrokerUnavailableError(
                f"the event broker did not answer within {limit:g} s; whether it did what it was "
                "asked is unknown: is Redis up and reachable? Then repeat it"
            ) from error
        except (RedisError, OSError) as error:
            raise BrokerUnavailableError(
                f"the event broker failed ({error}); whether it did what it was asked is unknown: "
                "see to Redis, then repeat it"
            ) from error

    async def _evaluate(self, wanted: Script, args: Sequence[Argument]) -> Any:
        # Scripts make their keys of the prefix, which is one hash tag and so one slot of a cluster.
        command = ("EVALSHA", wanted.sha, 1, f"{self.prefix}version", self.prefix, *args)
        try:
            return cast("Any", await self._client.execute_command(*command))
        except NoScriptError:
            await cast("Awaitable[Any]", self._client.script_load(wanted.source))
            return cast("Any", await self._client.execute_command(*command))

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("the broker was closed: make another one")


class Reader:
    """A connection that waits for new entries of one queue, and can be told to stop waiting."""

    def __init__(self, link: Link, client: "Redis") -> None:
        self._link = link
        self._client = client
        self._id: int | None = None

    async def read(self, queue_id: str, consumer: str, *, count: int, block_ms: int) -> list[Entry]:
        """New entries for the consumer, waiting for the first one."""
        if self._id is None:
            self._id = int(
                await self._link.within(cast("Awaitable[Any]", self._client.client_id()))
            )
        try:
            reply = await self._link.within(
                self._client.xreadgroup(
                    GROUP, consumer, {self._link.queue_key(queue_id): ">"}, count, block_ms
                ),
                block_ms / 1000,
            )
        except BrokerUnavailableError:
            self._id = None  # the next connection has another
            raise
        return [(key.decode(), fields) for _, entries in reply or () for key, fields in entries]

    async def unblock(self) -> None:
        """Let a read that waits end at once, with nothing."""
        if self._id is not None:
            await self._link.call("CLIENT", "UNBLOCK", self._id)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def _client(url: str) -> "Redis":
    # No retries of redis-py's own: its default repeats a command whose reply was lost, which
    # doubles events. No socket time-out: the deadline of the call covers it, blocking reads too.
    try:
        return Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            max_connections=1024,
            protocol=2,
        )
    except ValueError as error:
        raise ConfigurationError(
            f"the event broker's URL is wrong: {error}; use redis://host:port/0, rediss:// or "
            "unix://"
        ) from error
