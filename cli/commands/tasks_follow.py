"""`tasks logs` and `tasks wait`: the commands that stay and look."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.client import calls
from app.client.types import TaskRef
from cli import options
from cli.api import connected
from cli.commands.tasks import show_task
from cli.output import Format, clean, mapping, note, show_json, to_json
from cli.progress import reporter
from cli.waiting import exit_code, leave_on_interrupt

if TYPE_CHECKING:
    from app.client import Client


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
    with connected(api_base) as api:
        wait_and_show(api, TaskRef(task_id, service, user), timeout=timeout, output=output)


def wait_and_show(api: "Client", task: TaskRef, *, timeout: float | None, output: Format) -> None:
    """Watch a task to its end, print it, and exit with what the end means."""
    with leave_on_interrupt(f"Wait again: dms-frontend tasks wait {_scope(task)}"):
        with reporter(quiet=output is not Format.TABLE) as watch:
            found = api.run(calls.wait(task, timeout=timeout, seen=watch.show))
        _show_end(found, output)
    raise typer.Exit(exit_code(found))


def _scope(task: TaskRef) -> str:
    return f"--service {task.service} --user {task.user_id} --task-id {task.task_id}"


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
    task = TaskRef(task_id, service, user)
    offset = -tail if tail else 0
    with connected(api_base) as api:
        if not follow:
            _show_pages(api, task, offset, output)
            return
        with leave_on_interrupt(f"Follow again: dms-frontend tasks logs -f {_scope(task)}"):
            for line in api.stream(calls.follow(task, offset=offset)):
                _show_line(line, output)


def _show_pages(api: "Client", task: TaskRef, offset: int, output: Format) -> None:
    lines: list[str] = []
    first: int | None = None
    while True:
        page = api.run(calls.logs(task, offset=offset))
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
