"""`doctor`: whether store, server and services are whole; mends what follows from records."""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CliError, ExitCode
from cli.output import Format, note, show_json, show_table
from cli.settings import read_settings

if TYPE_CHECKING:
    from app.core.config import Settings
    from cli.doctor.report import Result


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("doctor")(doctor)


def doctor(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what differs; no record or log is removed.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Look at the store of the `up` that runs there."),
    ] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="table for people; json or jsonl for programs.")
    ] = Format.TABLE,
) -> None:
    """Check store, server and services, live; exit code 0 when all is well, 1 when it is not.

    Looks at the store itself: that of a running `up` (--data-dir, or this user's), else the one of
    DMS_REDIS_WRITE_URL. Warnings leave the exit code alone.
    """
    from cli.doctor.report import Verdict, worst

    results = asyncio.run(_examine(_patient(data_dir), mend=repair))
    verdict = worst(results)
    if output is Format.TABLE:
        _show(results)
    else:
        show_json({"status": verdict.value, "checks": [each.plain() for each in results]}, output)
    if verdict is Verdict.PROBLEM:
        raise typer.Exit(ExitCode.ERROR)


@dataclass(frozen=True)
class Patient:
    """Who is looked at: the settings, and the data directory where it is an `up` of here."""

    settings: "Settings"
    data_dir: Path | None


def _patient(data_dir: Path | None) -> Patient:
    from cli.embedded import EmbeddedServer
    from cli.up.plan import default_data_dir

    settings = read_settings()
    if data_dir is None and os.environ.get("DMS_REDIS_WRITE_URL"):
        return Patient(settings, None)
    folder = (data_dir or default_data_dir(os.environ)).expanduser().resolve()
    server = EmbeddedServer.of(folder) if folder.is_dir() else None
    if server is not None and server.answers():
        urls = {"redis_write_url": server.url, "redis_read_url": server.url}
        return Patient(settings.model_copy(update=urls), folder)
    if data_dir is not None:
        raise CliError(
            f"no `up` runs in {folder}",
            "start it: dms-frontend up --data-dir; or name the store: DMS_REDIS_WRITE_URL",
            ExitCode.UNREACHABLE,
        )
    return Patient(settings, None)


async def _examine(patient: Patient, *, mend: bool) -> "list[Result]":
    from app.services.repository import build_provider
    from cli.doctor import server, services, store
    from dms_scheduler.engine import EngineClient, quiet_engine_logs
    from task_state import TaskStateError

    quiet_engine_logs()
    # A step of the doctor may wait for others: what is slow is not away.
    patience = max(patient.settings.redis_timeout_seconds, 10.0)
    settings = patient.settings.model_copy(update={"redis_timeout_seconds": patience})
    results = [] if patient.data_dir else services.check_settings(settings)
    async with AsyncExitStack() as stack:
        provider = build_provider(settings)
        stack.push_async_callback(provider.close)
        engine = EngineClient(settings.redis_write_url, timeout_seconds=patience)
        try:
            results += await server.check_server(provider, settings)
            if patient.data_dir is None:
                results += await services.check_scheduler(settings, provider)
            else:
                results.append(services.check_disk("disk", patient.data_dir))
            results += await store.check_records(provider, mend=mend, say=note)
            await engine.start()
            stack.push_async_callback(engine.close)
            results += await store.check_engine(provider, engine, mend=mend)
        except TaskStateError as error:
            results.append(store.unreachable(error))
    return results


def _show(results: "list[Result]") -> None:
    rows = [
        (each.name, each.verdict.value, each.count or "", each.repaired or "", each.what)
        for each in results
    ]
    show_table(("CHECK", "STATUS", "FOUND", "REPAIRED", "WHAT"), rows)
    for each in results:
        if each.count:
            note("")
            note(f"{each.name}: {each.what}")
            for example in each.examples:
                note(f"  {example}")
            if each.count > each.repaired and each.remedy:
                note(f"  do: {each.remedy}")
