"""The operator's routes for stored schedules. Not triggers, which have `app.scheduler.api`."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.dependencies import get_api, require_operator
from app.api.listing import NoQuery, Time, options_of
from app.api.parameters import read_idempotency_key, read_object, read_reason, wants_strict
from app.api.schedules import (
    BackfillAnswer,
    BackfillRequest,
    FireAnswer,
    FireList,
    FireShown,
    PreviewAnswer,
    PreviewCount,
    ScheduleAnswer,
    ScheduleDeleted,
    ScheduleList,
    ScheduleName,
    ScheduleRevision,
    ScheduleShown,
    answer,
    body_of,
    shown_fires,
    shown_schedule,
)
from app.api.schemas import REASON_BODY
from app.core.findings import body_error
from app.services.schedules import MAX_PREVIEW
from task_state.schedules import MAX_FIRES, MAX_SCHEDULES, SCHEDULE_PATTERN, ScheduleSpec

router = APIRouter(
    prefix="/admin/schedules", tags=["operator"], dependencies=[Depends(require_operator)]
)

_M = TypeVar("_M", bound=BaseModel)
_CREATE_FORM: Final = (
    '{"schedule_id": "nightly", "cron": "0 3 * * *", "service": "sync", "user_id": "ops", '
    '"parameters": {}}'
)
_UPDATE_FORM: Final = '{"cron": "0 4 * * *"}: the fields to change, null for the default'
_PREVIEW_FORM: Final = _CREATE_FORM[:-1] + ', "count": 5}'
_BACKFILL_FORM: Final = '{"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}'
_NO_QUERY: Final = [Depends(options_of(NoQuery))]

ScheduleId = Annotated[
    str, Path(pattern=SCHEDULE_PATTERN, max_length=64, description="The schedule's name")
]


class PageQuery(BaseModel):
    """Which page of the schedules is wanted."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=MAX_SCHEDULES)
    cursor: str | None = Field(
        None, pattern=SCHEDULE_PATTERN, max_length=64, description="`next_cursor` of a page"
    )


class FiresQuery(BaseModel):
    """Which page of a history is wanted."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=MAX_FIRES)
    cursor: int | None = Field(None, ge=1, le=2**53, description="`next_cursor` of a page")


class PreviewQuery(BaseModel):
    """How many fires to show, of those after which time (now)."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(5, ge=1, le=MAX_PREVIEW)
    after: Time = None


@router.get(
    "",
    summary="List schedules",
    responses={200: {"model": ScheduleList}},
    dependencies=[Depends(options_of(PageQuery))],
)
async def list_schedules(query: Annotated[PageQuery, Query()], request: Request) -> Response:
    """By name, each with when it fires next."""
    page = await get_api(request).schedules.list(after=query.cursor, limit=query.limit)
    return answer(
        ScheduleList.model_construct(
            schedules=[ScheduleShown.of(view) for view in page.views],
            unreadable=page.unreadable,
            next_cursor=page.next_after,
        )
    )


@router.post(
    "",
    summary="Create a schedule, which submits a task at each of its times",
    status_code=201,
    responses={201: {"model": ScheduleAnswer}},
    dependencies=_NO_QUERY,
    openapi_extra=body_of(ScheduleName, ScheduleSpec),
)
async def create_schedule(request: Request) -> Response:
    """Its slots count from now on. A name that is taken answers 409."""
    service = get_api(request).schedules
    named, values = await _body(request, ScheduleName, _CREATE_FORM)
    spec = service.read(values)
    applied = await _checked(request, spec, named.schedule_id)
    view = await service.create(named.schedule_id, spec, paused=named.paused, reason=named.reason)
    path = f"{request.url.path.rstrip('/')}/{named.schedule_id}"
    return shown_schedule(view, 201, {"Location": path, **applied})


@router.post(
    "/preview",
    summary="Show what a schedule would do, without storing it",
    responses={200: {"model": PreviewAnswer}},
    dependencies=_NO_QUERY,
    openapi_extra=body_of(PreviewCount, ScheduleSpec),
)
async def preview_new(request: Request) -> Response:
    """The expression in words, and the next fires with their tasks' parameters."""
    service = get_api(request).schedules
    wanted, values = await _body(request, PreviewCount, _PREVIEW_FORM)
    preview = service.preview(
        service.read(values),
        schedule_id=wanted.schedule_id,
        count=wanted.count,
        after=wanted.after,
    )
    return answer(PreviewAnswer.of(preview))


@router.get(
    "/{schedule_id}",
    summary="Show a schedule",
    responses={200: {"model": ScheduleAnswer}},
    dependencies=_NO_QUERY,
)
async def get_schedule(schedule_id: ScheduleId, request: Request) -> Response:
    """With its next fires, and what of it waits and runs."""
    return shown_schedule(await get_api(request).schedules.get(schedule_id))


@router.patch(
    "/{schedule_id}",
    summary="Change a schedule",
    responses={200: {"model": ScheduleAnswer}},
    dependencies=_NO_QUERY,
    openapi_extra=body_of(ScheduleRevision, ScheduleSpec, required=False),
)
async def update_schedule(schedule_id: ScheduleId, request: Request) -> Response:
    """Only the fields that are given; null sets one to its default, `parameters` are given whole.
    What is due already fires as it was. With `revision`, only if that is still the schedule's."""
    given, changes = await _body(request, ScheduleRevision, _UPDATE_FORM)
    service = get_api(request).schedules
    spec, revision = await service.changed(schedule_id, changes, given.revision)
    applied = await _checked(request, spec, schedule_id)
    view = await service.replace(schedule_id, spec, revision=revision)
    return shown_schedule(view, headers=applied)


@router.delete(
    "/{schedule_id}",
    summary="Delete a schedule",
    responses={200: {"model": ScheduleDeleted}},
    dependencies=_NO_QUERY,
)
async def delete_schedule(schedule_id: ScheduleId, request: Request) -> Response:
    """With its history. Its tasks stay, and go on."""
    await get_api(request).schedules.delete(schedule_id)
    return answer(ScheduleDeleted(schedule_id=schedule_id))


@router.post(
    "/{schedule_id}/pause",
    summary="Pause a schedule: nothing fires",
    responses={200: {"model": ScheduleAnswer}},
    dependencies=_NO_QUERY,
    openapi_extra=REASON_BODY,
)
async def pause_schedule(schedule_id: ScheduleId, request: Request) -> Response:
    """Not even what is due already. Slots that pass meanwhile are not made up."""
    reason = await read_reason(request)
    return shown_schedule(await get_api(request).schedules.pause(schedule_id, reason))


@router.post(
    "/{schedule_id}/resume",
    summary="Resume a schedule",
    responses={200: {"model": ScheduleAnswer}},
    dependencies=_NO_QUERY,
)
async def resume_schedule(schedule_id: ScheduleId, request: Request) -> Response:
    """Slots count again from now on; a backfill makes up those of the pause."""
    return shown_schedule(await get_api(request).schedules.resume(schedule_id))


@router.post(
    "/{schedule_id}/run",
    summary="Run a schedule's task now",
    status_code=202,
    responses={202: {"model": FireAnswer}},
    dependencies=_NO_QUERY,
)
async def run_schedule(schedule_id: ScheduleId, request: Request) -> Response:
    """Whatever runs already, and also while paused. The header `Idempotency-Key` makes it safe to
    repeat."""
    key = read_idempotency_key(request.headers.getlist("idempotency-key"))
    fire = await get_api(request).schedules.run(schedule_id, idempotency_key=key)
    return answer(FireAnswer(fire=FireShown.of(fire)), 202)


@router.post(
    "/{schedule_id}/backfill",
    summary="Make up a schedule's slots of the past",
    responses={200: {"model": BackfillAnswer}},
    dependencies=_NO_QUERY,
    openapi_extra=body_of(BackfillRequest),
)
async def backfill_schedule(schedule_id: ScheduleId, request: Request) -> Response:
    """At most 1000. One that has its task already is left alone, so repeating it is safe."""
    body = await read_object(request, _BACKFILL_FORM)
    wanted = _read(BackfillRequest, body, _BACKFILL_FORM)
    found = await get_api(request).schedules.backfill(
        schedule_id, wanted.start, wanted.end, overlap=wanted.overlap, dry_run=wanted.dry_run
    )
    return answer(BackfillAnswer.of(found))


@router.get(
    "/{schedule_id}/preview",
    summary="Show the next fires of a schedule",
    responses={200: {"model": PreviewAnswer}},
    dependencies=[Depends(options_of(PreviewQuery))],
)
async def preview_schedule(
    schedule_id: ScheduleId, query: Annotated[PreviewQuery, Query()], request: Request
) -> Response:
    """With their tasks' parameters; as if it were not paused."""
    service = get_api(request).schedules
    spec = (await service.get(schedule_id)).record.spec
    preview = service.preview(spec, schedule_id=schedule_id, count=query.count, after=query.after)
    return answer(PreviewAnswer.of(preview))


@router.get(
    "/{schedule_id}/fires",
    summary="Show what became of a schedule's slots",
    responses={200: {"model": FireList}},
    dependencies=[Depends(options_of(FiresQuery))],
)
async def list_fires(
    schedule_id: ScheduleId, query: Annotated[FiresQuery, Query()], request: Request
) -> Response:
    """Newest first, of the last 1000."""
    found = await get_api(request).schedules.fires(
        schedule_id, limit=query.limit, before=query.cursor
    )
    more = len(found) == query.limit and found[-1].number > 1
    return shown_fires(found, found[-1].number if more else None)


async def _checked(request: Request, spec: ScheduleSpec, schedule_id: str) -> dict[str, str]:
    """Check the task of the next fire against its definition, where strict handling is asked for;
    the headers that say so."""
    if not wants_strict(request.headers.getlist("prefer")):
        return {}
    api = get_api(request)
    fires = api.schedules.preview(spec, schedule_id=schedule_id, count=1).fires
    parameters = fires[0].parameters if fires else spec.parameters
    await api.definitions.validate(spec.service, parameters)
    return {"Preference-Applied": "handling=strict"}


async def _body(request: Request, model: type[_M], form: str) -> tuple[_M, Mapping[str, Any]]:
    """What `model` has of the body, and the rest of it."""
    body = await read_object(request, form)
    own = {name: body.pop(name) for name in model.model_fields if name in body}
    return _read(model, own, form), body


def _read(model: type[_M], values: Mapping[str, Any], form: str) -> _M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise body_error(model, error, form) from None
