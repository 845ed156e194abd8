"""Opens both ends of a move: checks what they are, and that they do not hold each other."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from dms_scheduler.movers.above import ancestry
from dms_scheduler.movers.errors import Refused, not_found, overlap
from dms_scheduler.movers.oserrors import as_mover_error
from dms_scheduler.movers.paths import (
    READ_DIRECTORY,
    Location,
    descend,
    identity,
    kind_of,
    refuse_blocked,
    status_at,
)


@dataclass(frozen=True, slots=True)
class Source:
    """An open source: a directory, or with a `name` that file in the directory."""

    fd: int
    name: str | None
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Target:
    """An open destination; `fd` is None if it does not exist and must not be made."""

    fd: int | None
    name: str | None
    is_root: bool


def open_source(location: Location, stack: ExitStack) -> Source:
    """Open the source; `stack` closes it.

    Raises:
        MoverError: it is not there, not permitted, or neither a directory nor a file.

    """
    try:
        fd, rest = descend(location)
        stack.callback(os.close, fd)
        if not rest:
            return Source(_readable(fd, stack), None, os.fstat(fd))
        status = status_at(fd, rest[0])
    except OSError as error:
        raise as_mover_error(error, location.text) from error
    if status is None:
        raise not_found(f"source {location.text!r}")
    if len(rest) == 1 and stat.S_ISREG(status.st_mode) and not location.wants_directory:
        return Source(fd, rest[0], status)
    message = f"source {location.text!r}: {rest[0]!r} is {kind_of(status)}"
    raise Refused(message, error_class="bad_source")


def open_target(
    location: Location,
    source: Source,
    roots: frozenset[tuple[int, int]],
    stack: ExitStack,
    *,
    create: bool,
    before_making: Callable[[int], None] = lambda _: None,
) -> Target:
    """Open the destination, making what is missing if `create`; `stack` closes it.

    `before_making` hears of the directory in which something is missing, and may object.

    A file goes into an existing directory, or a path that ends with a slash, under its own name;
    any other path is the file's new path. `roots` are the identities of the allowed roots.

    Raises:
        MoverError: it overlaps the source, is blocked by another kind of file, or not permitted.

    """
    try:
        fd, rest = descend(location)
        stack.callback(os.close, fd)
        missing, name = _split(location, source, rest)
        refuse_blocked(fd, missing, location.text)
        _refuse_overlap(fd, source, missing, name)
        is_root = not missing and identity(os.fstat(fd)) in roots
        if missing and not create:
            return Target(None, name, is_root)
        if missing:
            before_making(fd)
        return Target(_make(fd, missing, stack), name, is_root)
    except OSError as error:
        raise as_mover_error(error, location.text) from error


def _split(
    location: Location, source: Source, rest: tuple[str, ...]
) -> tuple[tuple[str, ...], str | None]:
    """Return the directories that are missing, and the file's name if the source is a file."""
    if source.name is None:
        return rest, None
    if not rest or location.wants_directory:
        return rest, source.name
    return rest[:-1], rest[-1]


def _refuse_overlap(fd: int, source: Source, missing: tuple[str, ...], name: str | None) -> None:
    if source.name is not None:
        status = status_at(fd, name) if name and not missing else None
        overlaps = status is not None and identity(status) == identity(source.status)
    else:
        inside_source = identity(source.status) in ancestry(fd)
        holds_source = not missing and identity(os.fstat(fd)) in ancestry(source.fd)
        overlaps = inside_source or holds_source
    if overlaps:
        raise overlap()


def _make(fd: int, missing: tuple[str, ...], stack: ExitStack) -> int:
    for name in missing:
        # Another task may make the same parents: what matters is what the open below finds.
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=fd)
        fd = os.open(name, READ_DIRECTORY, dir_fd=fd)
        stack.callback(os.close, fd)
    return _readable(fd, stack)


def _readable(fd: int, stack: ExitStack) -> int:
    """Return a descriptor that can be listed and locked for one that is only a place."""
    opened = os.open(".", READ_DIRECTORY, dir_fd=fd)
    stack.callback(os.close, opened)
    return opened
