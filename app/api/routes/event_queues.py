"""The operator's routes to the event broker: its queues and its dead letters."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.dependencies import get_api, require_operator
from app.api.listing import NoQuery, options_of
from app.api.parameters import read_object
from app.api.responses import json_response
from app.core.errors import BadInputError
from app.core.findings import body_error
from app.event_system import DeadLetter, QueueInfo
from app.services.event_queues import MAX_LETTERS, Part, Settling

router = APIRouter(prefix="/admin", tags=["operator"], dependencies=[Depends(require_operator)])

_FORM: Final = '{"ids": ["..."]} or {"all": true, "pattern": "...", "group": "..."}'


class Queue(BaseModel):
    """A group's or subscription's queue: `waiting` events are with no consumer, `unsettled` ones
    with one; `dropped` and `dead` count since the queue began. `group` is null for a subscription
    of no group, which ends with its program."""

    pattern: str
    group: str | None
    members: int
    waiting: int
    unsettled: int
    dropped: int
    dead: int


class Queues(BaseModel):
    """All queues, by pattern and group."""

    queues: list[Queue]


class Letter(BaseModel):
    """An event that a queue could not use, and why; `payload` is its JSON."""

    id: str
    pattern: str
    group: str | None
    topic: str
    type: str
    payload: str
    reason: str
    deliveries: int


class Letters(BaseModel):
    """Dead letters, oldest first; `next_cursor` is null at the end of them."""

    dead_letters: list[Letter]
    next_cursor: str | None


class LettersQuery(BaseModel):
    """Which dead letters are wanted."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=MAX_LETTERS)
    cursor: str = Field("", max_length=64, description="`next_cursor` of the page before")


class GroupQuery(BaseModel):
    """Which group is meant."""

    model_config = ConfigDict(extra="forbid")

    pattern: str = Field(min_length=1, max_length=2048)
    group: str = Field(min_length=1, max_length=64)


class RemainingPart(BaseModel):
    """What an answer named as not done yet."""

    model_config = ConfigDict(extra="forbid", strict=True)

    after: str = Field(default="", max_length=64)
    remaining: int | None = Field(default=None, ge=0, le=2**53)


class SettleRequest(BaseModel):
    """Which letters are meant: these, or all (of a pattern, of a group). `part` is the `left` of
    the answer before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: list[str] | None = Field(None, min_length=1, max_length=MAX_LETTERS)
    all: bool = False
    pattern: str | None = None
    group: str | None = None
    part: RemainingPart = RemainingPart()


class SettleAnswer(BaseModel):
    """How many letters it was. Where `left` is not null, ask again with it as `part`."""

    count: int
    left: RemainingPart | None


class GroupDropped(BaseModel):
    """The group that was ended."""

    pattern: str
    group: str


_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SettleRequest.model_json_schema()}},
    }
}


@router.get(
    "/queues",
    summary="List the queues of the event broker",
    responses={200: {"model": Queues}},
    dependencies=[Depends(options_of(NoQuery))],
)
async def list_queues(request: Request) -> Response:
    """Every group and subscription, with what waits in it."""
    found = await get_api(request).event_queues.queues()
    return json_response({"queues": [_queue(queue) for queue in found]})


@router.delete(
    "/queues",
    summary="End a group of the event broker, with all that waits in it",
    responses={200: {"model": GroupDropped}},
    dependencies=[Depends(options_of(GroupQuery))],
)
async def drop_group(query: Annotated[GroupQuery, Query()], request: Request) -> Response:
    """Members that still run start it anew, and empty. 404 when there is no such group."""
    await get_api(request).event_queues.drop_group(query.pattern, query.group)
    return json_response({"pattern": query.pattern, "group": query.group})


@router.get(
    "/dead-letters",
    summary="List events that could not be used, and why",
    responses={200: {"model": Letters}},
    dependencies=[Depends(options_of(LettersQuery))],
)
async def list_dead_letters(query: Annotated[LettersQuery, Query()], request: Request) -> Response:
    """Oldest first. A page may be shorter than `limit` and go on: `next_cursor` tells."""
    page = await get_api(request).event_queues.page(limit=query.limit, after=query.cursor)
    letters = [_letter(letter) for letter in page.letters]
    return json_response({"dead_letters": letters, "next_cursor": page.next_after})


@router.post(
    "/dead-letters/replay",
    summary="Deliver dead letters again, to the queue that they died in",
    responses={200: {"model": SettleAnswer}},
    openapi_extra=_BODY,
    dependencies=[Depends(options_of(NoQuery))],
)
async def replay_dead_letters(request: Request) -> Response:
    """Those whose group is gone stay dead, and are not counted."""
    return await _settle(request, "replay")


@router.post(
    "/dead-letters/discard",
    summary="Remove dead letters for good",
    responses={200: {"model": SettleAnswer}},
    openapi_extra=_BODY,
    dependencies=[Depends(options_of(NoQuery))],
)
async def discard_dead_letters(request: Request) -> Response:
    """Those that are gone already are not counted."""
    return await _settle(request, "discard")


async def _settle(request: Request, how: Settling) -> Response:
    wanted = _wanted(await read_object(request, _FORM))
    queues = get_api(request).event_queues
    if wanted.ids is not None:
        return json_response({"count": await queues.settle(how, wanted.ids), "left": None})
    part = Part(wanted.part.after, wanted.part.remaining)
    settled = await queues.settle_all(how, pattern=wanted.pattern, group=wanted.group, part=part)
    left = settled.left
    told = None if left is None else {"after": left.after, "remaining": left.remaining}
    return json_response({"count": settled.count, "left": told})


def _wanted(body: dict[str, object]) -> SettleRequest:
    try:
        wanted = SettleRequest.model_validate(body)
    except ValidationError as error:
        raise body_error(SettleRequest, error, _FORM) from None
    others = {"pattern", "group", "part"} & wanted.model_fields_set
    if wanted.all == (wanted.ids is not None) or (wanted.ids is not None and others):
        raise BadInputError(f"which letters are meant is not clear: send {_FORM}")
    return wanted


def _queue(queue: QueueInfo) -> dict[str, Any]:
    return {name: getattr(queue, name) for name in Queue.model_fields}


def _letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.letter_id,
        "pattern": letter.pattern,
        "group": letter.group,
        "topic": letter.topic,
        "type": letter.type_name,
        "payload": letter.payload,
        "reason": letter.reason,
        "deliveries": letter.deliveries,
    }
