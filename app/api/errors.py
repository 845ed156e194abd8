"""From errors to `application/problem+json` (RFC 9457): the one place that chooses a status."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ExceptionHandler

from app.core import errors as dms
from app.core.findings import told
from app.core.logging import request_id_var
from app.event_system.domain import errors as events
from task_state import errors as state

log = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2
_MAX_DETAILS: Final = 20


class _Kind(NamedTuple):
    status: int
    slug: str
    title: str


# The most special class of an error that stands here decides.
_KINDS: Final[Mapping[type[Exception], _Kind]] = {
    state.TaskNotFoundError: _Kind(404, "task-not-found", "No such task"),
    state.TransitionError: _Kind(409, "illegal-transition", "The task's state does not allow it"),
    state.TaskEndedError: _Kind(409, "task-ended", "The task has ended"),
    state.ConflictError: _Kind(409, "conflict", "Somebody else changed it"),
    state.LeaseHeldError: _Kind(409, "lease-held", "A worker holds the task"),
    state.FencedError: _Kind(409, "fenced", "The attempt is over"),
    state.ServiceDrainingError: _Kind(409, "service-draining", "The service takes no new tasks"),
    state.ScheduleNotFoundError: _Kind(404, "schedule-not-found", "No such schedule"),
    state.ScheduleExistsError: _Kind(409, "schedule-exists", "The name is taken"),
    state.ScheduleConflictError: _Kind(409, "conflict", "Somebody else changed it"),
    state.IdempotencyMismatchError: _Kind(422, "idempotency-mismatch", "Idempotency key reused"),
    state.InvalidRequestError: _Kind(422, "invalid-request", "The request means nothing"),
    state.StoreUnavailableError: _Kind(503, "store-unavailable", "The task store is away"),
    state.ConfigurationError: _Kind(503, "misconfigured", "The service is misconfigured"),
    events.TopicError: _Kind(422, "invalid-request", "The request means nothing"),
    events.SubscribeError: _Kind(422, "invalid-request", "The request means nothing"),
    events.BrokerUnavailableError: _Kind(503, "broker-unavailable", "The event broker is away"),
    events.QueueFullError: _Kind(503, "queue-full", "A queue of events is full"),
    dms.UnknownGroupError: _Kind(404, "group-not-found", "No such group of events"),
    dms.BadInputError: _Kind(422, "invalid-request", "The request means nothing"),
    dms.MalformedRequestError: _Kind(400, "malformed-request", "The request cannot be read"),
    dms.PayloadTooLargeError: _Kind(413, "body-too-large", "The body is too large"),
    dms.QueryTooLongError: _Kind(414, "query-too-long", "The query is too long"),
    dms.UnsupportedBodyError: _Kind(415, "unsupported-body", "The body's type is not JSON"),
    dms.UnknownHostError: _Kind(421, "unknown-host", "Not a name of this service"),
    dms.UnknownDefinitionError: _Kind(422, "unknown-definition", "No such definition"),
    dms.NotAuthenticatedError: _Kind(401, "not-authenticated", "Who asks is not known"),
    dms.WebhookRefusedError: _Kind(401, "not-authenticated", "Who sends is not known"),
    dms.WebhookUnavailableError: _Kind(503, "webhook-unavailable", "The webhook takes nothing now"),
    dms.UnknownWebhookError: _Kind(404, "webhook-not-found", "No such webhook"),
    dms.ForbiddenError: _Kind(403, "forbidden", "Not allowed"),
    dms.TooManyAttemptsError: _Kind(429, "too-many-attempts", "Too many wrong tokens"),
    dms.NotRetryableError: _Kind(409, "not-retryable", "The task cannot be retried"),
    dms.ScheduleFromFileError: _Kind(409, "schedule-from-file", "The schedule is from a file"),
    dms.ScheduleOwesError: _Kind(409, "schedule-owes", "A slot is due and cannot fire now"),
    dms.TooManyStreamsError: _Kind(503, "too-many-streams", "Too many live streams"),
    dms.SchedulerUnavailableError: _Kind(503, "scheduler-unavailable", "The scheduler is away"),
    dms.SchedulerRejectedError: _Kind(502, "scheduler-rejected", "The scheduler refused"),
    dms.ConfigurationError: _Kind(500, "misconfigured", "The service is misconfigured"),
}
_INTERNAL: Final = _Kind(500, "internal-error", "A defect of the service")


def problem(
    kind: tuple[int, str, str],
    detail: str,
    instance: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
) -> Response:
    """A problem response: status, a slug for programs, a title and a detail for people."""
    status, slug, title = kind
    body: dict[str, Any] = {
        "type": f"urn:dms:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "request_id": request_id_var.get(),
    }
    if errors:
        body["errors"] = list(errors)
    return Response(_encode(body), status, headers, PROBLEM_MEDIA_TYPE)


def problem_for(error: Exception, instance: str) -> Response:
    """The problem response for an error of ours; any other is a defect, told without details."""
    kind = next((_KINDS[cls] for cls in type(error).__mro__ if cls in _KINDS), None)
    if kind is None:
        return problem(
            _INTERNAL,
            "this is a defect: please report the request id, under which the log has the cause",
            instance,
        )
    return problem(kind, str(error), instance, headers=_headers(error, kind.status))


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of the app, of the store and of FastAPI itself as a problem."""
    handlers: list[tuple[type[Exception], Any]] = [
        (dms.DmsError, _handle),
        (state.TaskStateError, _handle),
        (events.EventSystemError, _handle),
        (RequestValidationError, _handle_validation),
        (HTTPException, _handle_http),
    ]
    for error_class, handler in handlers:
        app.add_exception_handler(error_class, cast("ExceptionHandler", handler))


def _headers(error: Exception, status: int) -> dict[str, str]:
    if isinstance(error, dms.TooManyAttemptsError):
        return {"Retry-After": str(error.retry_after)}
    if status == 503:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    if isinstance(error, dms.WebhookRefusedError):
        return {"WWW-Authenticate": "Webhook"}  # one word for all: a kind would say which names are
    if status == 401:
        return {"WWW-Authenticate": "X-Operator-Token"}
    return {"Connection": "close"} if status == 413 else {}


async def _handle(request: Request, error: Exception) -> Response:
    response = problem_for(error, request.url.path)
    if response.status_code >= 500:
        log.warning(
            "Request failed",
            extra={"action": "http.error", "status": response.status_code, "reason": str(error)},
        )
    return response


async def _handle_validation(request: Request, error: RequestValidationError) -> Response:
    """FastAPI's findings, with the values of the query and the path alone, which the client's own
    error shows anyway: those of headers and bodies may be secret."""
    found = [
        {"where": ".".join(map(str, item["loc"])), "what": _finding(item)}
        for item in error.errors()[:_MAX_DETAILS]
    ]
    detail = "; ".join(f"{item['where'].partition('.')[2]}: {item['what']}" for item in found)
    kind = _KINDS[dms.BadInputError]
    return problem(kind, detail, request.url.path, errors=found)


def _finding(item: Mapping[str, Any]) -> str:
    return told(item, secret=item["loc"][0] not in {"query", "path"})


async def _handle_http(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    slug = status.phrase.lower().replace(" ", "-")
    detail, headers = error.detail, error.headers
    if status == HTTPStatus.NOT_FOUND:
        detail = "no such route: the help route and /docs list what there is"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods(request)) or (error.headers or {}).get("Allow", "")
        detail, headers = f"this path takes {allowed} alone", {"Allow": allowed}
    kind = _Kind(status.value, slug, status.phrase)
    return problem(kind, detail, request.url.path, headers=headers)


def _methods(request: Request) -> list[str]:
    """All methods of a path: the framework names those of one of its routes."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    found = {
        method.upper()
        for path, operations in paths.items()
        if compile_path(path)[0].match(request.url.path)
        for method in operations
    }
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a lone surrogate in a text: told as well as JSON can
        clean = {
            name: value.encode(errors="replace").decode() if isinstance(value, str) else value
            for name, value in body.items()
        }
        return orjson.dumps(clean)
