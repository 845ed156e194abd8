"""The overview of the API, made from the routes themselves."""

from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response

from app.api.dependencies import get_api
from app.api.responses import json_response
from app.api.security import TOKEN_HEADER

# Needed for the routes of these tags.
_AUTH: Final = {
    "operator": f"{TOKEN_HEADER} header",
    "webhooks": "the webhook's signature or token",
}

router = APIRouter(tags=["help"])


@router.get("/help", summary="API overview and endpoint listing")
async def show_help(request: Request) -> Response:
    """Every route with its method, purpose and what it takes to call it."""
    settings = get_api(request).settings
    return json_response(
        {
            "name": settings.app_name,
            "prefix": settings.api_prefix,
            "docs": "/docs",
            "endpoints": _endpoints(request.app),
        }
    )


def _endpoints(app: FastAPI) -> list[dict[str, Any]]:
    paths: dict[str, dict[str, dict[str, Any]]] = app.openapi()["paths"]
    return [
        {
            "method": method.upper(),
            "path": path + _required_query(operation),
            "description": operation["summary"],
            "auth": next((_AUTH[tag] for tag in operation["tags"] if tag in _AUTH), None),
        }
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]


def _required_query(operation: dict[str, Any]) -> str:
    """The query parameters without which a call fails, as `?user_id=`."""
    names = [
        parameter["name"]
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query" and parameter["required"]
    ]
    return "?" + "&".join(f"{name}=" for name in names) if names else ""
