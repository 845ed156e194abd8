"""What `up` does: decides, locks, reserves, greets; the supervisor does the rest."""

import getpass
import os
import re
import shlex
import shutil
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from app.core.config import Settings
from cli.embedded import EmbeddedServer
from cli.output import clean, note
from cli.settings import read_settings
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


def run_here(
    data_dir: Path | None,
    roots: Sequence[Path] | None,
    port: int,
    workers: int,
    log_dir: Path | None,
    *,
    verbose: bool,
) -> int:
    """Run everything until it is told to stop; returns the exit code, raises CliError."""
    with _held(data_dir) as folder:
        allowed = checked_roots(roots or [Path.cwd()], folder)
        logs = private_folder(log_dir or folder / "logs")
        with closing(Reservation(port)) as frontend, closing(Reservation(0)) as scheduler:
            plan = _plan(folder, logs, allowed, frontend.port, scheduler.port, workers)
            os.environ.update(plan.environment)
            try:
                return _supervise(plan, read_settings(), verbose=verbose)
            finally:
                plan.server.tidy()


def repair_data(data_dir: Path | None) -> None:
    """Mend the server's data file, and say where the copy of the damaged one is."""
    with _held(data_dir) as folder:
        lock = hold_server(folder, 0.0, lambda _: None)
        try:
            copy, report = EmbeddedServer.of(folder).repair()
        finally:
            os.close(lock)
        print(f"{clean(report)}\nThe files as they were: {clean(copy)}")


@contextmanager
def _held(data_dir: Path | None) -> Generator[Path]:
    folder = private_folder(data_dir or default_data_dir(os.environ))
    lock = hold_directory(folder)
    try:
        yield folder
    finally:
        os.close(lock)


def _plan(
    data_dir: Path, logs: Path, roots: list[Path], port: int, scheduler_port: int, workers: int
) -> Plan:
    server = EmbeddedServer.of(data_dir)
    environment = parts_environment(
        server,
        port=port,
        scheduler_port=scheduler_port,
        roots=[*roots, demo_folder(data_dir)],
        token=operator_token(data_dir, os.environ),
        base=os.environ,
    )
    return Plan(data_dir, logs, roots, port, scheduler_port, workers, server, environment)


def _supervise(plan: Plan, settings: Settings, *, verbose: bool) -> int:
    names = [SERVER, SCHEDULER, FRONTEND, *plan.worker_names]
    tails = Tails([(name, plan.log_dir / f"{name}.log") for name in names], _say)
    supervisor = Supervisor(plan, settings, _say, tails.look if verbose else lambda: None)
    return supervisor.run(lambda pids: _greet(plan, settings, pids))


def _greet(plan: Plan, settings: Settings, pids: dict[str, int]) -> None:
    api = plan.address + settings.api_prefix
    user = _user()
    demo = plan.data_dir / "demo"
    paths = {"src": str(demo / "from"), "dst": str(demo / "to")}
    query = urlencode(paths, quote_via=quote, safe="/")
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
    with suppress(OSError):
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
