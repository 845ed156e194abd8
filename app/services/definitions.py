"""What the frontend knows of the task definitions: for lists, and for checking a task at once."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, cast

import jsonschema_rs

from app.core.errors import (
    BadInputError,
    SchedulerError,
    SchedulerUnavailableError,
    UnknownDefinitionError,
)
from app.services.scheduler import SchedulerClient

FRESH_SECONDS: Final = 10.0
"""How long a list is used without asking the scheduler again."""

_MAX_PROBLEMS: Final = 5


class Definitions:
    """The scheduler's definitions, kept for a while; an old list serves while it is away."""

    def __init__(self, scheduler: SchedulerClient) -> None:
        self._scheduler = scheduler
        self._known: dict[str, dict[str, Any]] | None = None
        self._fresh_until = 0.0
        self._lock = asyncio.Lock()

    async def all(self) -> list[dict[str, Any]]:
        """All definitions; SchedulerUnavailableError when none were ever read."""
        return list((await self._load()).values())

    async def ids(self, within_seconds: float) -> set[str] | None:
        """The definitions' ids as far as they can be told in that time: those of the last list if
        the scheduler does not answer, None when there never was one."""
        try:
            async with asyncio.timeout(within_seconds):
                return set(await self._load())
        except (SchedulerError, TimeoutError):
            return None if self._known is None else set(self._known)

    async def validate(self, service: str, parameters: Mapping[str, Any]) -> None:
        """Raise UnknownDefinitionError or BadInputError where the worker would end the task FAILED.

        Texts are read as the worker reads them: `4` fits a number, `true` a boolean.
        """
        definition = (await self._load()).get(service)
        if definition is None:
            known = ", ".join(sorted(self._known or ())) or "none"
            raise UnknownDefinitionError(
                f"no definition is called {service!r}: the scheduler knows {known}"
            )
        schema = definition.get("parameters")
        if isinstance(schema, dict):
            _check(cast("dict[str, Any]", schema), parameters)

    async def _load(self) -> dict[str, dict[str, Any]]:
        async with self._lock:
            if self._known is not None and time.monotonic() < self._fresh_until:
                return self._known
            try:
                entries = await self._scheduler.definitions()
            except SchedulerUnavailableError:
                if self._known is None:
                    raise
            else:
                self._known = {str(entry["id"]): entry for entry in entries if "id" in entry}
            self._fresh_until = time.monotonic() + FRESH_SECONDS
            return self._known


def _check(schema: dict[str, Any], parameters: Mapping[str, Any]) -> None:
    try:
        validator = jsonschema_rs.validator_for(schema)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise SchedulerUnavailableError(
            f"the definition's schema cannot be read ({error}): correct the scheduler's definition"
        ) from error
    problems = [
        f"{'.'.join(str(part) for part in problem.instance_path) or 'parameters'}: "
        f"{problem.message}"
        for problem in validator.iter_errors(_typed(schema, parameters))
    ]
    if problems:
        shown = "; ".join(problems[:_MAX_PROBLEMS])
        more = len(problems) - _MAX_PROBLEMS
        raise BadInputError(shown + (f"; and {more} more" if more > 0 else ""))


def _typed(schema: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with texts turned into what the schema says they stand for."""
    properties = cast("dict[str, Any]", schema.get("properties") or {})
    return {
        name: _read(value, _types(properties.get(name))) if isinstance(value, str) else value
        for name, value in parameters.items()
    }


def _types(schema: object) -> set[str]:
    """The JSON types that a property may have, as far as its own schema names them."""
    if not isinstance(schema, dict):
        return set()
    node = cast("dict[str, Any]", schema)
    named = node.get("type")
    types = {named} if isinstance(named, str) else set(cast("list[str]", named or []))
    for branch in [*node.get("anyOf", []), *node.get("oneOf", [])]:
        types |= _types(branch)
    return types


def _read(text: str, types: set[str]) -> object:
    if not types or "string" in types:
        return text
    if "boolean" in types and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    for name, convert in (("integer", int), ("number", float)):
        if name in types:
            try:
                return convert(text)
            except ValueError:
                continue
    return [text] if "array" in types else text


_BOOLEANS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on", "t", "y"), True),
    **dict.fromkeys(("false", "0", "no", "off", "f", "n"), False),
}
