"""`up`: everything on this machine, by one command."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("up")(up)


def up(
    root: Annotated[
        list[Path] | None,
        typer.Option(
            "--root", help="A folder that tasks may touch; repeatable. Default: this one."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The API's port; 0 = any free one.")
    ] = 8000,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, help="How many worker processes.")
    ] = 1,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Where DMS keeps its own data.")
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option("--log-dir", help="Where the parts log. Default: in --data-dir.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the parts log as well.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend a damaged data file (a copy is kept), and stop.")
    ] = False,
) -> None:
    """Start a whole DMS on this machine.

    Server, scheduler, frontend and workers, each a process of its own; Ctrl-C stops them.
    """
    # Imported here: the server's client library would slow down every other command.
    from cli.up.run import repair_data, run_here

    if repair:
        repair_data(data_dir)
    else:
        code = run_here(data_dir, root, port, workers, log_dir, verbose=verbose)
        raise typer.Exit(code)
