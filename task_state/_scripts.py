"""Loads the Lua scripts, each behind what it needs of the prelude, named by their SHA-1."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from task_state._layout import lua_constants
from task_state._schedule_models import MAX_BUFFERED, MAX_FIRES
from task_state.models import TRANSITIONS, TaskStatus

LOG_LINES = 1_000_000
LOG_BYTES = 64 * 2**20
OUTPUT_BYTES = 16 * 2**20
REPORT_BYTES = 16 * 2**20  # compressed; lines of failures may fill as much again
LISTED_BYTES = 4096  # of one field of a record in a listing
SEARCHED_BYTES = 16_384  # of parameters: text in longer ones is not looked for
MAX_ATTEMPTS = 3  # of a managed task whose definition says nothing

_PRELUDES = ("record_prelude", "prelude", "schedule_prelude")
_NAMES = re.compile(r"^local (?:function )?([A-Za-z_]+(?:, [A-Za-z_]+)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis knows it."""

    name: str
    source: str
    sha: str


def _moves() -> str:
    moves = [f"{source}>{target}" for source, targets in TRANSITIONS.items() for target in targets]
    return " " + " ".join(sorted(moves)) + " "


def _constants() -> dict[str, str]:
    return {
        "$MOVES": _moves(),
        "$STATUSES": ", ".join(f"'{status}'" for status in TaskStatus),
        "$LOG_LINES": str(LOG_LINES),
        "$LOG_BYTES": str(LOG_BYTES),
        "$OUTPUT_BYTES": str(OUTPUT_BYTES),
        "$REPORT_BYTES": str(REPORT_BYTES),
        **lua_constants(),
        "$LISTED_BYTES": str(LISTED_BYTES),
        "$SEARCHED_BYTES": str(SEARCHED_BYTES),
        "$MAX_ATTEMPTS": str(MAX_ATTEMPTS),
        "$MAX_BUFFERED": str(MAX_BUFFERED),
        "$MAX_FIRES": str(MAX_FIRES),
    }


def _read(name: str) -> str:
    return resources.files("task_state").joinpath("scripts", f"{name}.lua").read_text("utf-8")


def _prelude(body: str) -> str:
    """The paragraphs of the prelude that `body` mentions, and those that they mention: what a
    script does not use would still be built anew at each of its calls."""
    wanted: list[str] = []
    text = body
    library = "\n".join(_read(name) for name in _PRELUDES)
    for paragraph in reversed(library.split("\n\n")):
        names = [name for group in _NAMES.findall(paragraph) for name in group.split(", ")]
        if any(re.search(rf"\b{name}\b", text) for name in names):
            wanted.insert(0, paragraph)
            text += paragraph
    prelude = "\n\n".join(wanted)
    for name, value in _constants().items():
        prelude = prelude.replace(name, value)
    return prelude


@cache
def script(name: str) -> Script:
    """The script of that file name, prelude included. SHA-1 is Redis' own naming, not security."""
    body = _read(name)
    source = f"{_prelude(body)}\n\n{body}"
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha)
