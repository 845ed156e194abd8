"""`tasks logs` and `tasks wait`: the commands that stay and look."""

from typing import Annotated, Any

import typer

from cli import options
from cli.client import Api, route
from cli.commands.tasks import read_task, show_task
from cli.follow import follow_logs
from cli.output import Format, clean, mapping, note, show_json, to_json
from cli.progress import reporter
from cli.waiting import exit_code, leave_on_interrupt, until_done


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("logs")(logs)
    app.command("wait")(wait)


def wait(
    service: options.Service,
    task_id: options.TaskId,
    user: options.User,
    timeout: options.Timeout = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Wait for a task's end and exit with its outcome.

    0 COMPLETED, 10 FAILED, 11 CANCELLED; 124 when --timeout comes first.
    """
    with Api(api_base) as api:
        wait_and_show(api, service, user, task_id, timeout=timeout, output=output)


def wait_and_show(
    api: Api, service: str, user: str, task_id: str, *, timeout: float | None, output: Format
) -> None:
    """Watch a task to its end, print it, and exit with what the end means."""
    scope = f"--service {service} --user {user} --task-id {task_id}"
    with leave_on_interrupt(f"Wait again: dms-frontend tasks wait {scope}"):
        with reporter(quiet=output is not Format.TABLE) as watch:
            task = until_done(lambda: read_task(api, service, user, task_id), watch, timeout)
        _show_end(task, output)
    raise typer.Exit(exit_code(task))


def _show_end(task: dict[str, Any], output: Format) -> None:
    if output is not Format.TABLE:
        show_task(task, output)
        return
    print(f"{clean(task['task_id'])} {clean(task['status'])}")
    error = mapping(task.get("result")).get("error")
    if error:
        note(f"error: {error}")


def logs(
    service: options.Service,
    task_id: options.TaskId,
    user: options.User,
    tail: Annotated[
        int | None,
        typer.Option("--tail", min=1, max=1_000_000, help="Only the last lines, so many."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and print new lines until the task ends.")
    ] = False,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Print a task's log, from its first line on."""
    path = route("services", service, "tasks", task_id, "logs")
    with Api(api_base) as api:
        if not follow:
            _show_pages(api, path, user, -tail if tail else 0, output)
            return
        scope = f"--service {service} --user {user} --task-id {task_id}"
        with leave_on_interrupt(f"Follow again: dms-frontend tasks logs -f {scope}"):
            for line in follow_logs(api, path, user, -tail if tail else 0):
                _show_line(line, output)


def _show_pages(api: Api, path: str, user: str, offset: int, output: Format) -> None:
    lines: list[str] = []
    first: int | None = None
    while True:
        page = api.call("GET", path, params={"user_id": user, "offset": offset})
        found: list[str] = page["lines"]
        first = page["offset"] if first is None else first
        offset = page["offset"] + len(found)
        if output is Format.JSON:
            lines.extend(found)
        else:
            for line in found:
                _show_line(line, output)
        if not found or offset >= page["total"]:
            break
    if output is Format.JSON:
        show_json({"lines": lines, "offset": first, "total": offset}, output)


def _show_line(line: str, output: Format) -> None:
    # Flushed, so that a pipe gets each line when it comes.
    print(clean(line) if output is Format.TABLE else to_json(line), flush=True)
