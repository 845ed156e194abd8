"""The frontend's ASGI application: `uvicorn app.main:app`. Building it does no I/O."""

import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.api.errors import PROBLEM_MEDIA_TYPE, add_error_handlers
from app.api.middleware import EdgeMiddleware
from app.api.routes import (
    admin,
    definitions,
    event_queues,
    events,
    health,
    help,  # noqa: A004
    retention,
    schedules,
    services,
    task_extras,
    tasks,
    webhooks,
)
from app.api.schemas import Problem
from app.core.config import Settings, get_settings
from app.services_container import ServiceContainer

# Routes are tried in this order: what is called most comes first.
_API_ROUTERS = (
    tasks.router,
    task_extras.router,
    events.router,
    admin.router,
    services.router,
    retention.router,
    schedules.router,
    event_queues.router,
    webhooks.router,
    definitions.router,
    help.router,
)
_PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem}, "503": {"model": Problem}}


def create_app(
    settings: Settings | None = None, container: ServiceContainer | None = None
) -> FastAPI:
    """The application, from the environment's settings unless some are passed."""
    if container is None:
        container = ServiceContainer(get_settings() if settings is None else settings)
    settings = container.settings

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with container.running():
            with _before_shutdown(container.live.close_streams):
                yield

    # FastAPI's own page of the API loads its scripts from a CDN: blank where there is no internet.
    app = FastAPIOffline(
        redoc_url=None,
        title=settings.app_name,
        summary="DMS, the Data Moving Service: submit a task, watch it run, lose nothing.",
        lifespan=lifespan,
        responses=_PROBLEMS,
    )
    app.state.api = container.api
    add_error_handlers(app)
    app.add_middleware(
        EdgeMiddleware,
        allowed_hosts=settings.allowed_hosts,
        metrics=container.metrics,
        signed=webhooks.trigger_path(settings.api_prefix),
    )
    for router in _API_ROUTERS:
        app.include_router(router, prefix=settings.api_prefix)
    app.include_router(health.router)
    _document_problems(app)
    return app


def _document_problems(app: FastAPI) -> None:
    """Have the schema say in which form errors come: FastAPI takes every model for plain JSON."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            paths: dict[str, dict[str, dict[str, Any]]] = build()["paths"]
            for operation in (each for path in paths.values() for each in path.values()):
                for status in _PROBLEMS:
                    answer = operation["responses"][str(status)]
                    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
                    answer["content"] = {PROBLEM_MEDIA_TYPE: {"schema": schema}}
        return build()

    app.openapi = openapi


@contextmanager
def _before_shutdown(close: Callable[[], None]) -> Generator[None]:
    """Call `close` as soon as the process is asked to stop, then do what was to be done.

    A server waits for open responses before it ends the lifespan: endless streams must end first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        close()
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    # Only a server that handles the signals itself (uvicorn does) waits for its responses.
    handled = [number for number, handler in previous.items() if callable(handler)]
    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, previous[number])


app = create_app()
