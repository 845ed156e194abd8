"""Loads the Lua scripts of the events, each behind what it needs of the prelude."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_NAMES = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis knows it: by the SHA-1 of its source, which is no matter of security."""

    source: str
    sha: str


def _read(name: str) -> str:
    return (
        resources.files("app.event_system.infrastructure")
        .joinpath("scripts", f"{name}.lua")
        .read_text("utf-8")
    )


def _prelude(body: str) -> str:
    """The paragraphs that `body` mentions, and those that they mention: what a script does not use
    would still be built anew at each call."""
    wanted: list[str] = []
    text = body
    for paragraph in reversed(_read("prelude").split("\n\n")):
        if any(re.search(rf"\b{name}\b", text) for name in _NAMES.findall(paragraph)):
            wanted.insert(0, paragraph)
            text += paragraph
    return "\n\n".join(wanted)


@cache
def script(name: str) -> Script:
    """The script of that file's name."""
    body = _read(name)
    source = f"{_prelude(body)}\n\n{body}"
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
