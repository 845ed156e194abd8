"""`doctor`: whether store, server and services are whole; mends what follows from records."""

import os
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
    import asyncio

    # Imported here: all of the store's libraries would slow down every other command.
    from cli.doctor.examine import examine
    from cli.doctor.report import Verdict, worst

    settings, folder = _patient(data_dir)
    results = asyncio.run(examine(settings, folder, mend=repair, say=note))
    verdict = worst(results)
    if output is Format.TABLE:
        _show(results)
    else:
        show_json({"status": verdict.value, "checks": [each.plain() for each in results]}, output)
    if verdict is Verdict.PROBLEM:
        raise typer.Exit(ExitCode.ERROR)


def _patient(data_dir: Path | None) -> "tuple[Settings, Path | None]":
    """Who is looked at: the settings, and the data directory where it is an `up` of here."""
    from cli.embedded import EmbeddedServer
    from cli.up.plan import default_data_dir

    settings = read_settings()
    if data_dir is None and os.environ.get("DMS_REDIS_WRITE_URL"):
        return settings, None
    folder = (data_dir or default_data_dir(os.environ)).expanduser().resolve()
    server = EmbeddedServer.of(folder) if folder.is_dir() else None
    if server is not None and server.answers():
        urls = {"redis_write_url": server.url, "redis_read_url": server.url}
        return settings.model_copy(update=urls), folder
    if data_dir is not None:
        raise CliError(
            f"no `up` runs in {folder}",
            "start it: dms-frontend up --data-dir; or name the store: DMS_REDIS_WRITE_URL",
            ExitCode.UNREACHABLE,
        )
    return settings, None


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
