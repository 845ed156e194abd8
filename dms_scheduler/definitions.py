"""Loading what defines tasks, modules and entry points, and describing what was defined."""

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from app.tasks import TaskDefinition, TaskLoadError, definitions, get_definition
from dms_scheduler.movers import MoverError
from dms_scheduler.movers.rclone import remote_names

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "dms.tasks"

BUILT_IN_MODULES = (
    "dms_scheduler.services.sync",
    "dms_scheduler.services.copy",
    "dms_scheduler.services.check",
    "dms_scheduler.services.rm",
    "dms_scheduler.services.hotcold",
)
"""An explicit list: nothing is found by scanning."""


class UnknownServiceError(Exception):
    """No definition has the service's name."""

    def __init__(self, service: str) -> None:
        known = ", ".join(definitions()) or "none"
        super().__init__(
            f"no task definition is named {service!r}; known are: {known}. Users' modules are "
            f"loaded from DMS_TASK_MODULES and the entry points {ENTRY_POINT_GROUP!r}, by the "
            "scheduler service and by every worker"
        )
        self.service = service


@dataclass(frozen=True, slots=True)
class Loaded:
    """One source of definitions, and the ids that are there since it was loaded."""

    source: str
    ids: Sequence[str]


def load_definitions(
    modules: Iterable[str], wanted_entry_points: bool | Sequence[str] = False
) -> list[Loaded]:
    """Import the built-in and the named modules, then load the installed entry points of the group
    `dms.tasks`: all of them (True), none (False), or those of these names.

    A module registers its definitions by being imported; an entry point names a module, or a
    function in one (`module:function`) that registers them when it is called. Raises TaskLoadError
    with the source and the cause, whatever was raised.
    """
    loaded = [
        _load(f"module {name!r}", partial(importlib.import_module, name), _MODULE_HINT)
        for name in (*BUILT_IN_MODULES, *modules)
    ]
    points = _entry_points(wanted_entry_points)
    return loaded + [_load(_named(point), partial(_enter, point), _POINT_HINT) for point in points]


def log_loaded(loaded: Iterable[Loaded]) -> None:
    """Say in the log what was loaded, and from where."""
    for each in loaded:
        logger.info(
            "Task definitions loaded",
            extra={"action": "tasks.load", "source": each.source, "tasks": list(each.ids)},
        )


_MODULE_HINT = "Check DMS_TASK_MODULES, and that the module is installed or on PYTHONPATH"
_POINT_HINT = (
    "Repair or uninstall that distribution, or leave it out by naming the others in "
    "DMS_TASK_ENTRY_POINTS"
)


def _load(source: str, load: Callable[[], object], hint: str) -> Loaded:
    before = definitions().keys()
    try:
        load()
    except (Exception, SystemExit) as error:  # a script without a guard leaves when imported
        raise TaskLoadError(
            f"the task {source} cannot be imported: {type(error).__name__}: {error}. {hint}"
        ) from error
    return Loaded(source, [id_ for id_ in definitions() if id_ not in before])


def _entry_points(wanted: bool | Sequence[str]) -> Iterator[EntryPoint]:
    """In the order of their names, so that each process loads them alike."""
    if wanted is False:
        return
    found = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda each: (each.name, each.value))
    names = {each.name for each in found}
    if wanted is not True and (missing := sorted(set(wanted) - names)):
        raise TaskLoadError(
            f"no installed distribution has the entry point {', '.join(missing)} of the group "
            f"{ENTRY_POINT_GROUP!r}; there are: {', '.join(sorted(names)) or 'none'}. Install it, "
            "or correct DMS_TASK_ENTRY_POINTS"
        )
    yield from (each for each in found if wanted is True or each.name in wanted)


def _named(point: EntryPoint) -> str:
    distribution = "an unknown distribution" if point.dist is None else point.dist.name
    return f"entry point {point.name!r} ({point.value}) of {distribution}"


def _enter(point: EntryPoint) -> None:
    target = point.load()
    if point.attr:
        target()


def require_definition(service: str) -> TaskDefinition[Any, Any]:
    """The definition that a task's service names; raises UnknownServiceError."""
    definition = get_definition(service)
    if definition is None:
        raise UnknownServiceError(service)
    return definition


def describe_all(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """What `GET /definitions` tells; reads the names of the remotes from the operator's file."""
    remotes = _remotes(environ)
    return [describe(each, remotes) for each in definitions().values()]


def _remotes(environ: Mapping[str, str]) -> Sequence[str]:
    try:
        return remote_names(environ)
    except MoverError as error:  # the tasks that name one fail with the same words
        logger.warning(
            "Remotes cannot be listed", extra={"action": "tasks.describe", "reason": str(error)}
        )
        return ()


def describe(definition: TaskDefinition[Any, Any], remotes: Sequence[str] = ()) -> dict[str, Any]:
    """One definition: its options, and the JSON schemas of its parameters and its result, null
    where it has none; of a built-in task that moves to and from `remotes` also these."""
    options = definition.options
    payload, result = options.payload_adapter, options.result_adapter
    reached = {"remotes": list(remotes)} if getattr(options.payload, "takes_remotes", False) else {}
    return {
        **reached,
        "id": definition.id,
        "description": definition.description,
        "isolation": definition.isolation,
        **{name: getattr(options, name) for name in _DESCRIBED},
        "parameters": None if payload is None else payload.json_schema(),
        "result": None if result is None else result.json_schema(mode="serialization"),
    }


_DESCRIBED = (
    "max_attempts",
    "timeout_seconds",
    "retry",
    "retry_delay_seconds",
    "retry_max_delay_seconds",
    "jitter",
    "concurrency_limit",
    "per_user_limit",
    "priority",
)
