"""The operator's routes: all tasks, whoever's they are. All need the operator token."""

from fastapi import APIRouter, Depends, Request, Response

from app.api.dependencies import get_api, require_operator
from app.api.listing import (
    CountQuery,
    CountQueryParams,
    TaskQuery,
    TaskQueryParams,
    options_of,
)
from app.api.responses import counts_response, json_response, page_response
from app.api.routes.task_extras import ADJUST_BODY, read_limit
from app.api.routes.tasks import cancelled, deleted
from app.api.schemas import (
    Counts,
    ServiceName,
    TaskAccepted,
    TaskAdjusted,
    TaskDeleted,
    TaskIdPath,
    TaskList,
)

router = APIRouter(prefix="/admin", tags=["operator"], dependencies=[Depends(require_operator)])


@router.get(
    "/tasks",
    summary="List all tasks across services",
    responses={200: {"model": TaskList}},
    dependencies=[Depends(options_of(TaskQuery))],
)
async def list_all_tasks(query: TaskQueryParams, request: Request) -> Response:
    """Newest first, 50 a page unless asked otherwise."""
    return page_response(request, await get_api(request).tasks.search(query.search()))


@router.get(
    "/services/{service}/tasks",
    summary="List tasks for a specific service",
    responses={200: {"model": TaskList}},
    dependencies=[Depends(options_of(TaskQuery))],
)
async def list_service_tasks(
    service: ServiceName, query: TaskQueryParams, request: Request
) -> Response:
    """Newest first, 50 a page unless asked otherwise."""
    return page_response(request, await get_api(request).tasks.search(query.search(service)))


@router.get(
    "/counts",
    summary="Count tasks by status, service and user",
    responses={200: {"model": Counts}},
    dependencies=[Depends(options_of(CountQuery))],
)
async def count_all_tasks(query: CountQueryParams, request: Request) -> Response:
    """All tasks, or those of a service, of a user, or of a user in one service. `by_user` is
    counted where a service is named, and null where it has more than 1000 users."""
    return counts_response(await get_api(request).tasks.counts(query.service, query.user_id))


@router.post(
    "/tasks/{task_id}/cancel",
    summary="Cancel any task",
    responses={200: {"model": TaskAccepted}, 202: {"model": TaskAccepted}},
)
async def cancel_any_task(task_id: TaskIdPath, request: Request) -> Response:
    """200 CANCELLED when nothing ran, 202 CANCEL_REQUESTED when a worker has to end it first."""
    return cancelled(task_id, await get_api(request).tasks.cancel(task_id, None))


@router.patch(
    "/tasks/{task_id}",
    summary="Change any task's bandwidth while it waits or runs",
    responses={200: {"model": TaskAdjusted}},
    openapi_extra=ADJUST_BODY,
)
async def adjust_any_task(task_id: TaskIdPath, request: Request) -> Response:
    """Bytes a second or a text such as `10M`; 0 for no limit, null for the task's own."""
    limit = await read_limit(request)
    adjusted = await get_api(request).tasks.set_bandwidth(task_id, None, limit)
    return json_response({"task_id": task_id, "adjust": adjusted})


@router.delete(
    "/tasks/{task_id}",
    summary="Cleanup task metadata/logs",
    responses={200: {"model": TaskDeleted}, 202: {"model": TaskDeleted}},
)
async def delete_any_task(task_id: TaskIdPath, request: Request) -> Response:
    """An active task is cancelled first: 200 when it is gone, 202 when its worker still ends it."""
    return deleted(task_id, gone=await get_api(request).tasks.delete(task_id, None))
