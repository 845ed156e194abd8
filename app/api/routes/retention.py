"""The operator's way to export tasks and to remove finished ones. Needs the operator token."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.dependencies import get_api, require_operator
from app.api.listing import TaskQuery, Time, options_of
from app.api.parameters import read_object
from app.api.responses import LinesResponse, json_response
from app.core.findings import body_error
from task_state import TaskSearch
from task_state.export import ExportForm
from task_state.naming import MAX_TASK_ID, TASK_ID_PATTERN
from task_state.retention import Seen

router = APIRouter(prefix="/admin", tags=["operator"], dependencies=[Depends(require_operator)])

MAX_PRUNED: Final = 200
NEXT_CURSOR: Final = "X-Next-Cursor"
_PRUNE_FORM: Final = '{"tasks": [{"task_id": "...", "revision": 1, "logs_total": 0}]}'


class ExportQuery(TaskQuery):
    """Which tasks are exported, and how. With `completed_before` only finished tasks that ended
    before then."""

    format: ExportForm = Field(ExportForm.JSONL, description="jsonl, flat, or brief")
    completed_before: Time = None

    def tasks(self) -> TaskSearch:
        """The search alone."""
        options = self.model_dump(exclude={"format", "completed_before"})
        return TaskQuery.model_construct(**options).search()


class SeenTask(BaseModel):
    """A task as it was exported."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task_id: str = Field(pattern=TASK_ID_PATTERN, max_length=MAX_TASK_ID)
    revision: int = Field(ge=0, le=2**53)
    logs_total: int = Field(ge=0, le=2**53)
    output_bytes: int | None = Field(None, ge=0, le=2**53)
    updated_at: Time = None


class PruneRequest(BaseModel):
    """Which finished tasks to remove, if nobody changed them since; `dry_run` only tells."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tasks: list[SeenTask] = Field(max_length=MAX_PRUNED)
    dry_run: bool = False


class SkippedTask(BaseModel):
    """A task that stays, and why: missing, active, or changed."""

    task_id: str
    reason: str


class PruneAnswer(BaseModel):
    """What was removed (with `dry_run`: what would be), and what stays."""

    removed: list[str]
    skipped: list[SkippedTask]
    dry_run: bool


@router.get(
    "/export",
    summary="Export a page of tasks as lines of JSON",
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    dependencies=[Depends(options_of(ExportQuery))],
)
async def export_tasks(query: Annotated[ExportQuery, Query()], request: Request) -> Response:
    """One task a line, with its whole log and output. The header `X-Next-Cursor` is there when
    there is more: pass it as `cursor`. A page may be short, even empty, and go on."""
    retention = get_api(request).retention
    page = await retention.page(query.tasks(), query.completed_before)
    headers = {NEXT_CURSOR: page.next_cursor} if page.next_cursor else {}
    return LinesResponse(retention.lines(page.tasks, query.format), headers)


@router.post(
    "/prune",
    summary="Remove finished tasks that nobody changed since they were exported",
    responses={200: {"model": PruneAnswer}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": PruneRequest.model_json_schema()}},
        }
    },
)
async def prune_tasks(request: Request) -> Response:
    """At most 200 in a call. What has not ended, or is not as it was seen, stays and is named."""
    wanted = _wanted(await read_object(request, _PRUNE_FORM))
    seen = [Seen(**task.model_dump()) for task in wanted.tasks]
    pruned = await get_api(request).retention.prune(seen, dry_run=wanted.dry_run)
    skipped = [{"task_id": each.task_id, "reason": each.reason} for each in pruned.skipped]
    return json_response(
        {"removed": list(pruned.removed), "skipped": skipped, "dry_run": wanted.dry_run}
    )


def _wanted(body: dict[str, object]) -> PruneRequest:
    try:
        return PruneRequest.model_validate(body)
    except ValidationError as error:
        raise body_error(PruneRequest, error, _PRUNE_FORM) from None
