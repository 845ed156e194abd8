"""Reads what rclone answers: JSON whose shape is not ours to promise."""

from __future__ import annotations

from typing import cast


def fields(value: object) -> dict[str, object]:
    """Return the fields of a JSON object, none for anything else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """Return the items of a JSON list, none for anything else."""
    return cast("list[object]", value) if isinstance(value, list) else []


def texts(value: object) -> list[str]:
    """Return the items of a JSON list as text."""
    return [str(item) for item in items(value)]


def number(value: object) -> float:
    """Return a JSON number, 0 for anything else."""
    return float(value) if isinstance(value, int | float) else 0.0
