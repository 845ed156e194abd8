"""Task definitions: what runs under which id. Not the runner (dms_scheduler), not the records."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, overload

from typing_extensions import TypeVar

from app.tasks.core.errors import DefinitionError
from app.tasks.core.options import TaskOptions
from task_state import TaskStatus

__all__ = [
    "Task",
    "TaskDefinition",
    "TaskHandler",
    "TaskOptions",
    "TaskStatus",
    "define_task",
    "definitions",
    "get_definition",
]

Payload = TypeVar("Payload", default=Any)
Result = TypeVar("Result", default=Any)

_ID = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_STEPS = (".", "..")


@dataclass(slots=True, kw_only=True)
class Task(Generic[Payload, Result]):
    """One task as its handler sees it.

    `type` is the definition's id (the `service` of the URL). `payload` is the validated model when
    the definition has one, else the plain parameters. `attempts` counts this attempt already;
    `epoch` also counts those that were given back, so it names an attempt uniquely.
    """

    id: str
    type: str
    payload: Payload
    user_id: str
    created_at: datetime
    updated_at: datetime
    status: TaskStatus = TaskStatus.PENDING
    result: Result | None = None
    error: str | None = None
    attempts: int = 0
    max_attempts: int = 3
    epoch: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    description: str | None = None


TaskHandler = Callable[
    [Task[Payload, Result]],
    Result | Mapping[str, Any] | Awaitable[Result | Mapping[str, Any]],
]
"""A function of the task, sync or async. It returns its result (anything JSON can hold; dates and
pydantic models are converted) or `{"status": "success"|"failure", "message": ..., "data": ...}`.
A returned failure is an answer and final; a raised exception is retried while attempts are left."""


@dataclass(frozen=True, slots=True)
class TaskDefinition(Generic[Payload, Result]):
    """A handler and its options under the id that the `service` of a URL names."""

    id: str
    handler: TaskHandler[Payload, Result]
    options: TaskOptions = field(default_factory=TaskOptions)

    @property
    def description(self) -> str | None:
        """One line for people."""
        return self.options.description

    @property
    def max_attempts(self) -> int:
        """How many attempts a task has."""
        return self.options.max_attempts

    @property
    def isolation(self) -> Literal["inline", "process"]:
        """Where the handler runs, after the choice that `TaskOptions` describes."""
        if self.options.isolation is not None:
            return self.options.isolation
        return "inline" if self.is_async else "process"

    @property
    def is_async(self) -> bool:
        """Whether the handler is an async function, or an object whose `__call__` is one."""
        called: object = getattr(self.handler, "__call__", None)  # noqa: B004 - to look at it
        return any(map(inspect.iscoroutinefunction, (self.handler, called)))


_registry: dict[str, TaskDefinition[Any, Any]] = {}

_Handler = TypeVar("_Handler", bound=Callable[[Task[Any, Any]], Any])
_Options = TaskOptions | Mapping[str, Any] | None


@overload
def define_task(
    id: str, handler: TaskHandler[Payload, Result], options: _Options = None
) -> TaskDefinition[Payload, Result]: ...
@overload
def define_task(
    id: str, handler: None = None, options: _Options = None
) -> Callable[[_Handler], _Handler]: ...
def define_task(
    id: str,  # noqa: A002 - the name that the documents give it
    handler: TaskHandler[Any, Any] | None = None,
    options: _Options = None,
) -> Any:
    """Register `handler` under `id`; without a handler, be the decorator that does it.

    The decorator leaves the function as it is: `get_definition(id)` has its definition. Raises
    DefinitionError for an id that is malformed or taken by another handler, and bad options.
    """
    valid, chosen = _valid_id(id), _chosen(options)
    if handler is not None:
        return _register(TaskDefinition(valid, _valid_handler(valid, handler), chosen))

    def decorate(function: _Handler) -> _Handler:
        _register(TaskDefinition(valid, _valid_handler(valid, function), chosen))
        return function

    return decorate


def get_definition(id: str) -> TaskDefinition[Any, Any] | None:  # noqa: A002
    """The definition of that id, or None."""
    return _registry.get(id)


def definitions() -> Mapping[str, TaskDefinition[Any, Any]]:
    """Every registered definition by id, in alphabetical order."""
    return dict(sorted(_registry.items()))


def _valid_id(id: object) -> str:  # noqa: A002
    if callable(id):
        raise DefinitionError(
            f"define_task needs an id before {_name(id)}: as a decorator it is "
            '@define_task("its-id"), else define_task("its-id", handler)'
        )
    if not isinstance(id, str) or not _ID.fullmatch(id) or id in _STEPS:
        raise DefinitionError(
            f"{id!r:.100} cannot be a definition's id: use 1 to 64 of letters, digits and . _ @ -, "
            "but not . or .. alone, which every URL drops"
        )
    return id


def _valid_handler(id: str, handler: Any) -> Callable[..., Any]:  # noqa: A002
    if not callable(handler):
        raise DefinitionError(
            f"the handler of {id!r} is {handler!r:.100}, which cannot be called: give a function "
            "of the task (options come after it, or by their name: options=...)"
        )
    try:
        inspect.signature(handler).bind(None)
    except TypeError as error:
        raise DefinitionError(
            f"the handler {_name(handler)} of {id!r} cannot be called with the task alone: {error}"
        ) from error
    except ValueError:  # something built in, which does not say what it takes
        pass
    return handler


def _chosen(options: _Options) -> TaskOptions:
    if options is None:
        return TaskOptions()
    if isinstance(options, TaskOptions):
        return options
    return TaskOptions.of(options)


def _register(definition: TaskDefinition[Any, Any]) -> TaskDefinition[Any, Any]:
    """Modules may be imported twice under one name (reload), never two handlers under one id."""
    known = _registry.get(definition.id)
    if known is not None and _name(known.handler) != _name(definition.handler):
        raise DefinitionError(
            f"the id {definition.id!r} is taken by {_name(known.handler)}, so "
            f"{_name(definition.handler)} needs another one"
        )
    _registry[definition.id] = definition
    return definition


def _name(handler: Callable[..., Any]) -> str:
    """The handler's name in full. Lambdas of one module share theirs, so their line tells them
    apart."""
    name = f"{handler.__module__}.{getattr(handler, '__qualname__', repr(handler))}"
    code = getattr(handler, "__code__", None) if name.endswith("<lambda>") else None
    return f"{name} (line {code.co_firstlineno})" if code else name
