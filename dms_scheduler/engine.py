"""The engine: docket hands queued calls to workers. It delivers; `task_state` decides what runs.

A call carries a task id and an epoch, and its key is `{task_id}:{epoch}`: docket drops a key that
it knows, so each attempt needs its own. A call that comes twice, late or for nothing is harmless,
since only the record's next epoch can begin. No other module knows docket.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from docket import Docket, Worker
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from task_state import StoreUnavailableError

logger = logging.getLogger(__name__)

DOCKET_NAME: Final = "dms-engine"
REDELIVERY_TIMEOUT: Final = timedelta(seconds=120)
MINIMUM_CHECK_INTERVAL: Final = timedelta(milliseconds=50)
_CALL: Final = "attempt"
_NOT_BEGUN: Final = frozenset({b"scheduled", b"queued"})
_KEYS_A_STEP: Final = 200
_STRANDED_IDLE_MS: Final = 60_000  # docket renews what it holds every 30 s
_DEAD_SECONDS: Final = 30.0  # a docket worker says every 2 s that it lives
_STOP_SECONDS: Final = 3.0

RunAttempt = Callable[[str, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """One queued attempt: `epoch` of a task."""

    task_id: str
    epoch: int

    @property
    def key(self) -> str:
        """Its name in the engine."""
        return f"{self.task_id}:{self.epoch}"


@dataclass(frozen=True, slots=True)
class Consumer:
    """A worker as the engine's stream knows it: calls it took and did not end, seconds since it
    last asked, and whether it said lately that it lives."""

    name: str
    pending: int
    idle_seconds: float
    alive: bool


class Holding(Enum):
    """What the engine does with a call."""

    ABSENT = "not known: queue it"
    HELD = "queued, or with a worker that lives"
    STRANDED = "with a worker that is gone, or lost on the way to one: replace it"


def quiet_engine_logs() -> None:
    """Docket writes two lines a call, a banner, and during an outage a warning a second; what it
    cannot help is enough. The rescuer says once that Redis is away."""
    logging.getLogger("docket").setLevel(logging.ERROR)


class EngineClient:
    """Queues, withdraws and looks at calls. Each method ends within `timeout_seconds`, and raises
    StoreUnavailableError when Redis does not do it by then; nothing is retried."""

    def __init__(self, url: str, *, timeout_seconds: float = 2.0) -> None:
        self._docket = _docket(url)
        self._timeout = timeout_seconds
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Make the connections' pools; Redis need not be there yet."""
        await self._stack.enter_async_context(self._docket)
        await _set_retry(self._docket, Retry(NoBackoff(), 0))
        self._docket.register(_declared, names=[_CALL])

    async def close(self) -> None:
        """Give the connections back."""
        await self._stack.aclose()

    async def enqueue_many(self, calls: Iterable[Call], *, replace: bool = False) -> None:
        """Queue calls in one round trip; one that is queued or running already stays as it is, but
        `replace` takes those away that a lost worker holds. Raises StoreUnavailableError if one of
        them was not queued."""
        built = [self._docket.call(_CALL, key=call.key)(call.task_id, call.epoch) for call in calls]
        if not built:
            return
        async with self._deadline():
            queue = self._docket.replace_many if replace else self._docket.add_many
            executions = await queue(built)
        for execution in executions:
            if execution.schedule_exception is not None:
                raise StoreUnavailableError(
                    f"the engine could not queue {execution.key}: {execution.schedule_exception}"
                ) from execution.schedule_exception

    async def cancel(self, task_id: str, epoch: int) -> None:
        """Withdraw a queued call, or wake the worker that runs it (by pub/sub, which can be lost:
        the flag in the record cannot)."""
        async with self._deadline():
            await self._docket.cancel(Call(task_id, epoch).key)

    async def look(self, calls: Sequence[Call]) -> list[Holding]:
        """What the engine does with each of the calls, in three round trips."""
        if not calls:
            return []
        async with self._deadline(), self._docket.redis() as client:
            return await _look(cast("Redis", client), self._docket, calls)

    async def queued(self, cursor: int = 0) -> tuple[int, list[Call]]:
        """One step of a walk over the calls that no worker has begun: where to go on (0: that was
        the last step), and some calls; one may come twice."""
        prefix = self._docket.runs_key("")
        async with self._deadline(), self._docket.redis() as client:
            cursor, found = await cast("Redis", client).scan(
                cursor, match=f"{prefix}*", count=_KEYS_A_STEP
            )
        names = [_text(key).removeprefix(prefix) for key in cast("list[bytes]", found)]
        return cursor, await self.not_begun([_call(name) for name in names])

    async def not_begun(self, calls: Sequence[Call]) -> list[Call]:
        """Those that wait, and that no worker has begun."""
        if not calls:
            return []
        async with self._deadline(), self._docket.redis() as client:
            pipeline = cast("Redis", client).pipeline(transaction=False)
            for call in calls:
                pipeline.hget(self._docket.runs_key(call.key), "state")
            states = await pipeline.execute()
        return [call for call, state in zip(calls, states, strict=True) if state in _NOT_BEGUN]

    async def consumers(self) -> list[Consumer]:
        """The workers that have ever taken calls from the engine's stream."""
        async with self._deadline(), self._docket.redis() as connection:
            client = cast("Redis", connection)
            alive = await _living(client, self._docket)
            try:
                rows = await client.xinfo_consumers(
                    self._docket.stream_key, self._docket.worker_group_name
                )
            except ResponseError:  # no worker was ever there, so there is no stream or no group
                return []
        return [
            Consumer(_text(row["name"]), row["pending"], row["idle"] / 1000, row["name"] in alive)
            for row in rows
        ]

    async def drop_consumer(self, name: str) -> None:
        """Forget a worker that is gone and holds no call."""
        async with self._deadline(), self._docket.redis() as client:
            await cast("Redis", client).xgroup_delconsumer(
                self._docket.stream_key, self._docket.worker_group_name, name
            )

    @asynccontextmanager
    async def _deadline(self) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailableError(
                f"the engine's Redis did not do it within {self._timeout:g} s "
                f"({type(error).__name__}: {error}): check the server, then try again"
            ) from error


class EngineWorker:
    """Takes calls and runs them, at most `concurrency` at once."""

    def __init__(self, url: str, *, name: str, concurrency: int, run: RunAttempt) -> None:
        self._docket = _docket(url)
        self._name = name
        self._concurrency = concurrency
        self._run = run

    async def work(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then take nothing new and return when the running calls have
        ended. A Redis that is away is waited for. Cancel it to leave at once."""
        async with self._docket:
            await _set_retry(self._docket, _patient_retry())
            self._docket.tasks.clear()
            self._docket.register(_runner(self._run), names=[_CALL])
            worker = Worker(
                self._docket,
                name=self._name,
                concurrency=self._concurrency,
                redelivery_timeout=REDELIVERY_TIMEOUT,
                minimum_check_interval=MINIMUM_CHECK_INTERVAL,
                schedule_automatic_tasks=False,
            )
            loop: asyncio.Task[None] | None = None
            try:
                # Leaving the worker's context stops its loop and waits for its calls; a loop that
                # waits for a Redis that is away does not see that, hence the cancel after it.
                async with worker:
                    loop = asyncio.create_task(worker.run_forever(), name="docket worker")
                    await _first(loop, stop)
            finally:
                if loop is not None:
                    await end_task(loop)
            if loop is not None and loop.done():
                loop.result()


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it ends, for a few seconds: docket answers a first cancel by waiting."""
    for _ in range(int(_STOP_SECONDS)):
        if task.done():
            return
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    if not task.done():
        logger.error(
            "A task does not end", extra={"action": "engine.stop", "task": task.get_name()}
        )


async def _first(task: asyncio.Task[Any], event: asyncio.Event) -> None:
    """Return when the task ends or the event is set."""
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


async def _declared(task_id: str, epoch: int) -> None:
    """What the queueing side knows of the call: its name and its arguments."""
    raise RuntimeError(f"attempt {epoch} of {task_id} was given to a process that runs no tasks")


def _runner(run: RunAttempt) -> Callable[[str, int], Awaitable[None]]:
    async def attempt(task_id: str, epoch: int) -> None:
        await run(task_id, epoch)

    return attempt


def _docket(url: str) -> Docket:
    # execution_ttl 0: docket forgets a call when it ends, for the record remembers it.
    return Docket(name=DOCKET_NAME, url=_with_connections(url), execution_ttl=timedelta(seconds=0))


def _with_connections(url: str, most: int = 500) -> str:
    """redis-py's default of 100 connections is fewer than what 100 running calls need."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query.setdefault("max_connections", str(most))
    return urlunsplit(parts._replace(query=urlencode(query)))


async def _set_retry(docket: Docket, retry: Retry) -> None:
    async with docket.redis() as client:
        cast("Redis", client).set_retry(retry)


def _patient_retry() -> Retry:
    """For the worker's loop alone: an error that reaches docket's worker makes it wait for all its
    running calls before it takes another, so an outage of up to four minutes must not reach it."""
    waited_out = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)
    return Retry(ConstantBackoff(1), 240, supported_errors=waited_out)


async def _look(client: Redis, docket: Docket, calls: Sequence[Call]) -> list[Holding]:
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.hmget(docket.runs_key(call.key), ["state", "worker", "stream_id"])
    runs = await pipeline.execute()
    alive = await _living(client, docket)
    queued = [_text(run[2]) for run in runs if run[0] == b"queued" and run[2]]
    lost = await _lost_deliveries(client, docket, queued, alive)
    return [_holding(run, alive, lost) for run in runs]


async def _living(client: Redis, docket: Docket) -> set[bytes]:
    """The workers that said lately that they live."""
    workers = await client.zrange(docket.workers_set, 0, -1, withscores=True)
    oldest = datetime.now(UTC).timestamp() - _DEAD_SECONDS
    return {name for name, seen in cast("list[tuple[bytes, float]]", workers) if seen > oldest}


def _call(key: str) -> Call:
    task_id, _, epoch = key.rpartition(":")
    return Call(task_id, int(epoch) if epoch.isdecimal() else 0)


def _holding(run: Sequence[bytes | None], alive: set[bytes], lost: set[str]) -> Holding:
    state, worker, message = run
    if state is None:
        return Holding.ABSENT
    if state == b"running":
        return Holding.HELD if worker in alive else Holding.STRANDED
    if state == b"queued" and message is not None and _text(message) in lost:
        return Holding.STRANDED
    return Holding.HELD


async def _lost_deliveries(
    client: Redis, docket: Docket, messages: Sequence[str], alive: set[bytes]
) -> set[str]:
    """Which queued messages nobody will run: delivered to a worker that died before it claimed the
    call, or in a reply that a live one never got (docket renews those it got), or not there."""
    if not messages:
        return set()
    pipeline = client.pipeline(transaction=False)
    for message in messages:
        pipeline.xpending_range(
            docket.stream_key, docket.worker_group_name, min=message, max=message, count=1
        )
        pipeline.xrange(docket.stream_key, min=message, max=message, count=1)
    # Before the first worker there is no group, which is an error and means "not delivered".
    replies = await pipeline.execute(raise_on_error=False)
    lost: set[str] = set()
    for message, pending, entry in zip(messages, replies[::2], replies[1::2], strict=True):
        if _is_lost(pending, entry, alive):
            lost.add(message)
    return lost


def _is_lost(pending: Any, entry: Any, alive: set[bytes]) -> bool:
    if isinstance(entry, Exception):
        return False
    if not entry:
        return True
    if isinstance(pending, Exception) or not pending:
        return False
    holder = pending[0]
    return holder["consumer"] not in alive or (
        int(holder["time_since_delivered"]) > _STRANDED_IDLE_MS
    )


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()
