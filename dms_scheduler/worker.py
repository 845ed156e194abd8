"""A worker process: takes calls from the engine, runs attempts, and leaves in good order."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from app.core.config import Settings
from app.core.logging import configure_logging
from dms_scheduler.admitter import Admitter
from dms_scheduler.children import ChildPool, ChildSettings
from dms_scheduler.definitions import load_definitions, log_loaded
from dms_scheduler.ending import AttemptSettings, Tools
from dms_scheduler.engine import (
    Call,
    EngineClient,
    EngineWorker,
    end_task,
    quiet_engine_logs,
)
from dms_scheduler.execution import Executor
from dms_scheduler.loop import run_to_its_end
from dms_scheduler.persist import persist
from dms_scheduler.rescuer import Rescuer, RescuerSettings
from dms_scheduler.store import store_settings, witness_of
from task_state.redis import RedisRepositoryProvider

logger = logging.getLogger(__name__)

_ENGINE_STOP_SECONDS = 3.0


def run_worker(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT, then drain; a second signal gives everything back at once.

    Returns the exit code. Raises TaskLoadError or ChildError when the task modules do not load.
    """
    configure_logging(settings)
    quiet_engine_logs()
    log_loaded(load_definitions(settings.task_modules, settings.task_entry_points))
    run_to_its_end(_work(settings))
    return 0


class Signals:
    """`stop` is set by the first SIGTERM or SIGINT, `hurry` by the second."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()

    def install(self) -> None:
        """Take both signals over from Python; they must not cut anything short."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        logger.info("Signal received", extra={"action": "worker.stop", "signal": number.name})
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()


async def _work(settings: Settings) -> None:
    signals = Signals()
    signals.install()
    name = worker_name(settings.worker_name)
    async with _parts(settings, name, signals.stop) as parts:
        if parts is None:
            return
        engine, executor, rescuer, admitter = parts
        taking = asyncio.create_task(engine.work(signals.stop), name="engine")
        rescuing = asyncio.create_task(rescuer.run(), name="rescuer")
        admitting = asyncio.create_task(admitter.run(), name="admitter")
        logger.info("Worker started", extra={"action": "worker.start", "worker": name})
        try:
            await _first_end(signals.stop, taking, rescuing, admitting)
            orderly, _ = await asyncio.gather(
                executor.drain(settings.drain_seconds, signals.hurry), admitter.leave()
            )
        finally:
            rescuing.cancel()
            await asyncio.wait({taking}, timeout=_ENGINE_STOP_SECONDS)
            await end_task(taking)
            await admitter.end(admitting)
            await asyncio.wait({rescuing})
        _raise_failure(taking, rescuing, admitting)
    logger.info("Worker left", extra={"action": "worker.stop", "worker": name})
    if not orderly:
        _leave_threads()


@asynccontextmanager
async def _parts(
    settings: Settings, name: str, stop: asyncio.Event
) -> AsyncGenerator[tuple[EngineWorker, Executor, Rescuer, Admitter] | None]:
    """The composition root of a worker; None when it was stopped while it waited for Redis."""
    async with AsyncExitStack() as stack:
        provider = RedisRepositoryProvider(store_settings(settings))
        stack.push_async_callback(provider.close)
        client = EngineClient(
            settings.redis_write_url, timeout_seconds=settings.redis_timeout_seconds
        )
        await client.start()
        stack.push_async_callback(client.close)
        pool = ChildPool(_child_settings(settings), settings.child_pool_size)
        stack.push_async_callback(pool.close)
        await pool.start()
        tools = await _tools(settings, name, provider, pool, stop)
        if tools is None:
            yield None
            return

        async def put_back(task_id: str, epoch: int) -> None:
            await client.enqueue_many([Call(task_id, epoch)], replace=True)

        admitter = Admitter(
            provider,
            client,
            worker=name,
            slots=settings.worker_concurrency,
            witness=witness_of(settings),
        )
        await admitter.recall()
        executor = Executor(tools, put_back, ended=admitter.ended)
        engine = EngineWorker(
            settings.redis_write_url,
            name=name,
            concurrency=settings.worker_concurrency,
            run=executor.run,
        )
        rescuer = Rescuer(
            provider, client, RescuerSettings.of(settings.heartbeat_seconds), admitter.wake
        )
        yield engine, executor, rescuer, admitter


async def _tools(
    settings: Settings,
    name: str,
    provider: RedisRepositoryProvider,
    pool: ChildPool,
    stop: asyncio.Event,
) -> Tools | None:
    """What attempts use, once Redis is there; None when the worker is stopped first."""
    connecting = asyncio.create_task(
        persist(provider.get_managed, what="worker.connect", task_id="")
    )
    waiter = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({connecting, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            return None
        managed = await connecting
    finally:
        for task in (connecting, waiter):
            task.cancel()
    return Tools(
        managed=managed,
        repository=await provider.get_repository(),
        pool=pool,
        settings=AttemptSettings(
            worker=name,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            cancel_grace_seconds=settings.cancel_grace_seconds,
            term_seconds=settings.term_seconds,
            output_bytes=settings.output_bytes,
        ),
        reports=await provider.get_reports(),
    )


def _child_settings(settings: Settings) -> ChildSettings:
    return ChildSettings(
        modules=tuple(settings.task_modules),
        entry_points=settings.task_entry_points,
        data_roots=tuple(str(root) for root in settings.data_roots),
        memory_bytes=settings.child_memory_bytes,
    )


def worker_name(wanted: str | None) -> str:
    """A name that no other worker has or had: what a dead one of that name holds is not ours."""
    base = wanted or f"{socket.gethostname()}-{os.getpid()}"
    return f"{base}-{secrets.token_hex(3)}"


async def _first_end(stop: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    waiter = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({waiter, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        stop.set()


def _leave_threads() -> None:
    """End the process, even if an inline handler still runs in a thread, which Python would wait
    for. Its task's lease runs out, then another worker takes it."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _raise_failure(*tasks: asyncio.Task[None]) -> None:
    """A part that failed by itself is a defect: the process must not end as if all were well."""
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            task.result()
