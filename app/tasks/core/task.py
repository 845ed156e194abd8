"""Task definitions: what runs under which id. Not the runner (dms_scheduler), not the records."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, overload

from typing_extensions import TypeVar

from app.tasks.core.errors import DefinitionError
from app.tasks.core.options import TaskOptions
from task_state import TaskStatus
from task_state.naming import NAME_WORDS, is_name

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


@dataclass(slots=True, kw_only=True)
class Task(Generic[Payload, Result]):
    """One task as its handler sees it.

    `type` is the definition's id (the `service` of the URL). `payload` is the validated model when
    the definition has one, else the plain parameters. `attempts` counts this attempt already;
    `epoch` also counts those that were given back, so it names an attempt uniquely. Where a search
    left long values out, `omitted` names them: payload, result, error, description.
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
    omitted: Sequence[str] = ()


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
_origins: dict[str, object] = {}

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
    if not isinstance(id, str) or not is_name(id):
        raise DefinitionError(
            f"{id!r:.100} cannot be a definition's id: {NAME_WORDS}; every URL drops such dots"
        )
    return id


def _valid_handler(id: str, handler: Any) -> Callable[..., Any]:  # noqa: A002
    if not callable(handler):
        raise DefinitionError(
            f"the handler of {id!r} is {handler!r:.100}, which cannot be called: give a function "
            "of the task (options come after it, or by their name: options=...)"
        )
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise DefinitionError(
            f"the handler {_name(handler)} of {id!r} is a generator: calling it would run nothing. "
            "Return the result instead of yielding it"
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
    """An id belongs to one handler: the identical object, or the function that took its place when
    its module was imported again."""
    id_, handler = definition.id, definition.handler
    known, origin = _registry.get(id_), _origin(handler)
    if known is not None and known.handler is not handler:
        reloaded = origin is not None and origin is not _origins.get(id_)
        if not (reloaded and _replaces(handler, known.handler)):
            raise _taken(id_, known.handler, handler)
    _registry[id_] = definition
    _origins[id_] = origin
    return definition


def _origin(handler: Callable[..., Any]) -> object:
    """The spec of the import that made it, another one each time a module is imported; None where
    there is none, as in a script."""
    return getattr(sys.modules.get(handler.__module__), "__spec__", None)


def _replaces(new: Callable[..., Any], known: Callable[..., Any]) -> bool:
    """Whether it has the place in its module that the other one had. Lambdas and functions made by
    functions have none of their own."""
    name = _name(new)
    return name == _name(known) and "<" not in name


def _taken(id: str, known: Callable[..., Any], new: Callable[..., Any]) -> DefinitionError:  # noqa: A002
    name, other = _name(known), _name(new)
    if name == other:
        other = "another handler of that name"
    return DefinitionError(f"the id {id!r} is taken by {name}, so {other} needs another one")


def _name(handler: Callable[..., Any]) -> str:
    """The handler's name in full. Lambdas of one module share theirs, so their line tells them
    apart."""
    name = f"{handler.__module__}.{getattr(handler, '__qualname__', repr(handler))}"
    code = getattr(handler, "__code__", None) if name.endswith("<lambda>") else None
    return f"{name} (line {code.co_firstlineno})" if code else name
