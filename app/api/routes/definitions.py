"""The task definitions that the scheduler knows."""

from fastapi import APIRouter, Request, Response

from app.api.dependencies import get_api
from app.api.responses import json_response
from app.api.schemas import DefinitionList

router = APIRouter(tags=["definitions"])


@router.get(
    "/definitions",
    summary="List the task definitions, which are the services that tasks can be submitted to",
    responses={200: {"model": DefinitionList}},
)
async def list_definitions(request: Request) -> Response:
    """Each with its id, description and the JSON schema of its parameters."""
    return json_response({"definitions": await get_api(request).definitions.all()})
