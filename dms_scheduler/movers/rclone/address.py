"""The address of data at a remote, `name:path`: its syntax, and what is refused in it.

Only a name of the operator's own config file may stand before the colon. Everything else that
rclone would understand there (a backend on the fly, a connection string with options) could read
the worker's files or run its programs, so it is refused before rclone sees it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dms_scheduler.movers.errors import Refused

_NAME = re.compile(r"\w[\w.+@-]*(?: +[\w.+@-]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MOST = 4096


@dataclass(frozen=True, slots=True)
class Address:
    """Where something is at a remote; `parts` are the components of its path."""

    text: str
    name: str
    parts: tuple[str, ...]
    absolute: bool
    wants_directory: bool

    @property
    def fs(self) -> str:
        """The address as rclone takes it."""
        return self._fs(self.parts)

    @property
    def parent(self) -> str:
        """What holds it, as rclone takes it."""
        return self._fs(self.parts[:-1])

    @property
    def is_top(self) -> bool:
        """Whether this is the top of the remote."""
        return not self.parts

    def child(self, *parts: str) -> Address:
        """Return the address of something below."""
        both = (*self.parts, *parts)
        text = f"{self.text.rstrip('/')}/{'/'.join(parts)}"
        return Address(text, self.name, both, self.absolute, wants_directory=False)

    def _fs(self, parts: tuple[str, ...]) -> str:
        return f"{self.name}:{'/' if self.absolute else ''}{'/'.join(parts)}"


def is_remote(text: str) -> bool:
    """Say whether `text` names a remote, rightly or wrongly; a local path begins with a slash."""
    return ":" in text and not text.startswith("/")


def parse_address(text: str) -> Address:
    """Return the address in `text`; whether its remote exists is the config's to say.

    Raises:
        Refused: it is no `name:path`, or one that could mean something else.

    """
    problem = _problem(text)
    if problem:
        message = f"remote path {text[:200]!r}: {problem}"
        raise Refused(message, error_class="path_refused")
    name, _, path = text.partition(":")
    parts = tuple(part for part in path.split("/") if part not in {"", "."})
    return Address(text, name, parts, path.startswith("/"), path.endswith(("/", "/.")))


def _problem(text: str) -> str | None:
    name, colon, path = text.partition(":")
    if not colon:
        return "names no remote; write it as name:path"
    if _CONTROL.search(text):
        return "contains a control character"
    if text.startswith((":", "-")) or "," in name or "=" in name:
        return "only the name of a configured remote may stand before the colon, no options"
    if not _NAME.fullmatch(name):
        return "is no name of a remote; use one that the definition of the task lists"
    if ".." in path.split("/"):
        return "must not contain '..'; write the path without it"
    return _text_problem(text)


def _text_problem(text: str) -> str | None:
    if len(text) > _MOST:
        return f"is longer than {_MOST} characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8, which remotes need"
    return None
