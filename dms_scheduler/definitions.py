"""Loading the modules that define tasks, and describing what they defined."""

import importlib
from collections.abc import Iterable
from typing import Any

from app.tasks import TaskDefinition, TaskLoadError, definitions, get_definition

BUILT_IN_MODULES = ("dms_scheduler.services.sync",)
"""An explicit list: nothing is found by scanning."""


class UnknownServiceError(Exception):
    """No definition has the service's name."""

    def __init__(self, service: str) -> None:
        known = ", ".join(definitions()) or "none"
        super().__init__(
            f"no task definition is named {service!r}; known are: {known}. Users' modules are "
            "loaded from DMS_TASK_MODULES, by the scheduler service and by every worker"
        )
        self.service = service


def load_task_modules(names: Iterable[str]) -> None:
    """Import the built-in and the named modules, which register their definitions by that.

    Raises TaskLoadError with the module and the cause, whatever the import raised.
    """
    for name in (*BUILT_IN_MODULES, *names):
        try:
            importlib.import_module(name)
        except Exception as error:
            raise TaskLoadError(
                f"the task module {name!r} cannot be imported: {type(error).__name__}: {error}. "
                "Check DMS_TASK_MODULES, and that the module is installed or on PYTHONPATH"
            ) from error


def require_definition(service: str) -> TaskDefinition[Any, Any]:
    """The definition that a task's service names; raises UnknownServiceError."""
    definition = get_definition(service)
    if definition is None:
        raise UnknownServiceError(service)
    return definition


def describe(definition: TaskDefinition[Any, Any]) -> dict[str, Any]:
    """What `GET /definitions` tells of one: its options, and its parameters as a JSON schema."""
    model = definition.options.payload
    return {
        "id": definition.id,
        "description": definition.description,
        "max_attempts": definition.max_attempts,
        "isolation": definition.isolation,
        "timeout_seconds": definition.options.timeout_seconds,
        "parameters": None if model is None else model.model_json_schema(),
    }
