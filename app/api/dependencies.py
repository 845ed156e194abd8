"""What the routes work with, and how they reach it."""

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from app.api.security import OperatorGate, UserGate
from app.core.config import Settings
from app.core.errors import ForbiddenError
from app.core.metrics import Metrics
from app.services.definitions import Definitions
from app.services.event_queues import EventQueues
from app.services.health import Health
from app.services.live import LiveHub
from app.services.retention import RetentionService
from app.services.schedules import ScheduleService
from app.services.service_modes import ServiceModes
from app.services.tasks import Scope, TaskService
from app.services.webhooks import WebhookService
from task_state import TaskNotFoundError


@dataclass(frozen=True, slots=True)
class Api:
    """Everything that a route may use; the services container builds it."""

    settings: Settings
    tasks: TaskService
    definitions: Definitions
    services: ServiceModes
    retention: RetentionService
    schedules: ScheduleService
    webhooks: WebhookService
    event_queues: EventQueues
    live: LiveHub
    health: Health
    metrics: Metrics
    operator: OperatorGate
    users: UserGate


def get_api(request: Request) -> Api:
    """The application's services. A call, not a dependency: it runs on every request."""
    return cast("Api", request.app.state.api)


async def require_operator(request: Request) -> None:
    """A dependency of the operator's routes; raises unless the token is right."""
    get_api(request).operator.require(request)


def own_scope(request: Request, service: str, user_id: str) -> Scope:
    """The scope of a user's own listing or submission; ForbiddenError for somebody else's."""
    get_api(request).users.require(request, user_id)
    return Scope(service, user_id)


def task_scope(request: Request, service: str, user_id: str, task_id: str) -> Scope:
    """The scope of one task; somebody else's looks like a missing one."""
    try:
        get_api(request).users.require(request, user_id)
    except ForbiddenError:
        raise TaskNotFoundError(task_id) from None
    return Scope(service, user_id)
