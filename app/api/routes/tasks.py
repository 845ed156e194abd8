"""A user's routes: submit, list, show, follow, cancel, retry and delete tasks."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse

from app.api.dependencies import get_api, own_scope, task_scope
from app.api.listing import NoQuery, TaskQuery, TaskQueryParams, only, options_of
from app.api.parameters import read_idempotency_key, read_parameters, wants_strict
from app.api.responses import counts_response, json_response, page_response, task_response
from app.api.schemas import (
    Counts,
    LogLines,
    ServiceName,
    TaskAccepted,
    TaskAnswer,
    TaskDeleted,
    TaskIdPath,
    TaskList,
    TaskRetried,
    UserList,
    UserName,
    UserQuery,
)
from app.api.streams import last_line, log_response
from task_state import TaskStatus

router = APIRouter(tags=["tasks"])

_USER_ALONE = [Depends(only("user_id"))]

_BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"parameters": {"type": "object"}},
                }
            }
        }
    }
}


@router.post(
    "/services/{service}/users/{user_id}/tasks",
    status_code=202,
    summary="Submit a new task; query parameters become task inputs",
    responses={202: {"model": TaskAccepted}},
    openapi_extra=_BODY,
)
async def create_task(service: ServiceName, user_id: UserName, request: Request) -> Response:
    """A repeated query parameter becomes a list; a JSON body `{"parameters": {...}}` is taken too.

    `Idempotency-Key` makes repeating safe; `Prefer: handling=strict` checks the parameters now.
    """
    scope = own_scope(request, service, user_id)
    api = get_api(request)
    key = read_idempotency_key(request.headers.getlist("idempotency-key"))
    parameters = await read_parameters(request)
    headers: dict[str, str] = {}
    if wants_strict(request.headers.getlist("prefer")):
        await api.definitions.validate(service, parameters)
        headers["Preference-Applied"] = "handling=strict"
    made = await api.tasks.create(scope, parameters, idempotency_key=key)
    headers["Location"] = _location(request, service, user_id, made.task_id)
    return json_response({"task_id": made.task_id, "status": made.status}, 202, headers)


@router.get(
    "/services/{service}/users",
    summary="List the users who have tasks in a service",
    responses={200: {"model": UserList}},
    dependencies=[Depends(options_of(NoQuery))],
)
async def list_users(service: ServiceName, request: Request) -> Response:
    """Behind a trusted proxy everyone sees themselves alone."""
    api = get_api(request)
    own = api.users.user(request)
    users = await api.tasks.users(service)
    return json_response({"users": [u for u in users if own is None or u == own]})


@router.get(
    "/services/{service}/users/{user_id}/tasks",
    summary="List a user's tasks for a service",
    responses={200: {"model": TaskList}},
    dependencies=[Depends(options_of(TaskQuery))],
)
async def list_tasks(
    service: ServiceName, user_id: UserName, query: TaskQueryParams, request: Request
) -> Response:
    """Newest first, 50 a page unless asked otherwise."""
    scope = own_scope(request, service, user_id)
    search = query.search(scope.service, scope.user_id)
    return page_response(request, await get_api(request).tasks.search(search))


@router.get(
    "/services/{service}/users/{user_id}/counts",
    summary="Count a user's tasks for a service, by status",
    responses={200: {"model": Counts}},
    dependencies=[Depends(options_of(NoQuery))],
)
async def count_tasks(service: ServiceName, user_id: UserName, request: Request) -> Response:
    """Every status stands there, with 0 where there is no task."""
    scope = own_scope(request, service, user_id)
    return counts_response(await get_api(request).tasks.counts(scope.service, scope.user_id))


@router.get(
    "/services/{service}/tasks/{task_id}",
    summary="Fetch task status scoped to the user",
    responses={200: {"model": TaskAnswer}},
    dependencies=_USER_ALONE,
)
async def get_task(
    service: ServiceName, task_id: TaskIdPath, user_id: UserQuery, request: Request
) -> Response:
    """The task with its last 200 log lines; `logs_total` counts them all."""
    scope = task_scope(request, service, user_id, task_id)
    view = await get_api(request).tasks.get(task_id, scope)
    return task_response(view.task, view.queue_position)


@router.get(
    "/services/{service}/tasks/{task_id}/logs",
    summary="Read a task's log, or follow it as server-sent events",
    responses={200: {"model": LogLines, "content": {"text/event-stream": {}}}},
    dependencies=[Depends(only("user_id", "offset", "limit", "follow"))],
)
async def get_logs(
    service: ServiceName,
    task_id: TaskIdPath,
    user_id: UserQuery,
    request: Request,
    *,
    offset: Annotated[int, Query(ge=-1_000_000, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    follow: bool = False,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """A negative offset counts from the end. With `Accept: text/event-stream` or `follow=true` each
    line is an event `log` (`id` its number from 1, data `{"n", "line"}`), and `end` the last one
    (data `{"status"}`, null when the task was deleted); `Last-Event-ID` goes on after that line."""
    scope = task_scope(request, service, user_id, task_id)
    api = get_api(request)
    view = await api.tasks.logs(task_id, scope, offset=offset, limit=limit)
    page = view.page
    if follow or "text/event-stream" in accept:
        after = last_line(last_event_id, page.offset)
        return await log_response(api, task_id, scope, after)
    return json_response({"lines": list(page.lines), "offset": page.offset, "total": page.total})


@router.get(
    "/services/{service}/tasks/{task_id}/output",
    summary="Read all that a task's process has written",
    response_class=PlainTextResponse,
    dependencies=_USER_ALONE,
)
async def get_output(
    service: ServiceName, task_id: TaskIdPath, user_id: UserQuery, request: Request
) -> Response:
    """Plain text, 16 MiB at most; a task's own `result.launcher_output` holds its last MiB."""
    scope = task_scope(request, service, user_id, task_id)
    text = await get_api(request).tasks.output(task_id, scope)
    return PlainTextResponse(text)


@router.post(
    "/services/{service}/tasks/{task_id}/cancel",
    summary="Request task cancellation",
    responses={200: {"model": TaskAccepted}, 202: {"model": TaskAccepted}},
    dependencies=_USER_ALONE,
)
async def cancel_task(
    service: ServiceName, task_id: TaskIdPath, user_id: UserQuery, request: Request
) -> Response:
    """200 CANCELLED when nothing ran, 202 CANCEL_REQUESTED when a worker has to end it first."""
    scope = task_scope(request, service, user_id, task_id)
    return cancelled(task_id, await get_api(request).tasks.cancel(task_id, scope))


@router.post(
    "/services/{service}/tasks/{task_id}/retry",
    status_code=202,
    summary="Submit a task that has ended again, as a new task",
    responses={202: {"model": TaskRetried}},
    dependencies=_USER_ALONE,
)
async def retry_task(
    service: ServiceName, task_id: TaskIdPath, user_id: UserQuery, request: Request
) -> Response:
    """The new task has the same parameters, and `retry_of` names the old one."""
    scope = task_scope(request, service, user_id, task_id)
    key = read_idempotency_key(request.headers.getlist("idempotency-key"))
    made = await get_api(request).tasks.retry(task_id, scope, idempotency_key=key)
    return json_response(
        {"task_id": made.task_id, "status": made.status, "retry_of": task_id},
        202,
        {"Location": _location(request, service, user_id, made.task_id)},
    )


@router.delete(
    "/services/{service}/tasks/{task_id}",
    summary="Delete task metadata and logs (user-scoped)",
    responses={200: {"model": TaskDeleted}, 202: {"model": TaskDeleted}},
    dependencies=_USER_ALONE,
)
async def delete_task(
    service: ServiceName, task_id: TaskIdPath, user_id: UserQuery, request: Request
) -> Response:
    """An active task is cancelled first: 200 when it is gone, 202 when its worker still ends it."""
    scope = task_scope(request, service, user_id, task_id)
    return deleted(task_id, gone=await get_api(request).tasks.delete(task_id, scope))


def cancelled(task_id: str, status: TaskStatus) -> Response:
    """The answer to a cancellation."""
    return json_response({"task_id": task_id, "status": status}, 200 if status.is_terminal else 202)


def deleted(task_id: str, *, gone: bool) -> Response:
    """The answer to a deletion."""
    if gone:
        return json_response({"task_id": task_id, "deleted": True})
    status = TaskStatus.CANCEL_REQUESTED
    return json_response({"task_id": task_id, "deleted": False, "status": status}, 202)


def _location(request: Request, service: str, user_id: str, task_id: str) -> str:
    prefix = get_api(request).settings.api_prefix
    return f"{prefix}/services/{service}/tasks/{task_id}?user_id={quote(user_id)}"
