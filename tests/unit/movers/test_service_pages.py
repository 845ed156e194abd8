"""The pages of the built-in tasks name each parameter with its default, and dsync's options."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any, cast

import pytest

from dms_scheduler.services.legacy import DSYNC, Tool
from dms_scheduler.services.parameters import (
    CheckParameters,
    CopyParameters,
    HotcoldParameters,
    Parameters,
    RmParameters,
    SyncParameters,
)

PAGES = Path(__file__).parents[3] / "docs/services"
MODELS: dict[str, type[Parameters]] = {
    "sync": SyncParameters,
    "copy": CopyParameters,
    "check": CheckParameters,
    "rm": RmParameters,
    "hotcold": HotcoldParameters,
}


def rows(service: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below a line of a page."""
    page = (PAGES / f"{service}.md").read_text()
    _, found, rest = page.partition(f"{heading}\n")
    assert found, heading
    lines = rest[rest.index("| --- |") :].splitlines()[1:]
    table = lines[: next(index for index, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("service", MODELS)
def test_each_parameter_is_on_its_page(service: str) -> None:
    told = [name for row in rows(service, "## Parameters") for name in names(row[0])]
    assert sorted(told) == sorted(MODELS[service].model_fields)


@pytest.mark.parametrize("service", MODELS)
def test_defaults_and_choices_are_those_of_the_code(service: str) -> None:
    fields = MODELS[service].model_fields
    for row in rows(service, "## Parameters"):
        for name in names(row[0]):
            field = fields[name]
            if field.is_required():
                assert "required" in row[1], name
                continue
            assert shown(field.default, row[1]), f"{name}: {field.default!r} in {row[1]!r}"
            if isinstance(field.default, Enum):
                choices = {each.value for each in type(field.default)}
                assert set(names(row[1])) == choices, name


def shown(default: Any, cell: str) -> bool:
    """Say whether a cell tells the default."""
    if default is None or default == ():
        return cell.endswith("none")
    if isinstance(default, Enum):
        return f"**`{default.value}`**" in cell
    if isinstance(default, bool):
        return f"**`{str(default).lower()}`**" in cell
    if isinstance(default, frozenset):
        kept = cast("frozenset[str]", default)
        bold = re.search(r"\*\*`([^`]+)`\*\*", cell)
        told = set[str]() if bold is None or bold[1] == "none" else set(bold[1].split(","))
        return bold is not None and told == {str(each) for each in kept}
    return f"**{default}**" in cell


def test_each_option_of_dsync_is_on_the_page() -> None:
    told = {
        spelling.split()[0]
        for row in rows("sync", "<!-- options of dsync -->")
        for spelling in names(row[0])
    }
    assert told == spellings(DSYNC)


def spellings(tool: Tool) -> set[str]:
    return {spelling for option in tool.options for spelling in option.spellings}
