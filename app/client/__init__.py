"""The typed client of the API: `Client`, which blocks, and `AsyncClient`, of one core.

Needs `task_state` and httpx2 alone, and imports nothing else of DMS.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from app.client.errors import (
    AddressError,
    AuthError,
    ClientError,
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    UnavailableError,
    UnexpectedAnswerError,
    UsageError,
    WaitTimeoutError,
)
from app.client.types import SearchOptions, TaskArg, TaskKey, TaskRef

if TYPE_CHECKING:
    from app.client._async import AsyncClient
    from app.client._shown_task import TaskShown
    from app.client._sync import Client
    from app.client.answers import (
        Change,
        DeadLetter,
        DeadLetterPage,
        Definition,
        EventQueue,
        Health,
        Lost,
        Point,
        ServiceState,
        Submitted,
        Throughput,
    )

# Each is loaded when it is first asked for: a short command needs neither asyncio nor pydantic.
_LATER: Final = {
    "AsyncClient": "app.client._async",
    "Change": "app.client.answers",
    "Client": "app.client._sync",
    "DeadLetter": "app.client.answers",
    "DeadLetterPage": "app.client.answers",
    "Definition": "app.client.answers",
    "EventQueue": "app.client.answers",
    "Health": "app.client.answers",
    "Lost": "app.client.answers",
    "Point": "app.client.answers",
    "ServiceState": "app.client.answers",
    "Submitted": "app.client.answers",
    "TaskShown": "app.client._shown_task",
    "Throughput": "app.client.answers",
}

__all__ = [
    "AddressError",
    "AsyncClient",
    "AuthError",
    "Change",
    "Client",
    "ClientError",
    "ConflictError",
    "DeadLetter",
    "DeadLetterPage",
    "Definition",
    "EventQueue",
    "Health",
    "Lost",
    "NotFoundError",
    "OutcomeUnknownError",
    "Point",
    "RefusedError",
    "SearchOptions",
    "ServiceState",
    "Submitted",
    "TaskArg",
    "TaskKey",
    "TaskRef",
    "TaskShown",
    "Throughput",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UsageError",
    "WaitTimeoutError",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
