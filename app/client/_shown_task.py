"""A task as the API shows it, read so that a newer service's further fields do no harm."""

from typing import Any, cast, get_args

from pydantic import BaseModel

from task_state import TaskRecord


class TaskShown(TaskRecord):
    """A record, and its place among the waiting tasks (1 is next; None: it does not wait)."""

    queue_position: int | None = None


def shown_task(found: dict[str, Any]) -> TaskShown:
    """The task in an answer; raises ValueError (pydantic's) for what is none."""
    return TaskShown.model_validate(_known(TaskShown, found))


def _known(model: type[BaseModel], found: Any) -> Any:
    """The part of an answer that the model has fields for, in models within it too."""
    if not isinstance(found, dict):
        return found
    values = cast("dict[str, Any]", found)
    return {
        name: _known_inside(field.annotation, values[name])
        for name, field in model.model_fields.items()
        if name in values
    }


def _known_inside(annotation: Any, value: Any) -> Any:
    model = next((kind for kind in _kinds(annotation) if issubclass(kind, BaseModel)), None)
    if model is None:
        return value
    if isinstance(value, list):
        return [_known(model, item) for item in cast("list[Any]", value)]
    return _known(model, value)


def _kinds(annotation: Any) -> list[type]:
    """The classes that an annotation such as `list[Note] | None` is made of."""
    parts = get_args(annotation)
    if not parts:
        return [annotation] if isinstance(annotation, type) else []
    return [kind for part in parts for kind in _kinds(part)]
