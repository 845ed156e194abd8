"""`tasks prune` and `tasks export`: remove finished tasks, and write tasks to files."""

from collections.abc import Iterator
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli import keeping, options
from cli.api import connected
from cli.confirm import check_present
from cli.export_file import STDOUT, ExportFile
from cli.output import Format, note, short_time, show_json, show_table

if TYPE_CHECKING:
    from app.client import Client

_HEADERS = ("SERVICE", "STATUS", "TASKS", "OLDEST END", "NEWEST END")
_FINISHED = ("COMPLETED", "FAILED", "CANCELLED")
_SHOWN_EVERY = 1000
Step = TypeVar("Step", int, keeping.Tally)


class Form(StrEnum):
    """How a task is written."""

    JSONL = "jsonl"
    FLAT = "flat"


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("prune")(prune)
    app.command("export")(export)


FormOption = Annotated[
    Form,
    typer.Option("--format", help="jsonl: whole records; flat: rows of fixed columns for tables."),
]
Append = Annotated[bool, typer.Option("--append", help="Add to a file that is there already.")]


def prune(
    *,
    older_than: Annotated[
        str,
        typer.Option("--older-than", help="How long ago they ended at least: 30d, 12h; or a time."),
    ],
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help="COMPLETED, FAILED or CANCELLED; repeatable. Default: all."),
    ] = None,
    service: options.OneService = None,
    user: options.OneUser = None,
    export_to: Annotated[
        str | None, typer.Option("--export", help="Write them to this file before they go.")
    ] = None,
    form: FormOption = Form.JSONL,
    append: Append = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; show what would go.")
    ] = False,
    yes: options.Yes = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Remove finished tasks with their logs, for ever.

    Counted from their end. With --export each task is in the file, and the file on disk, before it
    is removed. A task that changes meanwhile stays. Ctrl-C ends it between two steps.
    """
    before = options.since(older_than)
    wanted = {
        "completed_before": before,
        "status": [_finished(each) for each in status or _FINISHED],
        "service": service,
        "user_id": user,
    }
    _check_flags(export_to, append=append, dry_run=dry_run)
    asked = not (dry_run or yes)
    if asked:
        check_present("say --yes, or look first: --dry-run")
    with connected(api_base, token) as api:
        if dry_run or asked:
            tally = _run(keeping.prune(api, wanted, dry_run=True), "found")
            if dry_run:
                _show(tally, before, output, dry_run=True)
                return
            if not tally.tasks or not _agreed(tally):
                note("nothing was removed")
                return
        tally = _remove(api, wanted, export_to, form, append=append)
        _show(tally, before, output, dry_run=False)


def export(
    *,
    target: Annotated[
        str, typer.Option("--output", "--to", "-o", help="The new file to write; - is stdout.")
    ],
    form: FormOption = Form.JSONL,
    append: Append = False,
    task_id: options.ById = None,
    service: options.OneService = None,
    status: options.Status = None,
    user: options.OneUser = None,
    text: options.Text = None,
    since: options.Since = None,
    until: options.Until = None,
    updated_after: options.UpdatedAfter = None,
    updated_before: options.UpdatedBefore = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Only tasks that ended so long ago (30d).")
    ] = None,
    token: options.Token = None,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Write tasks with their whole logs to a file, one a line, oldest first.

    Nothing is removed. Tasks that come or go meanwhile may be in it or not.
    """
    wanted = {
        "id": task_id,
        "service": service,
        "status": status,
        "user_id": user,
        "q": text,
        "created_after": options.since(since),
        "created_before": options.since(until),
        "updated_after": options.since(updated_after),
        "updated_before": options.since(updated_before),
        "completed_before": options.since(older_than),
        "order": "asc",
    }
    with connected(api_base, token) as api, ExportFile(target, append=append) as file:
        written = _run(keeping.export(api, wanted, file, form), "written")
    note(f"{written} tasks written" + ("" if target == STDOUT else f" to {target}"))


def _finished(text: str) -> str:
    status = text.upper()
    if status not in _FINISHED:
        raise typer.BadParameter(f"{text!r} is no end of a task: use {', '.join(_FINISHED)}")
    return status


def _check_flags(target: str | None, *, append: bool, dry_run: bool) -> None:
    if target == STDOUT:
        raise typer.BadParameter("--export needs a file: what stdout got may be lost on its way")
    if append and target is None:
        raise typer.BadParameter("--append belongs to --export FILE")
    if dry_run and target is not None:
        raise typer.BadParameter("--dry-run removes nothing, so it exports nothing")


def _remove(
    api: "Client", wanted: keeping.Options, target: str | None, form: Form, *, append: bool
) -> keeping.Tally:
    with ExitStack() as stack:
        file = None
        if target is not None:
            file = stack.enter_context(ExportFile(target, append=append))
        return _run(keeping.prune(api, wanted, file=file, form=form), "removed")


def _run(steps: Iterator[Step], done: str) -> Step:
    """Take all steps and return what the last one said, with a line now and then on stderr."""
    latest, shown = next(steps), 0
    while True:
        count = latest if isinstance(latest, int) else latest.tasks
        if count - shown >= _SHOWN_EVERY:
            shown = count
            note(f"{count} {done}")
        following = next(steps, None)
        if following is None:
            return latest
        latest = following


def _agreed(tally: keeping.Tally) -> bool:
    _table(tally)
    return typer.confirm(f"Remove these {tally.tasks} tasks for ever?", err=True)


def _show(tally: keeping.Tally, before: str | None, output: Format, *, dry_run: bool) -> None:
    if output is Format.TABLE:
        _table(tally)
        note(f"{tally.tasks} tasks {'would be removed' if dry_run else 'removed'}{_stays(tally)}")
        return
    groups = [
        {
            "service": service,
            "status": status,
            "tasks": group.tasks,
            "oldest": group.oldest,
            "newest": group.newest,
        }
        for (service, status), group in sorted(tally.groups.items())
    ]
    show_json(
        {
            "dry_run": dry_run,
            "completed_before": before,
            "tasks": tally.tasks,
            "exported": tally.exported,
            "skipped": tally.skipped,
            "groups": groups,
        },
        output,
    )


def _table(tally: keeping.Tally) -> None:
    show_table(
        _HEADERS,
        [
            (*names, group.tasks, short_time(group.oldest), short_time(group.newest))
            for names, group in sorted(tally.groups.items())
        ],
    )


def _stays(tally: keeping.Tally) -> str:
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(tally.skipped.items()))
    return f"; not removed: {reasons}" if reasons else ""
