"""The scheduler service's ASGI application: takes tasks from the frontend, queues them for workers.

It holds no truth: the record in the task store decides what is queued. Building it does no I/O.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.errors import add_error_handlers, problem
from app.api.middleware import EdgeMiddleware
from app.api.responses import json_response
from app.core.config import Settings, get_settings
from app.core.logging import configure_logging
from app.core.metrics import METRICS_CONTENT_TYPE, Metrics
from app.event_system.infrastructure import RedisBroker
from app.services.schedules import ScheduleService
from app.services.schedules_file import SchedulesFile, load_schedules
from dms_scheduler.admitter import Admitter
from dms_scheduler.archive import Archive
from dms_scheduler.definitions import (
    UnknownServiceError,
    describe_all,
    load_definitions,
    log_loaded,
    require_definition,
)
from dms_scheduler.engine import EngineClient, quiet_engine_logs
from dms_scheduler.event_metrics import EventMetrics
from dms_scheduler.rescuer import Rescuer, RescuerSettings
from dms_scheduler.retention import RetentionLoop
from dms_scheduler.schedule_metrics import ScheduleMetrics
from dms_scheduler.schedule_runner import ScheduleRunner
from dms_scheduler.store import store_settings, witness_of
from dms_scheduler.task_event_relay import TaskEventRelay
from task_state import StoreUnavailableError, TransitionError
from task_state.managed import Waiting
from task_state.naming import MAX_NAME, MAX_TASK_ID, NAME_PATTERN, TASK_ID_PATTERN
from task_state.redis import RedisRepositoryProvider
from task_state.retention_policy import RetentionPolicy

logger = logging.getLogger(__name__)

QUEUED: Final = "QUEUED"
# What the frontend accepts as one mebibyte may be longer as it sends it on (1e15 has 18 digits).
MAX_TASK_BYTES: Final = 16 * 1024 * 1024

TaskId = Annotated[str, Field(pattern=TASK_ID_PATTERN, max_length=MAX_TASK_ID)]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME)]


class TaskRequest(BaseModel):
    """`POST /task`. The parameters are the record's: what stands here is not believed."""

    model_config = ConfigDict(extra="forbid")

    task_id: TaskId
    service: Name
    user_id: Name
    parameters: dict[str, Any] = Field(default_factory=dict)


class CancelRequest(BaseModel):
    """`POST /cancel`."""

    model_config = ConfigDict(extra="forbid")

    task_id: TaskId
    service: Name
    user_id: Name


class SchedulerService:
    """What the routes do, on the task store and the engine."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        timeout = settings.redis_timeout_seconds
        self.provider = RedisRepositoryProvider(store_settings(settings))
        self.broker = RedisBroker(settings.redis_write_url, timeout=timeout)
        self.engine = EngineClient(
            settings.redis_write_url, timeout_seconds=settings.redis_timeout_seconds
        )
        self._settings = settings
        self._admitter = Admitter(self.provider, self.engine, witness=witness_of(settings))
        self._rescuer = Rescuer(
            self.provider,
            self.engine,
            RescuerSettings.of(settings.heartbeat_seconds),
            self._admitter.wake,
        )
        self._retention = _retention_loop(settings, self.provider)
        self._schedules = ScheduleRunner(self.provider, ScheduleMetrics(metrics.registry))
        self._relay = TaskEventRelay(self.provider, self.broker.publisher(), metrics.registry)
        self.event_metrics = EventMetrics(
            self.provider, self.broker, metrics.registry, timeout_seconds=timeout
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Load the definitions (or refuse to start), then rescue until the end. Redis may be away:
        it is looked for when a request needs it."""
        configure_logging(self._settings)
        quiet_engine_logs()
        settings = self._settings
        log_loaded(load_definitions(settings.task_modules, settings.task_entry_points))
        schedules_file = _schedules_file(settings, self.provider)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.provider.close)
            stack.push_async_callback(self.broker.close)
            await self.engine.start()
            stack.push_async_callback(self.engine.close)
            _keep_running(stack, self._rescuer.run(), "rescuer")
            admitter = asyncio.create_task(self._admitter.run(), name="admitter")
            stack.push_async_callback(self._admitter.end, admitter)
            _keep_running(stack, self._relay.run(), "task_events")
            _keep_running(stack, self._schedules.run(), "schedules")
            if schedules_file is not None:
                _keep_running(stack, schedules_file.run(), "schedules_file")
            if self._retention is not None:
                _keep_running(stack, self._retention.run(), "retention")
            yield

    async def take(self, request: TaskRequest) -> str | None:
        """Let the task wait for a slot; None when it does, else the state it is in."""
        require_definition(request.service)
        managed = await self.provider.get_managed()
        accepted = await managed.accept(request.task_id)
        if not isinstance(accepted, Waiting):
            return accepted.value
        self._admitter.wake()
        return None

    async def cancel(self, request: CancelRequest) -> str:
        """Ask the task to end, wake its worker, and withdraw what is queued; the task's state.
        One that has ended already stays as it is."""
        managed = await self.provider.get_managed()
        try:
            status = await managed.cancel(
                request.task_id, service=request.service, user_id=request.user_id
            )
        except TransitionError as error:
            return error.current
        record = await (await self.provider.get_repository()).get(request.task_id)
        if record is not None:
            await self.engine.cancel(record.task_id, record.epoch)
            await self.engine.cancel(record.task_id, record.epoch + 1)
        return "DELETED" if status is None else status.value


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application, from the environment's settings unless some are passed."""
    settings = get_settings() if settings is None else settings
    metrics = Metrics()
    service = SchedulerService(settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="dms-scheduler",
        summary="Accepts tasks for DMS workers.",
        lifespan=lifespan,
    )
    add_error_handlers(app)
    app.add_exception_handler(UnknownServiceError, _unknown_service)
    own_name = urlsplit(settings.scheduler_base_url).hostname or ""
    app.add_middleware(
        EdgeMiddleware,
        allowed_hosts=[*settings.allowed_hosts, own_name],
        metrics=metrics,
        max_body_bytes=MAX_TASK_BYTES,
    )
    _add_task_routes(app, service)
    _add_health_routes(app, service, metrics)
    return app


def _add_task_routes(app: FastAPI, service: SchedulerService) -> None:
    @app.post("/task")
    async def take_task(request: TaskRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Queue a task: 202 QUEUED, or 200 with its state when it is past that."""
        state = await service.take(request)
        if state is None:
            return json_response({"status": QUEUED}, 202)
        return json_response({"status": state})

    @app.post("/cancel")
    async def cancel_task(request: CancelRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Ask a task to end; its state now."""
        return json_response({"status": await service.cancel(request)})

    @app.get("/definitions")
    async def list_definitions() -> Response:  # pyright: ignore[reportUnusedFunction]
        """What can be run, with each definition's parameters as a JSON schema."""
        described = await asyncio.to_thread(describe_all, os.environ)
        return json_response({"definitions": described})


def _add_health_routes(app: FastAPI, service: SchedulerService, metrics: Metrics) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:  # pyright: ignore[reportUnusedFunction]
        """The process lives."""
        return json_response({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Whether tasks can be taken now."""
        try:
            await service.provider.ping()
        except StoreUnavailableError as error:
            return json_response({"status": "unavailable", "detail": str(error)}, 503)
        return json_response({"status": "ok"})

    @app.get("/metrics")
    async def show_metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Counters for Prometheus."""
        await service.event_metrics.measure()
        return Response(metrics.render(), media_type=METRICS_CONTENT_TYPE)


async def _unknown_service(request: Request, error: Exception) -> Response:
    kind = (404, "unknown-service", "No such task definition")
    return problem(kind, str(error), request.url.path)


def _schedules_file(settings: Settings, provider: RedisRepositoryProvider) -> SchedulesFile | None:
    """What brings about the operator's file of schedules, if there is one."""
    if settings.schedules_file is None:
        return None
    service = ScheduleService(
        provider,
        timeout_seconds=settings.redis_timeout_seconds,
        default_timezone=settings.timezone,
    )
    return SchedulesFile(service, load_schedules(settings.schedules_file, settings.timezone))


def _retention_loop(settings: Settings, provider: RedisRepositoryProvider) -> RetentionLoop | None:
    """The loop that applies the retention policy, if there is one."""
    policy = RetentionPolicy.parse(settings.retention)
    if not policy.rules:
        return None
    archive = None if settings.archive_dir is None else Archive(settings.archive_dir)
    return RetentionLoop(provider, policy, archive)


def _keep_running(stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
    """Run it beside the service, until the stack is unwound."""
    stack.push_async_callback(_cancel, asyncio.create_task(work, name=name))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
