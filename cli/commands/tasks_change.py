"""`tasks submit`, `cancel`, `delete`, `retry`: the commands that change something."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.client import calls
from app.client.types import TaskRef
from cli import options
from cli.api import connected, task_of
from cli.commands.tasks_follow import wait_and_show
from cli.output import Format, clean, note, show_json

if TYPE_CHECKING:
    from app.client import Client


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("submit")(submit)
    app.command("cancel")(cancel)
    app.command("delete")(delete)
    app.command("retry")(retry)


Wait = Annotated[
    bool, typer.Option("--wait", help="Stay until the task ends, and exit with its outcome.")
]


def submit(
    *,
    service: options.Service,
    user: options.User,
    param: options.Param = None,
    wait: Wait = False,
    timeout: options.Timeout = None,
    strict: options.Strict = False,
    idempotency_key: options.IdempotencyKey = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Submit a task; prints its id."""
    parameters = options.parameters(param or [])
    with connected(api_base) as api:
        flow = calls.submit(
            service, user, parameters, idempotency_key=idempotency_key, strict=strict
        )
        answer = api.run(flow)
        _show_created(api, answer, service, user, wait=wait, timeout=timeout, output=output)


def _show_created(
    api: "Client",
    answer: dict[str, Any],
    service: str,
    user: str,
    *,
    wait: bool,
    timeout: float | None,
    output: Format,
) -> None:
    task_id = str(answer["task_id"])
    if wait:
        note(f"Task {task_id} accepted")
        wait_and_show(api, TaskRef(task_id, service, user), timeout=timeout, output=output)
    elif output is Format.TABLE:
        print(clean(task_id))
        note(f"{answer['status']}; watch it: {watch_hint(service, user, task_id)}")
    else:
        show_json(answer, output)


def watch_hint(service: str, user: str, task_id: str) -> str:
    """The command that follows a task."""
    return f"dms-frontend tasks wait --service {service} --user {user} --task-id {task_id}"


def retry(
    service: options.Service,
    task_id: options.TaskId,
    user: options.User,
    wait: Wait = False,
    timeout: options.Timeout = None,
    idempotency_key: options.IdempotencyKey = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Submit an ended task again, as a new one.

    Prints the new task's id.
    """
    task = TaskRef(task_id, service, user)
    with connected(api_base) as api:
        answer = api.run(calls.retry(task, idempotency_key=idempotency_key))
        _show_created(api, answer, service, user, wait=wait, timeout=timeout, output=output)


def cancel(
    task_id: options.TaskId,
    service: options.OptionalService = None,
    user: options.OptionalUser = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Cancel a task that waits or runs."""
    task = task_of(task_id, service, user)
    with connected(api_base, token) as api:
        answer = api.run(calls.cancel(task))
    if output is Format.TABLE:
        print(f"{clean(task_id)} {clean(answer.get('status', 'CANCEL_REQUESTED'))}")
    else:
        show_json(answer, output)


def delete(
    task_id: options.TaskId,
    service: options.OptionalService = None,
    user: options.OptionalUser = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Delete a task's record and logs.

    A task that waits or runs is cancelled first.
    """
    task = task_of(task_id, service, user)
    with connected(api_base, token) as api:
        answer = api.run(calls.delete(task))
    if output is Format.TABLE:
        if answer.get("deleted"):
            print(f"{clean(task_id)} deleted")
        else:
            print(f"{clean(task_id)} {clean(answer.get('status'))}")
            note("it is deleted as soon as its worker has ended it")
    else:
        show_json(answer, output)
