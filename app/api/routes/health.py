"""Health for the platform, metrics for Prometheus: at the root, whatever the API's prefix."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.api.dependencies import get_api
from app.api.errors import RETRY_AFTER_SECONDS
from app.api.responses import json_response
from app.core.metrics import METRICS_CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process lives")
async def live(request: Request) -> Response:
    """Asks nothing of others: a restart would not mend those."""
    return json_response({"status": "ok", "app": get_api(request).settings.app_name})


@router.get("/readyz", summary="Whether the process can answer requests")
async def ready(request: Request) -> Response:
    """503 while the task store cannot be read. `writes` and `scheduler` are told, and decide not:
    a full disk or an absent scheduler would else take every replica away."""
    parts = await get_api(request).health.report()
    if parts["reads"] == "ok":
        return json_response({"status": "ready", **parts})
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return json_response({"status": "not ready", **parts}, 503, headers)


@router.get(
    "/metrics", summary="Counters in Prometheus' text format", response_class=PlainTextResponse
)
async def metrics(request: Request) -> Response:
    """What this process has counted since it started."""
    api = get_api(request)
    await api.health.measure(api.metrics)
    return Response(api.metrics.render(), media_type=METRICS_CONTENT_TYPE)
