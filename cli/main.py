"""The Typer application: puts the groups of commands together, and is the one place of exits."""

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

import typer

from cli.commands import (
    doctor,
    events,
    schedules,
    schedules_write,
    services,
    services_modes,
    tasks,
    tasks_beside,
    tasks_change,
    tasks_follow,
    tasks_keep,
    tasks_search,
    up,
)
from cli.errors import CliError, ExitCode
from cli.output import clean

app = typer.Typer(
    name="dms-frontend",
    help="DMS, the Data Moving Service: submit a task, watch it run, lose nothing.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_tasks = typer.Typer(
    help="Submit, watch, list and end tasks by the API.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_services = typer.Typer(
    help="See what waits and runs in each service; pause, drain and resume services.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_schedules = typer.Typer(
    help="Have tasks submitted at set times: create, list, pause, run, backfill schedules.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_events = typer.Typer(
    help="See the event broker's queues; replay or discard dead letters.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(_tasks, name="tasks")
app.add_typer(_services, name="services")
app.add_typer(_schedules, name="schedules")
app.add_typer(_events, name="events")
up.register(app)
doctor.register(app)
services.register(app)
services_modes.register(_services)
schedules_write.register(_schedules)
schedules.register(_schedules)
events.register(_events)
tasks_search.register(_tasks)
tasks.register(_tasks)
tasks_change.register(_tasks)
tasks_beside.register(_tasks)
tasks_follow.register(_tasks)
tasks_keep.register(_tasks)


def run(arguments: Sequence[str], name: str = "dms-frontend") -> int:
    """Run one command; returns the exit code of `cli.errors.ExitCode`, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # Data may be any characters, the terminal's encoding may not: show an escape, go on.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(list(arguments), prog_name=name)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else ExitCode.ERROR
    except CliError as error:
        return _explain(error.cause, error.remedy, error.code)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the last net: a person gets words, not a traceback)
        if os.environ.get("DMS_DEBUG"):
            traceback.print_exc()
        if isinstance(error, OSError):  # the machine's refusal, such as a full disk
            return _explain(str(error), "DMS_DEBUG=1 shows where", ExitCode.ERROR)
        hint = "this is a defect of dms-frontend; DMS_DEBUG=1 shows where"
        return _explain(f"{type(error).__name__}: {error}", hint, ExitCode.ERROR)
    return ExitCode.OK


def _explain(cause: str, remedy: str, code: ExitCode) -> int:
    print(f"error: {clean(cause)}", file=sys.stderr)
    if remedy:
        print(f"  {clean(remedy)}", file=sys.stderr)
    return code
