"""The operator's view of the services: what waits and runs in each; pause, drain and resume."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from app.api.dependencies import get_api, require_operator
from app.api.listing import NoQuery, options_of
from app.api.parameters import read_reason
from app.api.responses import json_response
from app.api.schemas import REASON_BODY, ServiceAnswer, ServiceList, ServiceOrAll
from app.services.service_modes import Change, ServiceView

router = APIRouter(
    prefix="/admin/services",
    tags=["operator"],
    dependencies=[Depends(require_operator), Depends(options_of(NoQuery))],
)


@router.get(
    "", summary="List the services with their state", responses={200: {"model": ServiceList}}
)
async def list_services(request: Request) -> Response:
    """Every service that has a definition, tasks, or a mode other than ACTIVE. The service `*`
    stands there while all services are paused or draining."""
    views = await get_api(request).services.all()
    return json_response({"services": [_shown(view) for view in views]})


@router.get(
    "/{service}",
    summary="Show one service's state",
    responses={200: {"model": ServiceAnswer}},
)
async def get_service(service: ServiceOrAll, request: Request) -> Response:
    """A name that nobody has used yet is an active service without tasks."""
    return json_response(_shown(await get_api(request).services.get(service)))


@router.post(
    "/{service}/pause",
    summary="Pause a service: what runs goes on, nothing new starts",
    responses={200: {"model": ServiceAnswer}},
    openapi_extra=REASON_BODY,
)
async def pause_service(service: ServiceOrAll, request: Request) -> Response:
    """Submissions are accepted, and wait. `*` pauses all services."""
    return await _change(request, service, "pause")


@router.post(
    "/{service}/drain",
    summary="Drain a service: nothing new is accepted, what waits and runs is finished",
    responses={200: {"model": ServiceAnswer}},
    openapi_extra=REASON_BODY,
)
async def drain_service(service: ServiceOrAll, request: Request) -> Response:
    """Submissions answer 409 `service-draining`. `*` drains all services."""
    return await _change(request, service, "drain")


@router.post(
    "/{service}/resume",
    summary="Resume a service that was paused or drained",
    responses={200: {"model": ServiceAnswer}},
    openapi_extra=REASON_BODY,
)
async def resume_service(service: ServiceOrAll, request: Request) -> Response:
    """What waits starts within about a second. `*` ends what was said of `*`."""
    return await _change(request, service, "resume")


async def _change(request: Request, service: str, change: Change) -> Response:
    reason = await read_reason(request)
    return json_response(_shown(await get_api(request).services.change(service, change, reason)))


def _shown(view: ServiceView) -> dict[str, Any]:
    state = view.state
    return {
        "service": state.service,
        "mode": state.mode,
        "since": state.since,
        "reason": state.reason,
        "waiting": state.waiting,
        "delayed": state.delayed,
        "running": state.running,
        "defined": view.defined,
    }
