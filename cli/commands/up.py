"""`up`: everything on this machine, by one command."""

import contextlib
import getpass
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from app.core.config import Settings, load_settings
from cli.embedded import EmbeddedServer
from cli.output import note
from cli.up.locks import hold_directory, hold_server
from cli.up.plan import (
    FRONTEND,
    SCHEDULER,
    SERVER,
    Plan,
    Reservation,
    checked_roots,
    default_data_dir,
    demo_folder,
    operator_token,
    parts_environment,
    private_folder,
    token_file,
)
from cli.up.supervisor import Supervisor
from cli.up.tail import Tails

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


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
    folder = private_folder(data_dir or default_data_dir(os.environ))
    lock = hold_directory(folder)
    try:
        if repair:
            _repair(folder)
        else:
            _run(folder, root or [Path.cwd()], port, workers, log_dir, verbose=verbose)
    finally:
        os.close(lock)


def _repair(data_dir: Path) -> None:
    lock = hold_server(data_dir, 0.0, lambda _: None)
    try:
        copy, report = EmbeddedServer.of(data_dir).repair()
    finally:
        os.close(lock)
    print(f"{report}\nThe files as they were: {copy}")


def _run(
    data_dir: Path,
    roots: list[Path],
    port: int,
    workers: int,
    log_dir: Path | None,
    *,
    verbose: bool,
) -> None:
    roots = checked_roots(roots, data_dir)
    logs = private_folder(log_dir or data_dir / "logs")
    frontend, scheduler = Reservation(port), Reservation(0)
    try:
        server = EmbeddedServer.of(data_dir)
        environment = parts_environment(
            server,
            port=frontend.port,
            scheduler_port=scheduler.port,
            roots=[*roots, demo_folder(data_dir)],
            token=operator_token(data_dir, os.environ),
            base=os.environ,
        )
        plan = Plan(
            data_dir=data_dir,
            log_dir=logs,
            roots=roots,
            port=frontend.port,
            scheduler_port=scheduler.port,
            workers=workers,
            server=server,
            environment=environment,
        )
        os.environ.update(environment)
        code = _supervise(plan, load_settings(), verbose=verbose)
    finally:
        frontend.close()
        scheduler.close()
    raise typer.Exit(code)


def _supervise(plan: Plan, settings: Settings, *, verbose: bool) -> int:
    names = [SERVER, SCHEDULER, FRONTEND, *plan.worker_names]
    tails = Tails([(name, plan.log_dir / f"{name}.log") for name in names], _say)
    supervisor = Supervisor(plan, settings, _say, tails.look if verbose else lambda: None)
    return supervisor.run(lambda pids: _greet(plan, settings, pids))


def _greet(plan: Plan, settings: Settings, pids: dict[str, int]) -> None:
    api = plan.address + settings.api_prefix
    user = _user()
    demo = plan.data_dir / "demo"
    query = urlencode({"src": str(demo / "from"), "dst": str(demo / "to")})
    command = _command()
    scope = f"--service sync --user {user}"
    at = "" if api == "http://127.0.0.1:8000/api/v1" else f" --api-base {api}"
    running = ", ".join(f"{name} {pid}" for name, pid in pids.items())
    lines = [
        "DMS is up.",
        f"  API        {api}   (its pages: {plan.address}/docs)",
        f"  roots      {', '.join(map(str, plan.roots))}   (what tasks may touch)",
        f"  data       {plan.data_dir}",
        f"  logs       {plan.log_dir}",
        f"  operator   {_where_token(plan)}",
        f"  processes  {running}",
        "",
        "Try it: copy a small folder",
        f"  curl -X POST '{api}/services/sync/users/{user}/tasks?{query}'",
        "and watch it",
        f"  {command} tasks list {scope}{at}",
        f"  {command} tasks logs -f {scope} --task-id <task_id>{at}",
        "",
        "Ctrl-C stops it; nothing that was accepted is lost.",
    ]
    print("\n".join(lines), flush=True)


def _where_token(plan: Plan) -> str:
    path = token_file(plan.data_dir)
    if path.exists() and path.read_text().strip() == plan.environment["DMS_OPERATOR_TOKEN"]:
        return f"export DMS_OPERATOR_TOKEN=$(cat {shlex.quote(str(path))})"
    return "the token of your DMS_OPERATOR_TOKEN"


def _say(text: str) -> None:
    # The terminal may be gone (SIGHUP, a closed pipe): the parts must be stopped all the same.
    with contextlib.suppress(OSError):
        note(text)


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return "me"
    return name if _NAME.fullmatch(name) else "me"


def _command() -> str:
    """How this program is called from the reader's shell."""
    here = Path(sys.executable).with_name("dms-frontend")
    if shutil.which("dms-frontend") or not here.exists():
        return "dms-frontend"
    return shlex.quote(str(here))
