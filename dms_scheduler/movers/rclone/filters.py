"""Include and exclude patterns as rules of rclone, with the meaning that `patterns` gives them.

Each pattern becomes regular expressions over the whole path, because rclone's own globs differ in
small ways (`**`, classes, what a slash anchors).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from dms_scheduler.movers.patterns import BACKUP_NAME, compile_pattern
from dms_scheduler.movers.rclone.names import spelled

_ANY_DEPTH = "(?:[^/]+/)*"
_HEX = "[0-9a-f]"
_OWN_FILES = (
    rf"{_ANY_DEPTH}\.dms-tmp\.[A-Za-z0-9._-]+\.[0-9]+\.[0-9]+",
    rf"{_ANY_DEPTH}\.dms-part\.[A-Za-z0-9._-]+",
    rf"{_ANY_DEPTH}[^/]*\.{_HEX * 8}\.dms-part\.{_HEX * 6}",
)
# Braces as well, though they need no escape: two of them would end the expression for rclone.
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")


def rules(include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Return filter rules: the first that matches a path decides.

    Raises:
        Refused: a pattern cannot be read.

    """
    found = _rules("-", _escaped(BACKUP_NAME), directories_only=False)
    for expression in _OWN_FILES:
        found += _rules("-", expression, directories_only=False)
    for text in exclude:
        found += _rules("-", _expression(text), directories_only=text.endswith("/"))
    for text in include:
        found += _rules("+", _expression(text), directories_only=text.endswith("/"))
    if include:
        found.append("- *")
    return found


def leftovers(suffix: str) -> list[str]:
    """Return rules that select the unfinished files with this suffix alone."""
    unfinished = rf"{_ANY_DEPTH}[^/]+\.{_HEX * 8}{_escaped(suffix)}"
    return [
        *_rules("-", _escaped(BACKUP_NAME), directories_only=True),
        f"+ /{{{{{unfinished}}}}}",
        "- *",
    ]


def _rules(sign: str, expression: str, *, directories_only: bool) -> list[str]:
    """Return a rule for what lies below a directory that matches, and one for a file that does."""
    below = f"{sign} /{{{{{expression}}}}}/**"
    return [below] if directories_only else [below, f"{sign} /{{{{{expression}}}}}"]


def _expression(text: str) -> str:
    """Return the expression for the path of an entry that matches."""
    compile_pattern(text)
    parts = [] if text.startswith("/") else ["**"]
    parts += [part for part in text.strip("/").split("/") if part]
    # Several `**` in a row mean no more than one.
    parts = [part for before, part in pairwise(["", *parts]) if (before, part) != ("**", "**")]
    if parts == ["**"]:
        return f"{_ANY_DEPTH}[^/]+"
    if parts[-1] == "**":  # any path below, or the very entry before it
        return f"{_joined(parts[:-1])}(?:/[^/]+)*"
    return _joined(parts)


def _joined(parts: Sequence[str]) -> str:
    """Join components, of which the last one is no `**`."""
    folders = (_ANY_DEPTH if part == "**" else f"{_component(part)}/" for part in parts[:-1])
    return "".join(folders) + _component(parts[-1])


def _component(part: str) -> str:
    found = ""
    rest = part
    while rest:
        piece, rest = _piece(rest)
        found += piece
    return found


def _piece(rest: str) -> tuple[str, str]:
    head = rest[0]
    if head == "*":
        return "[^/]*", rest[1:]
    if head == "?":
        return "[^/]", rest[1:]
    if head == "\\" and len(rest) > 1:
        return _escaped(rest[1]), rest[2:]
    if head == "[":
        return _class(rest)
    return _escaped(head), rest[1:]


def _escaped(text: str) -> str:
    spelling = "".join(spelled(character) for character in text)
    return _META.sub(lambda match: f"\\x{ord(match.group()):02x}", spelling)


def _class(rest: str) -> tuple[str, str]:
    negated = rest[1:2] in {"!", "^"}
    start = 2 if negated else 1
    # As in a shell, a bracket directly after the opening one is a member.
    end = rest.find("]", start + 1)
    if end < 0:
        return _escaped("["), rest[1:]
    members = "".join(_escaped_member(character) for character in rest[start:end])
    return f"[{'^/' if negated else ''}{members}]", rest[end + 1 :]


def _escaped_member(character: str) -> str:
    return f"\\x{ord(character):02x}" if character in r"\[]^&~|{}" else spelled(character)
