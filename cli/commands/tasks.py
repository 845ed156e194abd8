"""`tasks list`, `tasks status`, `tasks users`: what is there, and how it stands."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli import options
from cli.client import Api, route
from cli.errors import CliError, ExitCode
from cli.output import (
    Format,
    clean,
    mapping,
    note,
    short_time,
    show_json,
    show_pairs,
    show_table,
    to_json,
)
from cli.progress import summary

_HEADERS = ("TASK ID", "SERVICE", "USER", "STATUS", "CREATED", "UPDATED", "PROGRESS")
_SHOWN_LOGS = 20
Page = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("list")(list_tasks)
    app.command("status")(status)
    app.command("users")(users)


def list_tasks(
    *,
    service: options.OptionalService = None,
    user: options.OptionalUser = None,
    state: Annotated[
        list[str] | None, typer.Option("--status", help="Only tasks with this status; repeatable.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Only tasks created since: an age (2h, 7d) or an ISO time."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=200, help="Tasks a page.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Where a page before ended.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pages.")] = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """List tasks: a user's, or an operator's view of all.

    Newest first. Operators name their token and leave out --user, or --service too.
    """
    path = _list_path(service, user)
    token = None if user else token  # nobody is told it who need not know
    query = {
        "status": state,
        "created_after": options.since(since),
        "limit": limit,
        "cursor": cursor,
    }
    with Api(api_base, token) as api:
        pages = (
            _pages(api, path, query) if everything else iter([api.call("GET", path, params=query)])
        )
        _show_pages(pages, output)


def _list_path(service: str | None, user: str | None) -> str:
    match service, user:
        case None, None:
            return route("admin", "tasks")
        case None, _:
            raise CliError("a user's tasks are listed by service", "add --service", ExitCode.USAGE)
        case _, None:
            return route("admin", "services", service, "tasks")
        case _:
            return route("services", service, "users", user, "tasks")


def _pages(api: Api, path: str, query: dict[str, Any]) -> Iterator[Page]:
    while True:
        page = api.call("GET", path, params=query)
        yield page
        if not page.get("next_cursor"):
            return
        query["cursor"] = page["next_cursor"]


def _show_pages(pages: Iterator[Page], output: Format) -> None:
    if output is Format.JSON:
        first = next(pages)
        tasks, following = list(first["tasks"]), first.get("next_cursor")
        for page in pages:
            tasks.extend(page["tasks"])
            following = page.get("next_cursor")
        show_json({**first, "tasks": tasks, "next_cursor": following}, output)
        return
    shown = 0
    for page in pages:
        if output is Format.JSONL:
            for task in page["tasks"]:
                print(to_json(task))
        elif page["tasks"] or not shown:
            show_table(_HEADERS, map(_row, page["tasks"]))
        shown += len(page["tasks"])
        _note_rest(page, shown, output)


def _note_rest(page: Page, shown: int, output: Format) -> None:
    if page.get("next_cursor") and output is Format.TABLE:
        total, following = page.get("total", "?"), page["next_cursor"]
        note(f"{shown} of {total} tasks; more: --all, or --cursor {following}")


def _row(task: dict[str, Any]) -> tuple[object, ...]:
    return (
        task["task_id"],
        task["service"],
        task["user_id"],
        task["status"],
        short_time(task.get("created_at")),
        short_time(task.get("updated_at")),
        summary(task.get("progress")),
    )


def status(
    service: options.Service,
    task_id: options.TaskId,
    user: options.User,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Show one task and its latest log lines."""
    with Api(api_base) as api:
        task = read_task(api, service, user, task_id)
    show_task(task, output)


def read_task(api: Api, service: str, user: str, task_id: str) -> dict[str, Any]:
    """One task as its owner reads it."""
    path = route("services", service, "tasks", task_id)
    return api.call("GET", path, params={"user_id": user})["task"]


def show_task(task: dict[str, Any], output: Format) -> None:
    """Print one task."""
    if output is not Format.TABLE:
        show_json(task, output)
        return
    result = mapping(task.get("result"))
    show_pairs(
        [
            ("Task", task["task_id"]),
            ("Service", task["service"]),
            ("User", task["user_id"]),
            ("Status", task["status"]),
            ("Error", result.get("error")),
            ("Progress", summary(task.get("progress"))),
            ("Queue position", task.get("queue_position")),
            ("Description", task.get("description")),
            ("Parameters", _compact(task.get("parameters"))),
            ("Attempts", f"{task.get('attempts', 0)} of {task.get('max_attempts', '?')}"),
            ("Created", short_time(task.get("created_at"))),
            ("Started", short_time(task.get("started_at"))),
            ("Completed", short_time(task.get("completed_at"))),
            ("Updated", short_time(task.get("updated_at"))),
            ("Retry of", task.get("retry_of")),
            ("Jobs", _compact(task.get("jobs"))),
            ("Pod status", result.get("pod_status")),
            ("Result", _compact(result.get("data"))),
        ]
    )
    _show_logs(task)


def _compact(value: object) -> str:
    return to_json(value) if value not in (None, {}, []) else ""


def _show_logs(task: dict[str, Any]) -> None:
    lines: list[str] = task.get("logs") or []
    if not lines:
        return
    latest = lines[-_SHOWN_LOGS:]
    hidden = max(task.get("logs_total", 0), len(lines)) - len(latest)
    more = f" ({hidden} earlier: tasks logs)" if hidden else ""
    print(f"\nLogs{more}")
    for line in latest:
        print(f"  {clean(line)}")


def users(
    service: options.Service,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """List who has tasks of a service."""
    with Api(api_base) as api:
        answer = api.call("GET", route("services", service, "users"))
    if output is Format.JSON:
        show_json(answer, output)
        return
    for user in answer["users"]:
        print(to_json(user) if output is Format.JSONL else clean(user))
