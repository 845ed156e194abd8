"""Live changes as server-sent events: not the event bus, which carries topics between programs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from app.api.dependencies import get_api
from app.api.listing import only
from app.api.security import TOKEN_HEADER
from app.api.streams import change_response, last_change
from app.core.errors import BadInputError
from app.services.live import Topic
from task_state.naming import MAX_NAME, NAME_PATTERN

router = APIRouter(tags=["events"])

_OptionalName = Annotated[str | None, Query(pattern=NAME_PATTERN, max_length=MAX_NAME)]


@router.get(
    "/events",
    summary="Follow changes of tasks as server-sent events",
    responses={200: {"content": {"text/event-stream": {}}}},
    dependencies=[Depends(only("service", "user_id"))],
)
async def follow_events(
    request: Request,
    service: _OptionalName = None,
    user_id: _OptionalName = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Events `task.created`, `task.status`, `task.log`, `task.progress`, `task.result` and
    `task.deleted` name the task and its status; `lost` says that some were missed. A user names
    `service` and `user_id`; with the operator token both may be left out. `Last-Event-ID` goes on
    after that change, as far back as changes are kept."""
    api = get_api(request)
    if TOKEN_HEADER in request.headers:
        api.operator.require(request)
        if user_id is not None and service is None:
            raise BadInputError("user_id alone names nobody: name the service too")
    elif service is None or user_id is None:
        raise BadInputError(
            f"name service and user_id; only the operator ({TOKEN_HEADER}) follows all tasks"
        )
    else:
        api.users.require(request, user_id)
    topic = Topic(service=service, user_id=user_id)
    return await change_response(api, topic, last_change(last_event_id))
