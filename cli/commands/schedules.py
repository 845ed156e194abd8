"""`schedules ...`: stored schedules as they stand; pause, resume, run, backfill and delete them.

They are made and changed in `cli.commands.schedules_write`.
"""

from typing import Annotated, Any

import typer

from app.client import schedules as calls
from cli import options
from cli.api import connected
from cli.confirm import confirm
from cli.output import (
    Format,
    clean,
    note,
    short_time,
    show_json,
    show_list,
    show_pairs,
    show_table,
    to_json,
)

Schedule = dict[str, Any]

_HEADERS = ("SCHEDULE", "CRON", "ZONE", "SERVICE", "USER", "STATE", "NEXT", "FIRED", "FAILURES")
_FIRES = ("SLOT", "OUTCOME", "KIND", "AT", "TASK", "REASON")
_SHOWN_FIRES = 10
# What a schedule has unless somebody says otherwise need not be shown.
_DEFAULTS = {"overlap": "skip", "grace_seconds": 60.0, "coalesce": "latest", "max_catchup": 100,
             "jitter_seconds": 0.0}  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Reason = Annotated[
    str | None, typer.Option("--reason", help="Why, for whoever looks; 500 characters at most.")
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("list")(list_schedules)
    app.command("show")(show)
    app.command("fires")(fires)
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("run")(run)
    app.command("backfill")(backfill)
    app.command("delete")(delete)


def list_schedules(
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=200, help="Schedules a page.")
    ] = None,
    cursor: options.Cursor = None,
    all_pages: options.AllPages = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """List the schedules by name, each with when it fires next."""
    with connected(api_base, token) as api:
        pages = api.stream(calls.pages(limit=limit, cursor=cursor))
        for page in pages:
            _show_page(page, output)
            if not all_pages:
                if page["next_cursor"]:
                    note(f"there are more: --cursor {page['next_cursor']}, or --all")
                return


def _show_page(page: dict[str, Any], output: Format) -> None:
    show_list(page, "schedules", _HEADERS, _row, output)
    if page["unreadable"] and output is not Format.JSON:
        note(f"cannot be read by this version of DMS: {', '.join(page['unreadable'])}")


def _row(schedule: Schedule) -> tuple[object, ...]:
    return (
        schedule["schedule_id"],
        schedule["cron"],
        schedule["timezone"],
        schedule["service"],
        schedule["user_id"],
        _state(schedule),
        short_time(next(iter(schedule["next_fires"]), "")),
        schedule["fired"],
        schedule["failures"],
    )


def _state(schedule: Schedule) -> str:
    if schedule.get("problem"):
        return "BROKEN"
    return "PAUSED" if schedule["paused"] else "ACTIVE"


def show(
    name: Name,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Show a schedule: what it does, when it fires next, and what became of its last slots."""
    with connected(api_base, token) as api:
        schedule = api.run(calls.get(name))
        if output is not Format.TABLE:
            show_json(schedule, output)
            return
        show_schedule(schedule)
        found = api.run(calls.fires(name, limit=_SHOWN_FIRES))
    if found["fires"]:
        print("\nLast slots")
        show_table(_FIRES, map(_fire_row, found["fires"]))


def show_schedule(schedule: Schedule) -> None:
    """Print one schedule."""
    special = [
        (field.replace("_", " ").capitalize(), schedule[field])
        for field, default in _DEFAULTS.items()
        if schedule[field] != default
    ]
    show_pairs(
        [
            ("Schedule", schedule["schedule_id"]),
            ("State", _state(schedule)),
            ("Reason", schedule["reason"]),
            ("Problem", schedule["problem"]),
            ("Description", schedule["description"]),
            ("Cron", f"{schedule['cron']}  ({schedule['words']})"),
            ("Time zone", schedule["timezone"]),
            ("Service", schedule["service"]),
            ("User", schedule["user_id"]),
            ("Parameters", to_json(schedule["parameters"]) if schedule["parameters"] else ""),
            *special,
            ("DST policy", schedule["dst_policy"]),
            ("Start", short_time(schedule["start_at"])),
            ("End", short_time(schedule["end_at"])),
            ("Pause after", _failures(schedule["pause_after_failures"])),
            ("From a file", "yes" if schedule["source"] == "file" else ""),
            ("Next", ", ".join(short_time(at) for at in schedule["next_fires"])),
            ("Fired", schedule["fired"]),
            ("Missed", schedule["missed"] or ""),
            ("Skipped", schedule["skipped"] or ""),
            ("Failures now", schedule["failures"] or ""),
            ("Active tasks", _active(schedule)),
            ("Waiting slots", ", ".join(short_time(at) for at in schedule["buffered"])),
            ("Revision", schedule["revision"]),
        ]
    )


def _failures(count: int | None) -> str:
    return f"{count} failures in a row" if count else ""


def _active(schedule: Schedule) -> str:
    more = schedule["active_count"] - len(schedule["active"])
    return ", ".join(schedule["active"]) + (f" and {more} more" if more > 0 else "")


def _fire_row(fire: dict[str, Any]) -> tuple[object, ...]:
    slot = short_time(fire["slot"]) or "-"
    if fire["count"] > 1:
        slot = f"{short_time(fire['first'])} to {slot} ({fire['count']})"
    rest = (fire["kind"], short_time(fire["at"]), fire["task_id"] or "-", fire["reason"] or "")
    return (slot, fire["outcome"], *rest)


def fires(
    name: Name,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=1000, help="Entries a page.")
    ] = None,
    cursor: Annotated[
        int | None, typer.Option("--cursor", min=1, help="Where the page before ended.")
    ] = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Show what became of a schedule's slots, newest first; the last 1000 are kept."""
    with connected(api_base, token) as api:
        found = api.run(calls.fires(name, limit=limit, cursor=cursor))
    show_list(found, "fires", _FIRES, _fire_row, output)
    if found["next_cursor"] and output is not Format.JSON:
        note(f"there are more: --cursor {found['next_cursor']}")


def pause(
    name: Name,
    reason: Reason = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Let nothing of a schedule fire; its tasks go on.

    Slots that pass meanwhile are not made up: `schedules backfill` does that.
    """
    with connected(api_base, token) as api:
        told(api.run(calls.pause(name, reason)), output)


def resume(
    name: Name,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Let a schedule fire again, from now on."""
    with connected(api_base, token) as api:
        told(api.run(calls.resume(name)), output)


def told(schedule: Schedule, output: Format) -> None:
    """Print in one line how a schedule stands."""
    if output is not Format.TABLE:
        show_json(schedule, output)
        return
    following = next(iter(schedule["next_fires"]), None)
    when = f", next at {short_time(following)}" if following else ""
    print(clean(f"{schedule['schedule_id']} {_state(schedule)}{when}"))


def run(
    name: Name,
    idempotency_key: options.IdempotencyKey = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Start a schedule's task now, whatever runs already, and also while it is paused.

    Prints the task's id.
    """
    with connected(api_base, token) as api:
        found = api.run(calls.run(name, idempotency_key=idempotency_key))
    if output is Format.TABLE:
        print(clean(found["fire"]["task_id"]))
    else:
        show_json(found, output)


def backfill(
    name: Name,
    start: Annotated[
        str, typer.Option("--from", help="The first slot made up: a time, or an age such as 7d.")
    ],
    end: Annotated[
        str | None,
        typer.Option("--to", help="Slots from here on (now) are not: a time, or an age."),
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option("--overlap", help="One after the other (buffer_all), or at once (allow) ..."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be.")] = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Make up slots of the past, at most 1000. Times without an offset are in the schedule's zone.

    A slot that has its task already is left alone, so repeating it is safe.
    """
    first, last = options.moment(start).isoformat(), options.as_written(end)
    with connected(api_base, token) as api:
        found = api.run(calls.backfill(name, first, last, overlap=overlap, dry_run=dry_run))
    show_list(found, "fires", _FIRES, _fire_row, output)
    if dry_run and output is Format.TABLE:
        note("nothing was started: this was a dry run")


def delete(
    name: Name,
    yes: options.Yes = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Delete a schedule and its history. Its tasks stay, and go on."""
    confirm(f"Delete the schedule {name} and its history?", yes=yes)
    with connected(api_base, token) as api:
        found = api.run(calls.delete(name))
    if output is Format.TABLE:
        note(f"schedule {name} is gone")
    else:
        show_json(found, output)
