"""`tasks status`, `tasks users`: one task as it stands, and who has tasks."""

from typing import Any

import typer

from app.client import calls
from app.client.types import TaskRef
from cli import options
from cli.api import connected
from cli.output import (
    Format,
    clean,
    mapping,
    short_time,
    show_json,
    show_pairs,
    show_table,
    to_json,
)
from cli.progress import summary

_SHOWN_LOGS = 20
_HISTORY = ("ATTEMPT", "OUTCOME", "ENDED", "WORKER", "REASON")


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("status")(status)
    app.command("users")(users)


def status(
    service: options.Service,
    task_id: options.TaskId,
    user: options.User,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Show one task, why attempts failed, and its latest log lines."""
    with connected(api_base) as api:
        task = api.run(calls.get(TaskRef(task_id, service, user)))
    show_task(task, output)


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
            ("Worker", task.get("worker")),
            ("Created", short_time(task.get("created_at"))),
            ("Started", short_time(task.get("started_at"))),
            ("Completed", short_time(task.get("completed_at"))),
            ("Updated", short_time(task.get("updated_at"))),
            ("Retry of", task.get("retry_of")),
            ("Jobs", _compact(task.get("jobs"))),
            ("Pod status", result.get("pod_status")),
            ("Checkpoint", _compact(task.get("checkpoint"))),
            ("Result", _compact(result.get("data"))),
        ]
    )
    _show_history(task)
    _show_logs(task)


def _compact(value: object) -> str:
    return to_json(value) if value not in (None, {}, []) else ""


def _show_history(task: dict[str, Any]) -> None:
    """The attempts that did not succeed, and the reason of each."""
    notes: list[dict[str, Any]] = task.get("history") or []
    if not notes:
        return
    print("\nAttempts that did not succeed")
    show_table(_HISTORY, map(_attempt, notes))


def _attempt(note: dict[str, Any]) -> tuple[object, ...]:
    return (
        note.get("attempt", ""),
        note.get("outcome", ""),
        short_time(note.get("ended_at")),
        note.get("worker") or "",
        note.get("reason", ""),
    )


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
    with connected(api_base) as api:
        answer = api.run(calls.users(service))
    if output is Format.JSON:
        show_json(answer, output)
        return
    for user in answer["users"]:
        print(to_json(user) if output is Format.JSONL else clean(user))
