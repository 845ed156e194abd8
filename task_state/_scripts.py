"""Loads the Lua scripts, each with the prelude in front, and names them by their SHA-1."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from task_state.models import TRANSITIONS, TaskStatus

LOG_LINES = 1_000_000
LOG_BYTES = 64 * 2**20
OUTPUT_BYTES = 16 * 2**20

_PARTS = {"save": ("create",), "submit": ("create",)}


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis knows it."""

    name: str
    source: str
    sha: str


def _moves() -> str:
    moves = [f"{source}>{target}" for source, targets in TRANSITIONS.items() for target in targets]
    return " " + " ".join(sorted(moves)) + " "


def _prelude() -> str:
    text = _read("prelude")
    statuses = ", ".join(f"'{status}'" for status in TaskStatus)
    for name, value in (
        ("$MOVES", _moves()),
        ("$STATUSES", statuses),
        ("$LOG_LINES", str(LOG_LINES)),
        ("$LOG_BYTES", str(LOG_BYTES)),
        ("$OUTPUT_BYTES", str(OUTPUT_BYTES)),
    ):
        text = text.replace(name, value)
    return text


def _read(name: str) -> str:
    return resources.files("task_state").joinpath("scripts", f"{name}.lua").read_text("utf-8")


@cache
def script(name: str) -> Script:
    """The script of that file name, prelude included. SHA-1 is Redis' own naming, not security."""
    source = "\n".join([_prelude(), *map(_read, _PARTS.get(name, ())), _read(name)])
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha)
