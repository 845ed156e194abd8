"""What a task has beside its record: its report, its throughput, and a bandwidth to be changed."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from app.api.dependencies import get_api, task_scope
from app.api.listing import only
from app.api.parameters import read_object
from app.api.responses import LinesResponse, json_response
from app.api.schemas import ServiceName, TaskAdjusted, TaskIdPath, Throughput, UserQuery
from app.core.bandwidth import MAX_BANDWIDTH, parse_bandwidth
from app.core.errors import BadInputError
from app.core.findings import shown
from app.services.report import Chosen, packed

router = APIRouter(tags=["tasks"])

_ADJUST_FORM: Final = '{"bandwidth": "10M"}, a number of bytes a second, 0 or null'
ADJUST_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["bandwidth"],
                    "properties": {
                        "bandwidth": {
                            "anyOf": [
                                {"type": "integer", "minimum": 0, "maximum": MAX_BANDWIDTH},
                                {"type": "string"},
                                {"type": "null"},
                            ]
                        }
                    },
                }
            }
        },
    }
}
"""`openapi_extra` of a route whose body is read by `read_limit`."""


@router.get(
    "/services/{service}/tasks/{task_id}/report",
    summary="Read a task's report: a line of JSON for each file",
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    dependencies=[Depends(only("user_id", "action", "attempt"))],
)
async def get_report(
    service: ServiceName,
    task_id: TaskIdPath,
    user_id: UserQuery,
    request: Request,
    *,
    action: Annotated[list[str] | None, Query(description="Lines of these actions")] = None,
    attempt: Annotated[int | None, Query(ge=0, description="Lines of this attempt")] = None,
    accept_encoding: Annotated[str, Header()] = "",
) -> Response:
    """As far as it has got while the task runs. Each line has its `action` and the `attempt` that
    it is of. `X-Report-Omitted` counts the lines that did not fit; then the last line is
    `{"action": "omitted", "lines": n}`. Lines of failures have 16 MiB of room for themselves."""
    scope = task_scope(request, service, user_id, task_id)
    tasks = get_api(request).tasks
    facts = await tasks.report(task_id, scope)
    headers = {
        "X-Report-Lines": str(facts.lines),
        "X-Report-Omitted": str(facts.omitted),
        "Vary": "Accept-Encoding",
    }
    lines = tasks.report_lines(task_id, Chosen(frozenset(action or ()), attempt))
    if _takes_gzip(accept_encoding):
        return LinesResponse(packed(lines), {**headers, "Content-Encoding": "gzip"})
    return LinesResponse(lines, headers)


@router.get(
    "/services/{service}/tasks/{task_id}/throughput",
    summary="Read how a task's progress went over time",
    responses={200: {"model": Throughput}},
    dependencies=[Depends(only("user_id"))],
)
async def get_throughput(
    service: ServiceName, task_id: TaskIdPath, user_id: UserQuery, request: Request
) -> Response:
    """Points of all attempts, some seconds behind while the task runs; none for a task whose
    progress has neither `bytes` nor `files`."""
    scope = task_scope(request, service, user_id, task_id)
    return json_response(await get_api(request).tasks.throughput(task_id, scope))


@router.patch(
    "/services/{service}/tasks/{task_id}",
    summary="Change a task's bandwidth while it waits or runs",
    responses={200: {"model": TaskAdjusted}},
    dependencies=[Depends(only("user_id"))],
    openapi_extra=ADJUST_BODY,
)
async def adjust_task(
    service: ServiceName, task_id: TaskIdPath, user_id: UserQuery, request: Request
) -> Response:
    """Bytes a second or a text such as `10M`; 0 for no limit, null for the task's own. A handler
    that shows progress learns of it within a second, and later attempts keep it."""
    scope = task_scope(request, service, user_id, task_id)
    limit = await read_limit(request)
    adjusted = await get_api(request).tasks.set_bandwidth(task_id, scope, limit)
    return json_response({"task_id": task_id, "adjust": adjusted})


async def read_limit(request: Request) -> int | None:
    """The bandwidth in a body: bytes a second, 0 for none, None for the task's own."""
    body = await read_object(request, _ADJUST_FORM)
    if body.keys() != {"bandwidth"}:
        names = ", ".join(sorted(body)) or "nothing"
        raise BadInputError(f"the body has {shown(names)}: send {_ADJUST_FORM}")
    value = body["bandwidth"]
    try:
        limit = parse_bandwidth(value) if isinstance(value, str) else value
    except ValueError as error:
        raise BadInputError(f"bandwidth: {shown(value)}: {error}") from error
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MAX_BANDWIDTH:
        raise BadInputError(f"bandwidth: {shown(value)}: send {_ADJUST_FORM}")
    return limit


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether the header names gzip, and not to refuse it."""
    for part in accept_encoding.split(","):
        name, _, weight = part.replace(" ", "").partition(";")
        if name.lower() in {"gzip", "x-gzip", "*"}:
            return weight not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
