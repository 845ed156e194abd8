"""`services ...`: what waits and runs in each service, and pause, drain, resume of one or all.

A service here is a task definition's id. The DMS's own processes start in `cli.commands.services`.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.client import calls
from cli import options
from cli.api import connected
from cli.errors import CliError, ExitCode
from cli.output import Format, clean, note, short_time, show_json, show_list, show_pairs
from cli.waiting import leave_on_interrupt

if TYPE_CHECKING:
    from app.client import Client

State = dict[str, Any]

_HEADERS = ("SERVICE", "MODE", "WAITING", "DELAYED", "RUNNING", "SINCE", "REASON")

Which = Annotated[str | None, typer.Option("--service", help="The service.")]
Every = Annotated[bool, typer.Option("--all", help="All services, also those yet to come.")]
Reason = Annotated[
    str | None, typer.Option("--reason", help="Why, for whoever looks; 500 characters at most.")
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("list")(list_services)
    app.command("show")(show)
    app.command("pause")(pause)
    app.command("drain")(drain)
    app.command("resume")(resume)


def list_services(
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """List the services: their mode, and how many tasks wait and run.

    DELAYED are those that wait for the time of their next attempt. The service * stands for all.
    """
    with connected(api_base, token) as api:
        found = api.run(calls.services())
    show_list(found, "services", _HEADERS, _row, output)


def _row(state: State) -> tuple[object, ...]:
    return (
        state["service"],
        state["mode"],
        state["waiting"],
        state["delayed"],
        state["running"],
        short_time(state.get("since")),
        state.get("reason") or "",
    )


def show(
    service: Annotated[str, typer.Option("--service", help="The service.")],
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Show one service's state."""
    with connected(api_base, token) as api:
        _show_state(api.run(calls.service(service)), output)


def _show_state(state: State, output: Format) -> None:
    if output is not Format.TABLE:
        show_json(state, output)
        return
    since = short_time(state.get("since"))
    show_pairs(
        [
            ("Service", state["service"]),
            ("Mode", state["mode"]),
            ("Since", since),
            ("Reason", state.get("reason")),
            ("Waiting", state["waiting"]),
            ("Delayed", state["delayed"]),
            ("Running", state["running"]),
            ("Defined", {True: "yes", False: "no"}.get(state.get("defined", ""))),
        ]
    )


def pause(
    service: Which = None,
    everything: Every = False,
    reason: Reason = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until nothing runs.")] = False,
    timeout: options.Timeout = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Start nothing new of a service; what runs goes on.

    Submissions are accepted and wait. `services resume` ends it.
    """
    with connected(api_base, token) as api:
        name = _change(api, "pause", service, everything=everything, reason=reason)
        _finish(api, name, wait=wait, timeout=timeout, output=output)


def drain(
    service: Which = None,
    everything: Every = False,
    reason: Reason = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until nothing waits or runs any more.")
    ] = False,
    timeout: options.Timeout = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Refuse new tasks of a service, and finish those that it has.

    `services resume` ends it.
    """
    with connected(api_base, token) as api:
        name = _change(api, "drain", service, everything=everything, reason=reason)
        _finish(api, name, wait=wait, timeout=timeout, output=output)


def resume(
    service: Which = None,
    everything: Every = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """End what `pause` or `drain` began.

    What waits starts within about a second. --all ends what was said of all services; one that was
    paused by name stays so.
    """
    with connected(api_base, token) as api:
        name = _change(api, "resume", service, everything=everything, reason=None)
        _finish(api, name, wait=False, timeout=None, output=output)


def _change(
    api: "Client",
    change: calls.ModeChange,
    service: str | None,
    *,
    everything: bool,
    reason: str | None,
) -> str:
    """Make the change; returns the name that the API knows it by."""
    if everything == bool(service):
        raise CliError(
            "which service is meant is not clear", "name --service NAME or --all", ExitCode.USAGE
        )
    name = calls.EVERY_SERVICE if everything else service or ""
    api.run(calls.change_mode(name, change, reason))
    return name


def _finish(api: "Client", name: str, *, wait: bool, timeout: float | None, output: Format) -> None:
    """Wait if asked to, and show how the service stands then."""
    if wait:
        with leave_on_interrupt("The mode stays as it was set.", "the tasks go on"):
            api.run(calls.wait_idle(name, timeout=timeout, seen=_Progress(output).show))
    state = api.run(calls.service(name))
    if output is Format.TABLE:
        print(f"{clean(state['service'])} {clean(state['mode'])}")
    else:
        show_json(state, output)


class _Progress:
    """One line on stderr whenever the numbers change; none where a program reads."""

    def __init__(self, output: Format) -> None:
        self._quiet = output is not Format.TABLE
        self._last = ""

    def show(self, found: State) -> None:
        """The states that are waited for."""
        text = ", ".join(
            f"{state['service']}: {state['waiting'] + state['delayed']} wait, "
            f"{state['running']} run"
            for state in found["services"]
            if state["waiting"] or state["delayed"] or state["running"]
        )
        if text and text != self._last and not self._quiet:
            note(text)
        self._last = text
