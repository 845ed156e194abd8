"""`serve`, `scheduler`, `worker`, `show-config`: the services' own processes and their settings."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any, cast

import typer

from cli.errors import CliError
from cli.output import Format, clean, show_json
from cli.settings import read_settings

# A live stream never ends by itself; whoever still listens after this is disconnected.
_GRACEFUL_SECONDS = 5


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("serve")(serve)
    app.command("scheduler")(scheduler)
    app.command("worker")(worker)
    app.command("show-config")(show_config)


Host = Annotated[str | None, typer.Option("--host", help="The address to listen on.")]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="The port.")]


def serve(
    host: Host = None,
    port: Port = None,
    reload: Annotated[
        bool | None, typer.Option("--reload/--no-reload", help="Start again when code changes.")
    ] = None,
) -> None:
    """Start the frontend, which serves the API."""
    settings = read_settings()
    if settings.webhooks_file is not None:
        from app.services.webhook_file import load_webhooks

        with _load_errors():  # the server would show a traceback
            load_webhooks(settings.webhooks_file)
    _listen(
        "app.main:app",
        host=settings.cli_default_host if host is None else host,
        port=settings.cli_default_port if port is None else port,
        reload=settings.cli_reload if reload is None else reload,
    )


def scheduler(host: Host = None, port: Port = None) -> None:
    """Start the scheduler service.

    It takes tasks from the frontend and queues them for the workers.
    """
    from app.core.logging import configure_logging
    from app.services.schedules_file import load_schedules
    from dms_scheduler.definitions import load_definitions

    _start_quickly()
    settings = read_settings()
    configure_logging(settings)
    with _load_errors():
        load_definitions(settings.task_modules, settings.task_entry_points)
        if settings.schedules_file is not None:
            load_schedules(settings.schedules_file, settings.timezone)
    _listen(
        "dms_scheduler.main:create_app",
        factory=True,
        host=settings.scheduler_host if host is None else host,
        port=settings.scheduler_port if port is None else port,
    )


def _start_quickly() -> None:
    """A fifth of such a process's start is spent on run-time type checks for a library of the
    engine's, of which nothing here is used; it is asked to leave them out."""
    os.environ.setdefault("PY_KEY_VALUE_DISABLE_BEARTYPE", "1")


def _listen(target: str, **options: Any) -> None:
    import uvicorn

    uvicorn.run(
        target,
        # The application configures logging itself, for all loggers alike.
        log_config=None,
        access_log=False,
        server_header=False,
        # Who the client is decides what `changeme` may do: never taken from a header.
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        http="cli.bounded_http:BoundedHttp",
        ws="none",
        **options,
    )


def worker() -> None:
    """Start a worker, which runs tasks.

    SIGTERM stops it: what runs is given back to be finished by another.
    """
    _start_quickly()
    from app.core.logging import configure_logging
    from dms_scheduler.children import ChildError
    from dms_scheduler.worker import run_worker

    settings = read_settings()
    configure_logging(settings)
    try:
        with _load_errors():
            code = run_worker(settings)
    except ChildError as error:
        raise CliError(f"no process for tasks could be started: {error}") from error
    raise typer.Exit(code)


@contextmanager
def _load_errors() -> Generator[None]:
    """What the operator named does not load: words instead of a server's traceback."""
    from app.core.errors import ConfigurationError
    from app.tasks import TasksError

    try:
        yield
    except (ConfigurationError, TasksError) as error:
        raise CliError(str(error)) from error


def show_config(
    output: Annotated[
        Format, typer.Option("--output", "-o", help="table for people; json or jsonl for programs.")
    ] = Format.TABLE,
) -> None:
    """Show the settings; secrets are masked."""
    values = read_settings().masked()
    if output is not Format.TABLE:
        show_json(values, output)
        return
    for name, value in values.items():
        print(f"{name}={clean(_as_variable(value))}")


def _as_variable(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list():
            return ",".join(str(item) for item in cast("list[object]", value))
        case _:
            return str(value)
