"""From the API's JSON to types, which are imported when first needed: to load pydantic alone takes
longer than many a command."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from app.client._flow import Json
from app.client.errors import UnexpectedAnswerError

if TYPE_CHECKING:
    from app.client._shown_task import TaskShown
    from app.client.answers import (
        Change,
        DeadLetterPage,
        Definition,
        EventQueue,
        Health,
        Lost,
        ServiceState,
        Submitted,
        Throughput,
    )
    from task_state import LogPage, TaskCounts, TaskPage, TaskStatus

T = TypeVar("T")


def read(make: Callable[[Any], T], found: Any) -> T:
    """What `make` makes of an answer; UnexpectedAnswerError where the answer has another form."""
    try:
        return make(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswerError(
            f"an answer of another form than this client knows: {type(error).__name__}: {error}",
            "use a client of the service's version",
        ) from error


def task(found: Json) -> "TaskShown":
    """One task."""
    from app.client._shown_task import shown_task

    return shown_task(found)


def tasks(found: Json) -> "list[TaskShown]":
    """The tasks of a page."""
    return [task(entry) for entry in found["tasks"]]


def page(found: Json) -> "TaskPage":
    """A page of tasks."""
    from task_state import TaskPage

    return TaskPage(tasks(found), found.get("next_cursor"), found.get("total"))


def when_changed(tell: "Callable[[TaskShown], object] | None") -> Callable[[Json], object]:
    """What is told of every reading of a task, so that `tell` is told of each new one."""
    if tell is None:
        return bool
    last: Json | None = None

    def seen(found: Json) -> None:
        nonlocal last
        if found != last:
            last = found
            tell(read(task, found))

    return seen


def counts(found: Json) -> "TaskCounts":
    """Numbers of tasks; states that this client does not know count in the total alone."""
    from task_state import TaskCounts, TaskStatus

    known = TaskStatus.__members__
    return TaskCounts(
        total=int(found["total"]),
        by_status={TaskStatus(k): int(v) for k, v in found["by_status"].items() if k in known},
        by_service=dict(found["by_service"]),
        by_user=None if found.get("by_user") is None else dict(found["by_user"]),
    )


def log_page(found: Json) -> "LogPage":
    """A part of a log."""
    from task_state import LogPage

    return LogPage(list(found["lines"]), int(found["offset"]), int(found["total"]))


def throughput(found: Json) -> "Throughput":
    """How progress went."""
    from app.client.answers import Point, Throughput

    points = [
        Point(datetime.fromtimestamp(at / 1000, UTC), int(size), int(files))
        for at, size, files in found["points"]
    ]
    return Throughput(points, int(found["interval_seconds"]))


def adjusted(found: Json) -> "Mapping[str, Any]":
    """What was changed about a task."""
    return dict(found["adjust"])


def status(found: Json) -> "TaskStatus":
    """A task's status."""
    from task_state import TaskStatus

    return TaskStatus(found["status"])


def submitted(service: str, user: str) -> "Callable[[Json], Submitted]":
    """Reads the answer to a submission for that user."""
    from app.client.answers import Submitted

    return lambda found: Submitted(
        str(found["task_id"]), service, user, str(found["status"]), found["idempotency_key"]
    )


def resubmitted(found: Json) -> "Submitted":
    """The answer to a retry."""
    return submitted(found["service"], found["user_id"])(found)


def deleted(found: Json) -> bool:
    """Whether a task is gone already."""
    return bool(found["deleted"])


def names(found: Json) -> list[str]:
    """Users."""
    return [str(name) for name in found["users"]]


def definitions(found: Json) -> "list[Definition]":
    """Task definitions."""
    from app.client.answers import Definition

    return [
        Definition(str(entry["id"]), entry.get("description"), entry.get("parameters"), entry)
        for entry in found["definitions"]
    ]


def services(found: Json) -> "list[ServiceState]":
    """The states of all services."""
    return [service(entry) for entry in found["services"]]


def service(found: Json) -> "ServiceState":
    """A service's state."""
    from app.client.answers import ServiceState

    return ServiceState(
        service=str(found["service"]),
        mode=str(found["mode"]),
        since=datetime.fromisoformat(found["since"]) if found.get("since") else None,
        reason=found.get("reason"),
        waiting=int(found["waiting"]),
        delayed=int(found["delayed"]),
        running=int(found["running"]),
        defined=found.get("defined"),
    )


def event_queues(found: Json) -> "list[EventQueue]":
    """Queues of the event broker."""
    from app.client.answers import EventQueue

    counts = ("members", "waiting", "unsettled", "dropped", "dead")
    return [
        EventQueue(entry["pattern"], entry["group"], *(int(entry[name]) for name in counts))
        for entry in found["queues"]
    ]


def dead_letters(found: Json) -> "DeadLetterPage":
    """A page of dead letters."""
    from app.client.answers import DeadLetter, DeadLetterPage

    letters = [
        DeadLetter(
            letter_id=entry["id"],
            pattern=entry["pattern"],
            group=entry["group"],
            topic=entry["topic"],
            type_name=entry["type"],
            payload=entry["payload"],
            reason=entry["reason"],
            deliveries=int(entry["deliveries"]),
        )
        for entry in found["dead_letters"]
    ]
    return DeadLetterPage(letters, found["next_cursor"])


def count(found: Json) -> int:
    """How many it was."""
    return int(found["count"])


def change(told: tuple[str, str, Json]) -> "Change | Lost":
    """One of the changes."""
    from app.client.answers import Change, Lost

    change_id, name, data = told
    if name == "lost":
        return Lost()
    fields = ("kind", "task_id", "service", "user_id", "status")
    return Change(change_id, *(str(data[field]) for field in fields))


def health(found: Json) -> "Health":
    """What `/readyz` says."""
    from app.client.answers import Health

    parts = {name: value for name, value in found.items() if name != "status"}
    return Health(found["status"] == "ready", parts)
