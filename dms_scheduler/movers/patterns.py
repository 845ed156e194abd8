"""Include and exclude patterns: which entries of a tree a task is about.

The rules are a subset of rsync's. A pattern without a slash matches a name at any depth; one that
begins with a slash is matched from the top of the source; any other is matched against the end of
the path. A trailing slash restricts it to directories. `*` and `?` stay within one name, `[a-z]`
and `[!a-z]` are classes, a component `**` spans any number of directories, a backslash takes the
next character literally.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from dms_scheduler.movers.errors import Refused

BACKUP_NAME = ".dms-deleted"
"""Top folder at the destination that keeps what was deleted."""

_OWN = ".dms-"
_TEMPORARY = re.compile(r"\.dms-tmp\.(?P<task>[A-Za-z0-9._-]{1,128})\.(?P<epoch>\d+)\.(?P<n>\d+)")
_PART = re.compile(r"\.dms-part\.(?P<task>[A-Za-z0-9._-]{1,128})\.[0-9a-f]{32}(?:\.journal)?")
_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Pattern:
    """One compiled pattern; a component of None stands for `**`."""

    components: tuple[re.Pattern[str] | None, ...]
    directories_only: bool

    def matches(self, parts: Sequence[str], *, is_directory: bool) -> bool:
        """Say whether the path made of `parts` itself (not what lies below it) matches."""
        if self.directories_only and not is_directory:
            return False
        return _matches(self.components, parts)


def compile_pattern(text: str) -> Pattern:
    """Compile one pattern.

    Raises:
        Refused: it is empty, too long, contains NUL, or has an unclosed class.

    """
    stripped = text.strip("/")
    if not stripped or len(text) > _MAX_LENGTH or "\0" in text:
        message = f"pattern {text!r}: give 1 to {_MAX_LENGTH} characters that name something"
        raise Refused(message, error_class="bad_pattern")
    components = tuple(_component(part, text) for part in stripped.split("/") if part)
    if not text.startswith("/"):
        components = (None, *components)
    return Pattern(components, text.endswith("/"))


def _component(part: str, text: str) -> re.Pattern[str] | None:
    if part == "**":
        return None
    try:
        return re.compile(_translate(part), re.DOTALL)
    except re.error as error:
        message = f"pattern {text!r}: {part!r} cannot be read ({error})"
        raise Refused(message, error_class="bad_pattern") from error


def _translate(part: str) -> str:
    """Return a regular expression that needs no backtracking over `*`, however many there are."""
    pieces = _pieces(part)
    if len(pieces) == 1:
        return pieces[0]
    # All pieces have a fixed width, so the earliest place for each inner one is as good as any
    # other: an atomic group keeps the matcher from trying the rest (a pattern is user input).
    inner = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1] if piece)
    return f"{pieces[0]}{inner}.*{pieces[-1]}"


def _pieces(part: str) -> list[str]:
    """Return the regular expressions of what stands between the stars."""
    pieces = [""]
    rest = part
    while rest:
        piece, rest = _piece(rest)
        if piece == "*":
            pieces.append("")
        else:
            pieces[-1] += piece
    return pieces


def _piece(rest: str) -> tuple[str, str]:
    head = rest[0]
    if head == "*":
        return "*", rest[1:]
    if head == "?":
        return ".", rest[1:]
    if head == "\\" and len(rest) > 1:
        return re.escape(rest[1]), rest[2:]
    if head == "[":
        return _class(rest)
    return re.escape(head), rest[1:]


def _class(rest: str) -> tuple[str, str]:
    negated = rest[1:2] in {"!", "^"}
    start = 2 if negated else 1
    # As in a shell, a bracket directly after the opening one is a member.
    end = rest.find("]", start + 1)
    if end < 0:
        return re.escape("["), rest[1:]
    members = re.sub(r"([\\\[\]^&~|])", r"\\\1", rest[start:end])
    return f"[{'^' if negated else ''}{members}]", rest[end + 1 :]


def _matches(components: Sequence[re.Pattern[str] | None], parts: Sequence[str]) -> bool:
    """Match by one row of a table per component: time is components x parts, never exponential."""
    reached = [True, *([False] * len(parts))]
    for component in components:
        if component is None:
            first = reached.index(True) if True in reached else len(reached)
            reached = [index >= first for index in range(len(reached))]
        else:
            reached = [False] + [
                was and component.fullmatch(part) is not None
                for was, part in zip(reached, parts, strict=False)
            ]
    return reached[-1]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries a task is about. Exclusion wins; DMS's own names are never part of it."""

    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()

    @classmethod
    def compiled(cls, include: Sequence[str], exclude: Sequence[str]) -> Filters:
        """Compile both lists; raises Refused for a pattern that cannot be read."""
        return cls(
            tuple(compile_pattern(text) for text in include),
            tuple(compile_pattern(text) for text in exclude),
        )

    def wants(self, folder: str, name: str, *, is_directory: bool) -> bool:
        """Say whether the entry `name` of `folder` (a path relative to the top) is meant.

        With `include` every directory is meant, as files below it may be: `selects` tells
        whether a directory is wanted for its own sake.
        """
        if not self.include and not self.exclude and not name.startswith(_OWN):
            return True  # as nearly always: a walk asks for each entry
        return not is_reserved(folder, name) and self.picks(folder, name, is_directory=is_directory)

    def picks(self, folder: str, name: str, *, is_directory: bool) -> bool:
        """Say the same by the patterns alone, whoever made the entry."""
        if not self.include and not self.exclude:
            return True
        parts = [*folder.split("/"), name] if folder else [name]
        if any(pattern.matches(parts, is_directory=is_directory) for pattern in self.exclude):
            return False
        return is_directory or self._included(parts)

    def selects(self, path: str) -> bool:
        """Say whether the directory `path` is wanted even if it is empty."""
        return not self.include or self._included(path.split("/"), is_directory=True)

    def _included(self, parts: list[str], *, is_directory: bool = False) -> bool:
        if not self.include:
            return True
        return any(
            pattern.matches(parts[:depth], is_directory=is_directory or depth < len(parts))
            for pattern in self.include
            for depth in range(1, len(parts) + 1)
        )


def is_reserved(folder: str, name: str) -> bool:
    """Say whether DMS makes that name itself: such an entry is neither data nor waste."""
    if not name.startswith(_OWN):
        return False
    return (not folder and name == BACKUP_NAME) or is_temporary(name)


def is_temporary(name: str) -> bool:
    """Say whether it is the name of a copy that is not complete, or of its journal."""
    return _TEMPORARY.fullmatch(name) is not None or _PART.fullmatch(name) is not None


def part_name(task_id: str, target: str) -> str:
    """Return the name of the copy of a big file, the same for every attempt of a task; at most
    10 + 128 + 33 bytes."""
    digest = xxhash.xxh3_128_hexdigest(os.fsencode(target))
    return f".dms-part.{task_id}.{digest}"


def journal_name(task_id: str, target: str) -> str:
    """Return the name of the journal beside it."""
    return f"{part_name(task_id, target)}.journal"


def is_part(name: str, task_id: str) -> bool:
    """Say whether `name` is the copy of a big file of this task, or its journal."""
    match = _PART.fullmatch(name)
    return match is not None and match["task"] == task_id


def temporary_name(task_id: str, epoch: int, number: int) -> str:
    """Return the name of a temporary file; at most 9 + 128 + 42 bytes, below any NAME_MAX."""
    return f".dms-tmp.{task_id}.{epoch}.{number}"


def is_leftover(name: str, task_id: str, epoch: int) -> bool:
    """Say whether `name` is a temporary file of this task, of this epoch or one before."""
    match = _TEMPORARY.fullmatch(name)
    return match is not None and match["task"] == task_id and int(match["epoch"]) <= epoch
