"""`schedules create`, `update`, `preview`: what a schedule is to be."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.client import schedules as calls
from cli import options
from cli.api import connected
from cli.commands.schedules import Name, Reason, told
from cli.errors import CliError, ExitCode
from cli.output import Format, clean, short_time, show_json, show_table, to_json

_PREVIEW = ("SLOT", "DUE", "PARAMETERS")

Cron = Annotated[
    str | None,
    typer.Option("--cron", help='When: "0 3 * * *", "@hourly", or six fields, seconds first.'),
]
Service = Annotated[str | None, typer.Option("--service", help="The service of its tasks.")]
User = Annotated[str | None, typer.Option("--user", help="The user whom they belong to.")]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        help="A parameter: name=value, with templates such as {{ slot:%Y-%m-%d }}. Repeatable.",
    ),
]
Zone = Annotated[
    str | None, typer.Option("--timezone", help="Such as Asia/Seoul; DMS's own by default.")
]
DstPolicy = Annotated[
    str | None, typer.Option("--dst-policy", help="How it treats changes of the clock.")
]
Description = Annotated[str | None, typer.Option("--description", help="What it is for.")]
OverlapOption = Annotated[
    str | None,
    typer.Option(
        "--overlap",
        help="While an earlier task runs: skip, buffer_one, buffer_all, allow or cancel_other.",
    ),
]
Grace = Annotated[
    float | None, typer.Option("--grace", help="Seconds that a slot may be late; then it missed.")
]
Coalesce = Annotated[
    str | None,
    typer.Option("--coalesce", help="Of missed slots fire the latest, the earliest, all or none."),
]
MaxCatchup = Annotated[
    int | None, typer.Option("--max-catchup", help="How many slots fire at once at most.")
]
Jitter = Annotated[
    float | None, typer.Option("--jitter", help="Seconds within which each slot is put off.")
]
Start = Annotated[
    str | None, typer.Option("--start", help="No slots before: a time, with its offset.")
]
End = Annotated[
    str | None, typer.Option("--end", help="No slots from here on: a time, with its offset.")
]
PauseAfter = Annotated[
    int | None,
    typer.Option("--pause-after-failures", help="Pause it after so many failures in a row."),
]
Count = Annotated[
    int | None, typer.Option("--count", "-n", min=1, max=100, help="How many fires to show.")
]
After = Annotated[str | None, typer.Option("--after", help="Those after this time (now).")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("create")(create)
    app.command("update")(update)
    app.command("preview")(preview)


def create(
    *,
    name: Name,
    cron: Annotated[
        str, typer.Option("--cron", help='When: "0 3 * * *", "@hourly", or six fields.')
    ],
    service: Annotated[str, typer.Option("--service", help="The service of its tasks.")],
    user: Annotated[str, typer.Option("--user", help="The user whom they belong to.")],
    param: Params = None,
    timezone: Zone = None,
    dst_policy: DstPolicy = None,
    description: Description = None,
    overlap: OverlapOption = None,
    grace: Grace = None,
    coalesce: Coalesce = None,
    max_catchup: MaxCatchup = None,
    jitter: Jitter = None,
    start: Start = None,
    end: End = None,
    pause_after_failures: PauseAfter = None,
    paused: Annotated[bool, typer.Option("--paused", help="Create it paused.")] = False,
    reason: Reason = None,
    strict: options.Strict = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Create a schedule: it submits a task at each of its times, from now on.

    `schedules preview` shows what it would do.
    """
    fields = _fields(
        cron=cron, service=service, user=user, param=param, timezone=timezone,
        dst_policy=dst_policy, description=description, overlap=overlap, grace=grace,
        coalesce=coalesce, max_catchup=max_catchup, jitter=jitter, start=start, end=end,
        pause_after_failures=pause_after_failures,
    )  # fmt: skip
    if reason is not None and not paused:
        raise CliError("--reason says why it is paused", "add --paused", ExitCode.USAGE)
    with connected(api_base, token) as api:
        flow = calls.create(name, fields, paused=paused, reason=reason, strict=strict)
        told(api.run(flow), output)


def update(
    *,
    name: Name,
    cron: Cron = None,
    service: Service = None,
    user: User = None,
    param: Params = None,
    timezone: Zone = None,
    dst_policy: DstPolicy = None,
    description: Description = None,
    overlap: OverlapOption = None,
    grace: Grace = None,
    coalesce: Coalesce = None,
    max_catchup: MaxCatchup = None,
    jitter: Jitter = None,
    start: Start = None,
    end: End = None,
    pause_after_failures: PauseAfter = None,
    default: Annotated[
        list[str] | None,
        typer.Option("--default", help="Set this field, such as end_at, to its default."),
    ] = None,
    revision: Annotated[
        int | None, typer.Option("--revision", min=1, help="Only if it still has this revision.")
    ] = None,
    strict: options.Strict = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Change a schedule: only what is named changes, and --param names all parameters anew.

    What is due already fires as it was.
    """
    changes = _fields(
        cron=cron, service=service, user=user, param=param, timezone=timezone,
        dst_policy=dst_policy, description=description, overlap=overlap, grace=grace,
        coalesce=coalesce, max_catchup=max_catchup, jitter=jitter, start=start, end=end,
        pause_after_failures=pause_after_failures,
    )  # fmt: skip
    changes |= dict.fromkeys(default or ())
    if not changes:
        raise CliError("nothing to change is named", "name an option, --cron ...", ExitCode.USAGE)
    with connected(api_base, token) as api:
        told(api.run(calls.update(name, changes, revision=revision, strict=strict)), output)


def preview(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A schedule; or --cron ...")
    ] = None,
    cron: Cron = None,
    service: Service = None,
    user: User = None,
    param: Params = None,
    timezone: Zone = None,
    dst_policy: DstPolicy = None,
    jitter: Jitter = None,
    start: Start = None,
    end: End = None,
    count: Count = None,
    after: After = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Show when a schedule will fire, and with which parameters; nothing is stored.

    Of a stored one by its name, or of one that you think of: --cron "0 3 * * MON-FRI".
    """
    if (name is None) == (cron is None):
        raise CliError(
            "which schedule is meant is not clear", "name one, or give --cron", ExitCode.USAGE
        )
    moment = options.as_written(after)
    fields = _fields(
        cron=cron, service=service or "preview", user=user or "preview", param=param,
        timezone=timezone, dst_policy=dst_policy, jitter=jitter, start=start, end=end,
    )  # fmt: skip
    with connected(api_base, token) as api:
        if name is not None:
            found = api.run(calls.preview(name, count=count, after=moment))
        else:
            found = api.run(calls.preview_new(fields, count=count, after=moment))
    if output is not Format.TABLE:
        show_json(found, output)
        return
    print(clean(f"{found['words']} ({found['timezone']})"))
    show_table(_PREVIEW, map(_preview_row, found["fires"]))


def _preview_row(fire: Mapping[str, Any]) -> tuple[object, ...]:
    slot, due = short_time(fire["slot"]), short_time(fire["due"])
    return (slot, "" if due == slot else due, to_json(fire["parameters"]))


def _fields(
    *,
    user: str | None,
    param: list[str] | None,
    start: str | None,
    end: str | None,
    grace: float | None = None,
    jitter: float | None = None,
    **others: object,
) -> dict[str, Any]:
    """The fields of the API for what was named; `others` have the same names there."""
    given = {
        **others,
        "user_id": user,
        "parameters": None if param is None else options.parameters(param),
        "grace_seconds": grace,
        "jitter_seconds": jitter,
        "start_at": options.as_written(start),
        "end_at": options.as_written(end),
    }
    return {name: value for name, value in given.items() if value is not None}
