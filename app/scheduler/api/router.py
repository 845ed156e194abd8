"""Two routes for one API trigger: POST /trigger and GET /status."""

import json
import logging
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from app.event_system import BrokerUnavailableError, EventBase, EventSystemError, QueueFullError
from app.scheduler.domain.errors import EventFactoryError, TriggerNotRunningError
from app.scheduler.infrastructure.api_trigger import APITrigger

log = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2
_TITLES: Final = {
    "trigger-not-running": (503, "The trigger is not running"),
    "broker-unavailable": (503, "The broker takes no event now"),
    "invalid-payload": (422, "No event can be made of the payload"),
    "event-factory-failed": (500, "The event factory failed"),
    "not-published": (500, "The event was not published"),
}


class TriggerRequest(BaseModel):
    """The body of POST /trigger: `data` is the payload of the event factory."""

    model_config = ConfigDict(extra="forbid", strict=True)

    data: dict[str, JsonValue]


class TriggerResponse(BaseModel):
    """The event was published."""

    success: bool
    message: str
    trigger_count: int


class TriggerStatus(BaseModel):
    """How the trigger is."""

    running: bool
    trigger_count: int


def create_trigger_router(api_trigger: APITrigger[Any], prefix: str = "/api/webhooks") -> APIRouter:
    """A router that calls the trigger. Whoever reaches it can publish: the application that
    includes it says who may, by its dependencies."""
    router = APIRouter(prefix=prefix, tags=["triggers"])

    @router.post("/trigger", response_model=TriggerResponse, responses=_documented())
    async def trigger(  # pyright: ignore[reportUnusedFunction]
        request: Request, body: Annotated[TriggerRequest, Body()]
    ) -> Response | TriggerResponse:
        """Publish the event that the trigger makes of `data`."""
        try:
            event: EventBase = await api_trigger.trigger(body.data)
        except (TriggerNotRunningError, EventFactoryError, EventSystemError) as error:
            return _problem(error, request.url.path)
        log.info(
            "Triggered by HTTP",
            extra={"action": "trigger.http", "event_id": event.event_id, "topic": event.topic},
        )
        return TriggerResponse(
            success=True,
            message="Event triggered successfully",
            trigger_count=api_trigger.get_trigger_count(),
        )

    @router.get("/status")
    async def status() -> TriggerStatus:  # pyright: ignore[reportUnusedFunction]
        """Whether the trigger runs, and how many events it published."""
        return TriggerStatus(
            running=api_trigger.is_running(), trigger_count=api_trigger.get_trigger_count()
        )

    return router


def _documented() -> dict[int | str, dict[str, Any]]:
    return {
        500: {"description": "The event factory failed; the log has the cause"},
        503: {"description": "The trigger or the broker is not running: repeat the request"},
    }


def _problem(error: Exception, path: str) -> Response:
    slug, detail, errors = _kind(error)
    status, title = _TITLES[slug]
    if status >= 500:
        log.warning(
            "A trigger called by HTTP published nothing",
            exc_info=error if status == 500 else None,
            extra={"action": "trigger.http", "status": status, "reason": str(error)},
        )
    problem: dict[str, Any] = {
        "type": f"urn:dms:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": path,
    }
    if errors:
        problem["errors"] = errors
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    return Response(json.dumps(problem), status, headers, PROBLEM_MEDIA_TYPE)


def _kind(error: Exception) -> tuple[str, str, list[dict[str, str]]]:
    """The problem's name, what to tell the caller, and the fields that do not fit."""
    match error:
        case TriggerNotRunningError():
            return "trigger-not-running", str(error), []
        case BrokerUnavailableError() | QueueFullError():
            return "broker-unavailable", f"{error}; repeat the request", []
        case EventFactoryError() if isinstance(error.__cause__, ValidationError):
            return _misfit(error.__cause__)
        case EventFactoryError():
            # Its message may hold what the caller must not see.
            detail = "the event factory failed on this payload; the log has the cause"
            return "event-factory-failed", detail, []
        case _:
            detail = "the event was made, but cannot be published; the log has the cause"
            return "not-published", detail, []


def _misfit(error: ValidationError) -> tuple[str, str, list[dict[str, str]]]:
    found = [
        {"where": ".".join(map(str, one["loc"])), "what": one["msg"]}
        for one in error.errors(include_url=False, include_input=False, include_context=False)[:20]
    ]
    return "invalid-payload", "; ".join(f"{one['where']}: {one['what']}" for one in found), found
