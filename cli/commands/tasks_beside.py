"""`tasks report`, `throughput`, `adjust`: what a task has beside its record, and its bandwidth."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.client import calls
from app.client.types import TaskRef
from cli import options
from cli.api import connected, task_of
from cli.export_file import ExportFile
from cli.output import Format, clean, note, show_json, show_table, to_json

if TYPE_CHECKING:
    from app.client import Client
    from app.client._request import Request

_HEAD = ("ACTION", "SIZE", "PATH")
_WIDTHS = (11, 14)
_MOST_ROWS = 60
_BAR_CELLS = 20
_OWN = "own"


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("report")(report)
    app.command("throughput")(throughput)
    app.command("adjust")(adjust)


def report(
    service: options.Service,
    task_id: options.TaskId,
    user: options.User,
    action: Annotated[
        list[str] | None,
        typer.Option("--action", help="Only lines of this action, such as failed; repeatable."),
    ] = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=0, help="Only lines of this attempt.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="The new file to write, as lines of JSON.")
    ] = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Print what was done with each file, as far as the task has got."""
    with connected(api_base) as api:
        task = TaskRef(task_id, service, user)
        asked = api.run(calls.report_request(task, actions=action or (), attempt=attempt))
        if to is None:
            _show_report(api, asked, output)
            return
        with ExportFile(to) as file, api.download(asked) as answer:
            file.add(answer.pieces)
    note(f"the report is in {to}")


def _show_report(api: "Client", asked: "Request", output: Format) -> None:
    """Line by line: a report may be larger than memory, and than patience."""
    from app.client.report import Lines

    lines, count = Lines(), 0
    if output is Format.TABLE:
        print(_row(_HEAD))
    with api.download(asked) as answer:
        for piece in answer.pieces:
            for line in lines.take(piece):
                _show_line(line, output, first=count == 0)
                count += 1
    if output is Format.JSON:
        print("\n]" if count else "[]")


def _show_line(line: dict[str, Any], output: Format, *, first: bool) -> None:
    match output:
        case Format.TABLE:
            print(_row(_cells(line)))
        case Format.JSON:
            print("[\n" if first else ",\n", to_json(line), sep="", end="")
        case Format.JSONL:
            print(to_json(line))


def _cells(line: dict[str, Any]) -> Sequence[object]:
    """An action, a size, and a path with what else is known of it."""
    if line.get("action") == "omitted":
        return "omitted", "", f"{line.get('lines')} lines, which the report had no room for"
    reason = line.get("reason")
    path = str(line.get("path", ""))
    return line.get("action", ""), line.get("size", ""), f"{path}: {reason}" if reason else path


def _row(cells: Sequence[object]) -> str:
    action, size, path = map(clean, cells)
    return f"{action:<{_WIDTHS[0]}} {size:>{_WIDTHS[1]}}  {path}".rstrip()


def throughput(
    service: options.Service,
    task_id: options.TaskId,
    user: options.User,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Show how fast a task went over time, all attempts together."""
    with connected(api_base) as api:
        found = api.run(calls.throughput(TaskRef(task_id, service, user)))
    points: list[list[int]] = found["points"]
    if output is Format.JSON:
        show_json(found, output)
    elif output is Format.JSONL:
        for point in points:
            print(to_json(point))
    elif len(points) < 2:
        note("there is nothing to show yet")
    else:
        _show_speeds(points)


def _show_speeds(points: list[list[int]]) -> None:
    from app.core.bandwidth import shown_bandwidth

    step = -(-len(points) // _MOST_ROWS)
    chosen = points[:-1:step] + points[-1:]
    speeds = [_speed(a, b) for a, b in itertools.pairwise(chosen)]
    most = max(*speeds, 1.0)
    rows = [
        (_time(at), size, files, shown_bandwidth(round(speed)), _bar(speed / most))
        for (at, size, files), speed in zip(chosen[1:], speeds, strict=True)
    ]
    show_table(("TIME", "BYTES", "FILES", "SPEED", ""), rows)


def _speed(before: list[int], after: list[int]) -> float:
    """Bytes a second between two points."""
    return (after[1] - before[1]) * 1000 / max(after[0] - before[0], 1)


def _bar(share: float) -> str:
    return "█" * round(share * _BAR_CELLS)


def _time(at: int) -> str:
    moment = datetime.fromtimestamp(at / 1000, UTC).astimezone()
    return moment.isoformat(sep=" ", timespec="seconds")


def adjust(
    task_id: options.TaskId,
    bandwidth: Annotated[
        str,
        typer.Option(
            "--bandwidth",
            help="Bytes a second, such as 10M; 0 for no limit; own for the task's own again.",
        ),
    ],
    service: options.OptionalService = None,
    user: options.OptionalUser = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Change how fast a task that waits or runs may go."""
    task = task_of(task_id, service, user)
    limit = None if bandwidth == _OWN else bandwidth
    with connected(api_base, token) as api:
        answer = api.run(calls.adjust(task, bandwidth=limit))
    if output is Format.TABLE:
        print(f"{clean(task_id)} {_shown_limit(answer['adjust'].get('bandwidth'))}")
    else:
        show_json(answer, output)


def _shown_limit(limit: int | None) -> str:
    from app.core.bandwidth import shown_bandwidth

    if limit is None:
        return "goes as fast as its own parameters say"
    return f"goes at {shown_bandwidth(limit)} at most" if limit else "has no limit"
