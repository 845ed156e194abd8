"""Both ends of a move by rclone: what they are, how rclone names them, what it may do there.

A local end is opened here without following links. rclone gets the open directory above it and
one name, and the sandbox allows it what lies beneath the directory itself, whatever becomes of
the name: so exchanging it leads nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from dms_scheduler.movers.errors import Refused, not_found
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.oserrors import as_mover_error
from dms_scheduler.movers.paths import (
    PATH_FLAGS,
    READ_DIRECTORY,
    descend,
    identity,
    kind_of,
    locate,
    refuse_blocked,
    root_identities,
    status_at,
)
from dms_scheduler.movers.rclone import confine
from dms_scheduler.movers.rclone.address import Address
from dms_scheduler.movers.rclone.answers import fields, texts

_NO_MODIFICATION_TIME = 100 * 365 * 86400 * 10**9  # what rclone calls the precision of none, in ns


@dataclass(frozen=True, slots=True)
class Features:
    """What a side can do."""

    hashes: frozenset[str]
    times: bool
    empty_folders: bool
    buckets: bool
    moves: bool


@dataclass(slots=True)
class Place:
    """One end. `fs` is a directory as rclone names it, `file` a name in it if a file is meant."""

    text: str
    fs: str
    file: str | None = None
    address: Address | None = None
    fd: int | None = None
    exists: bool = True
    is_top: bool = False
    rights: dict[int, int] = dataclass_field(default_factory=dict[int, int])
    features: Features | None = None

    @property
    def known(self) -> Features:
        """What it can do; asked of rclone before anything else."""
        if self.features is None:
            message = "the features were not asked for"
            raise RuntimeError(message)
        return self.features


def read_features(answer: Mapping[str, object]) -> Features:
    """Return what `operations/fsinfo` says."""
    flags = fields(answer.get("Features"))
    precision = answer.get("Precision")
    return Features(
        hashes=frozenset(texts(answer.get("Hashes"))),
        times=isinstance(precision, int) and precision < _NO_MODIFICATION_TIME,
        empty_folders=bool(flags.get("CanHaveEmptyDirectories")),
        buckets=bool(flags.get("BucketBased")),
        moves=bool(flags.get("Move") or flags.get("Copy")),
    )


class LocalSide:
    """Opens paths of this machine for one task."""

    def __init__(self, roots: tuple[str, ...], stack: ExitStack, locks: Locks) -> None:
        self._roots = roots
        self._stack = stack
        self._locks = locks

    def source(self, text: str, *, at_rest: bool) -> Place:
        """Open what is to be read: a directory or a file. Raises MoverError."""
        location = locate(text, self._roots)
        try:
            fd, rest = descend(location)
            self._stack.callback(os.close, fd)
            if rest:
                return self._file(text, fd, rest, wants_directory=location.wants_directory)
            self._locks.read(fd, at_rest=at_rest)
        except OSError as error:
            raise as_mover_error(error, text) from error
        return self._place(text, fd, (), {fd: confine.READ})

    def _file(self, text: str, fd: int, rest: tuple[str, ...], *, wants_directory: bool) -> Place:
        name = rest[0]
        status = status_at(fd, name)
        if status is None:
            raise not_found(f"source {text!r}")
        if len(rest) > 1 or not stat.S_ISREG(status.st_mode) or wants_directory:
            message = f"source {text!r}: {name!r} is {kind_of(status)}"
            raise Refused(message, error_class="bad_source")
        self._locks.read(fd)
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        self._stack.callback(os.close, file)
        place = self._place(text, fd, (), {file: confine.READ_FILE})
        place.file = _utf8(name)
        return place

    def is_folder(self, text: str) -> bool:
        """Say whether a destination is a directory, whatever is to be written there."""
        location = locate(text, self._roots)
        try:
            fd, rest = descend(location)
        except OSError as error:
            raise as_mover_error(error, text) from error
        os.close(fd)
        return not rest or location.wants_directory

    def target(self, text: str, name: str | None, *, change: bool) -> Place:
        """Open what is to be written: a directory that is made if it is missing, or for a file
        called `name` its directory. Without `change` nothing is made. Raises MoverError."""
        location = locate(text, self._roots)
        try:
            fd, rest = descend(location)
            self._stack.callback(os.close, fd)
            file: str | None = None
            if name is not None:
                into = not rest or location.wants_directory
                rest, file = (rest, name) if into else (rest[:-1], rest[-1])
            refuse_blocked(fd, rest, text)
            is_top = not rest and identity(os.fstat(fd)) in root_identities(self._roots)
            if change:
                fd, rest = self._make(fd, rest, whole=name is None), ()
        except OSError as error:
            raise as_mover_error(error, text) from error
        right = confine.every_right(confine.version()) & ~confine.EXECUTE
        place = self._place(text, fd, rest, {fd: right if change else confine.READ})
        place.file = None if file is None else _utf8(file)
        place.is_top = is_top
        place.exists = not rest
        return place

    def _make(self, fd: int, missing: tuple[str, ...], *, whole: bool) -> int:
        if missing:
            self._locks.write_in(fd)
        for name in missing:
            # Another task may make the same parents: what matters is what the open below finds.
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)
            fd = os.open(name, PATH_FLAGS, dir_fd=fd)
            self._stack.callback(os.close, fd)
        if whole:
            self._locks.write(fd)
        else:
            self._locks.write_in(fd)
        return fd

    def _place(self, text: str, fd: int, rest: tuple[str, ...], rights: Mapping[int, int]) -> Place:
        above = os.open("..", PATH_FLAGS, dir_fd=fd)
        self._stack.callback(os.close, above)
        name = _name_in(above, fd)
        if name is None:
            message = f"{text!r} is the top of a file system; use a folder in it"
            raise Refused(message, error_class="root_refused")
        path = "/".join(_utf8(part) for part in (name, *rest))
        return Place(
            text=text,
            fs=f"/proc/self/fd/{above}/{path}",
            fd=fd,
            rights={above: 0, **rights},
        )


def _name_in(above: int, fd: int) -> str | None:
    """Return the name by which the directory `above` holds the directory `fd`."""
    name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    wanted = identity(os.fstat(fd))
    status = status_at(above, name) if name else None
    if status is not None and identity(status) == wanted:
        return name
    listed = os.open(".", READ_DIRECTORY, dir_fd=above)
    try:
        with os.scandir(listed) as entries:
            for entry in entries:
                if (
                    entry.inode() == wanted[1]
                    and identity(os.stat(entry.name, dir_fd=listed)) == wanted
                ):
                    return entry.name
    finally:
        os.close(listed)
    return None


def _utf8(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        message = f"{name!r}: the path to a tree that goes to or comes from a remote must be UTF-8"
        raise Refused(message, error_class="name_not_allowed") from error
    return name
