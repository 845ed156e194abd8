"""Webhooks: the ways in for senders that prove who they are. Not the router of one trigger, which
is `app.scheduler.api`."""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel

from app.api.dependencies import get_api, require_operator
from app.api.parameters import parse_form_field, parse_object, read_body
from app.api.responses import json_response

router = APIRouter(prefix="/webhooks")

_FORM: Final = '{"name": value}'
_FORM_TYPE: Final = "application/x-www-form-urlencoded"
WebhookName = Annotated[str, Path(description="A webhook of DMS_WEBHOOKS_FILE")]


class WebhookAnswer(BaseModel):
    """What became of a delivery. A repeat gets the same answer; without an `event_id` there was
    nothing to do."""

    success: bool
    message: str
    event_id: str | None
    task_id: str | None


class WebhookState(BaseModel):
    """Whether the webhook takes deliveries, and how many took effect in this process."""

    running: bool
    trigger_count: int


def trigger_path(api_prefix: str) -> re.Pattern[str]:
    """The paths of the route that proves its sender by itself."""
    return re.compile(rf"{re.escape(api_prefix)}{router.prefix}/[^/]+/trigger")


@router.post(
    "/{name}/trigger",
    status_code=202,
    tags=["webhooks"],
    summary="Deliver an event of the webhook's sender; it may submit a task",
    responses={200: {"model": WebhookAnswer}, 202: {"model": WebhookAnswer}},
    openapi_extra={
        "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}
    },
)
async def trigger_webhook(name: WebhookName, request: Request) -> Response:
    """202 when the event is published and its task stored, now or by the first of the repeats;
    200 for what has no effect by rule, as GitHub's `ping`. 401 says nothing about the cause, which
    is in the service's log."""
    webhooks = get_api(request).webhooks
    body = await read_body(request)
    call = webhooks.authenticate(name, request.headers.raw, body)
    content_type = request.headers.get("content-type", "")
    answer = await webhooks.receive(call, lambda: _payload(body, content_type))
    shown = {
        "success": True,
        "message": answer.message,
        "event_id": answer.event_id,
        "task_id": answer.task_id,
    }
    return json_response(shown, 200 if answer.event_id is None else 202)


@router.get(
    "/{name}/status",
    tags=["operator"],
    summary="Show whether a webhook is open, and how often it was called",
    responses={200: {"model": WebhookState}},
    dependencies=[Depends(require_operator)],
)
async def show_webhook(name: WebhookName, request: Request) -> Response:
    """`trigger_count` counts deliveries that took effect, in this process and since its start."""
    status = get_api(request).webhooks.status(name)
    return json_response({"running": status.running, "trigger_count": status.trigger_count})


def _payload(body: bytes, content_type: str) -> dict[str, Any]:
    """The object that was sent: as JSON, or as GitHub's forms have it; an empty one for no body."""
    if not body:
        return {}
    if content_type.partition(";")[0].strip().lower() == _FORM_TYPE:
        return parse_object(parse_form_field(body, "payload"), "application/json", _FORM)
    return parse_object(body, content_type, _FORM)
