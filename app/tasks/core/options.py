"""Options of task definitions: how a definition's tasks are run, and what is no way to run them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from app.tasks.core.errors import DefinitionError
from task_state.naming import meant

MAX_PRIORITY: Final = 100
# What the store and timers carry without rounding; nobody means more.
_MOST: Final = 1_000_000
_LONGEST_SECONDS: Final = 366 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How a definition's tasks are run. Raises DefinitionError for values that mean nothing.

    `description`: one line for people.
    `max_attempts`: how many attempts a task has, retries included.
    `timeout_seconds`: bounds one attempt; None does not.
    `isolation`: "process" runs the handler in a child process, which can be killed; "inline" in
    the worker's own event loop, which cannot be and must never block. None chooses "inline" for an
    async handler and "process" for a sync one.
    `payload`: the type that validates the parameters: a pydantic model, or whatever else pydantic
    reads from a JSON object. `result`: the type of what the handler returns, any that pydantic
    knows; a result that does not fit ends the task FAILED.
    `retry`, `retry_delay_seconds`, `retry_max_delay_seconds`, `jitter`: the n-th retry waits the
    delay, doubled each time when `retry` is "exponential", never over the maximum, less a part by
    chance, which is at most the fraction `jitter` (0 to 1).
    `concurrency_limit`: how many of its tasks run at once, on all workers together;
    `per_user_limit`: the same for each user; None does not limit.
    `priority`: -100 to 100; of the waiting tasks those with the higher one begin first.
    """

    description: str | None = None
    max_attempts: int = 3
    timeout_seconds: float | None = None
    isolation: Literal["inline", "process"] | None = None
    payload: Any = None
    result: Any = None
    retry: Literal["fixed", "exponential"] = "exponential"
    retry_delay_seconds: float = 1.0
    retry_max_delay_seconds: float = 60.0
    jitter: float = 0.25
    concurrency_limit: int | None = None
    per_user_limit: int | None = None
    priority: int = 0
    payload_adapter: TypeAdapter[Any] | None = field(
        init=False, repr=False, compare=False, default=None
    )
    result_adapter: TypeAdapter[Any] | None = field(
        init=False, repr=False, compare=False, default=None
    )

    def __post_init__(self) -> None:
        for name, (holds, wanted) in _RULES.items():
            value = getattr(self, name)
            if not holds(value):
                raise DefinitionError(f"the option {name}={value!r:.100} is not {wanted}")
        for name in ("payload", "result"):
            adapter = _adapter(name, getattr(self, name))
            object.__setattr__(self, f"{name}_adapter", adapter)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "TaskOptions":
        """Options from a mapping of exactly the names above; raises DefinitionError."""
        if not isinstance(options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - who writes tasks may not type-check
            raise DefinitionError(
                f"the options {options!r:.100} are neither TaskOptions nor a mapping of their names"
            )
        known = [each.name for each in fields(cls) if each.init]
        for name in options:
            if name not in known:
                raise DefinitionError(unknown_option("task option", str(name), known))
        return cls(**options)


def _adapter(name: str, wanted: Any) -> TypeAdapter[Any] | None:
    """What validates that type; its schema is made now, so that no request fails for it later."""
    if wanted is None:
        return None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(wanted)
        schema = adapter.json_schema(mode="validation" if name == "payload" else "serialization")
    except (PydanticUserError, TypeError, NameError) as error:
        raise DefinitionError(
            f"the option {name}={wanted!r:.100} is no type that pydantic can check: "
            f"{str(error).splitlines()[0]}. Use a pydantic model, or a type made of str, int, "
            "list, dict and the like, and define it above the task"
        ) from error
    if name == "payload" and not _converts(adapter) and not _takes_object(schema, schema):
        raise DefinitionError(
            f"the option payload={wanted!r:.100} never fits: a task's parameters are a JSON "
            "object, and it takes none. Use a pydantic model, a dataclass, a TypedDict or a dict "
            "type whose fields are the parameters"
        )
    return adapter


def _converts(adapter: TypeAdapter[Any]) -> bool:
    """Whether a function of the user's comes first, which may make anything of an object."""
    kind = str(adapter.core_schema["type"])
    return kind.startswith("function-") and kind != "function-after"


def _takes_object(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether some JSON object may fit this part of the JSON schema `whole`."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _takes_object(whole["$defs"][name], whole)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return any(_takes_object(each, whole) for each in schema[choice])
    kind: object = schema.get("type")
    return kind == "object" or (kind is None and not {"const", "enum"} & set(schema))


def unknown_option(what: str, name: str, known: list[str]) -> str:
    """The message for an option that there is not, with the one that may have been meant."""
    near = meant(name, known)
    hint = f": did you mean {near}?" if near else ""
    return f"there is no {what} {name!r:.100}{hint} (known are {', '.join(known)})"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)  # NaN lies between no two numbers


def _whole(low: int, high: int | None = None) -> Callable[[Any], bool]:
    return lambda value: _is_int(value) and value >= low and (high is None or value <= high)


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and low <= value <= high


def _is_text(value: object) -> bool:
    """Whether it can be written as UTF-8: a lone surrogate cannot, and would break every list."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _or_none(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


_LIMIT = (
    _or_none(_whole(1, _MOST)),
    f"a whole number, 1 to {_MOST:,} (leave it out: no limit)",
)
_DELAY = (_number(0, _LONGEST_SECONDS), f"a number of seconds, 0 to {_LONGEST_SECONDS:,} (a year)")
_RULES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "description": (
        _or_none(_is_text),
        "a text that UTF-8 can write (leave it out: none)",
    ),
    "max_attempts": (_whole(1, _MOST), f"a whole number, 1 (no retry) to {_MOST:,}"),
    "timeout_seconds": (
        _or_none(lambda value: _is_number(value) and 0 < value <= _LONGEST_SECONDS),
        f"a number of seconds above 0, at most {_LONGEST_SECONDS:,} (leave it out: no limit)",
    ),
    "isolation": (
        lambda value: value in (None, "inline", "process"),
        '"inline" or "process" (leave it out: by the kind of handler)',
    ),
    "retry": (lambda value: value in ("fixed", "exponential"), '"fixed" or "exponential"'),
    "retry_delay_seconds": _DELAY,
    "retry_max_delay_seconds": _DELAY,
    "jitter": (_number(0, 1), "a fraction of the delay, 0 to 1"),
    "concurrency_limit": _LIMIT,
    "per_user_limit": _LIMIT,
    "priority": (
        _whole(-MAX_PRIORITY, MAX_PRIORITY),
        f"a whole number, -{MAX_PRIORITY} to {MAX_PRIORITY}, the higher one first",
    ),
}
