"""Lists of tasks as they are printed: as a table, a wide one, or JSON, page after page."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cli.output import (
    Format,
    ListFormat,
    mapping,
    note,
    short_time,
    show_json,
    show_table,
    to_json,
)
from cli.progress import duration, summary

Page = dict[str, Any]
Task = dict[str, Any]

_HEADERS = ("TASK ID", "SERVICE", "USER", "STATUS", "CREATED", "UPDATED", "PROGRESS")
_WIDE_HEADERS = (*_HEADERS, "ATTEMPTS", "DURATION", "WORKER", "ERROR")
_ERROR_WIDTH = 60


def show_pages(pages: Iterator[Page], output: ListFormat) -> None:
    """Print pages as they come; what follows the last one is said on stderr."""
    if output is ListFormat.JSON:
        _show_as_one(pages)
        return
    shown, page = 0, Page()
    for page in pages:
        tasks: list[Task] = page["tasks"]
        if output is ListFormat.JSONL:
            for task in tasks:
                print(to_json(task))
        elif tasks or not shown:
            _show_rows(tasks, wide=output is ListFormat.WIDE)
        shown += len(tasks)
    _note_rest(page, shown)


def _show_as_one(pages: Iterator[Page]) -> None:
    first = next(pages)
    tasks, following = list(first["tasks"]), first.get("next_cursor")
    for page in pages:
        tasks.extend(page["tasks"])
        following = page.get("next_cursor")
    show_json({**first, "tasks": tasks, "next_cursor": following}, Format.JSON)


def _show_rows(tasks: list[Task], *, wide: bool) -> None:
    if not wide:
        show_table(_HEADERS, map(_row, tasks))
        return
    now = datetime.now(UTC)
    show_table(_WIDE_HEADERS, ((*_row(task), *_more(task, now)) for task in tasks))


def _note_rest(page: Page, shown: int) -> None:
    following = page.get("next_cursor")
    if following:
        total = page.get("total")
        count = f"{shown} tasks" if total is None else f"{shown} of {total} tasks"
        note(f"{count}; more: --all, or --cursor {following}")


def _row(task: Task) -> tuple[object, ...]:
    return (
        task["task_id"],
        task["service"],
        task["user_id"],
        task["status"],
        short_time(task.get("created_at")),
        short_time(task.get("updated_at")),
        summary(task.get("progress")),
    )


def _more(task: Task, now: datetime) -> tuple[object, ...]:
    return (
        f"{task.get('attempts', 0)}/{task.get('max_attempts', '?')}",
        _lasted(task, now),
        task.get("worker") or "",
        _shortened(_error(task) or _last_reason(task)),
    )


def _error(task: Task) -> str | None:
    if "result.error" in (task.get("omitted") or ()):
        return "(too long for a list: tasks status shows it)"
    return mapping(task.get("result")).get("error")


def _last_reason(task: Task) -> str:
    """Why a task that goes on had to begin anew; of one that was completed it is no error."""
    history: list[dict[str, Any]] = task.get("history") or []
    if not history or task["status"] == "COMPLETED":
        return ""
    return history[-1].get("reason") or ""


def _lasted(task: Task, now: datetime) -> str:
    """How long it has run, or ran."""
    start, end = _instant(task.get("started_at")), _instant(task.get("completed_at"))
    return "" if start is None else duration(max(0.0, ((end or now) - start).total_seconds()))


def _instant(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _shortened(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= _ERROR_WIDTH else f"{line[: _ERROR_WIDTH - 1]}…"
