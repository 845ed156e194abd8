"""Where a task may read and write: path syntax, allowed roots, and opening without following links.

A path is cut into components once. Below its root each component is opened relative to the one
before with O_NOFOLLOW, so neither a symlink nor a swap in mid-run can lead out of the root.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from dms_scheduler.movers.errors import MoverError, Refused

PATH_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_TYPE_NAMES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True)
class Location:
    """A path that passed: the real path of its root, and the components below it."""

    text: str
    root: str
    parts: tuple[str, ...]
    wants_directory: bool
    fixed: int = 0  # so many of the parts lead to a root inside the root: they are never made


def split_path(text: str) -> tuple[str, ...]:
    """Return the components of an absolute path; `//` and `/./` vanish, `..` is refused.

    Raises:
        Refused: the text is no absolute path of this machine, or could be read as something else.

    """
    problem = _problem(text)
    if problem:
        message = f"path {text!r}: {problem}"
        raise Refused(message, error_class="path_refused")
    return tuple(part for part in text.split("/") if part not in {"", "."})


def _problem(text: str) -> str | None:
    if "\0" in text:
        return "contains a NUL byte"
    if text.startswith((":", "-")):
        return "must not begin with ':' or '-'; give an absolute path"
    if ":" in text and not text.startswith("/"):
        return "names a remote, which this version cannot move to or from; use a local path"
    if not text.startswith("/"):
        return "is not absolute; begin it with '/'"
    if ".." in text.split("/"):
        return "must not contain '..'; write the path without it"
    return _encoding_problem(text)


def _encoding_problem(text: str) -> str | None:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return "contains a character that no file name can have"
    return None


def split_roots(text: str) -> tuple[str, ...]:
    """Return the allowed roots in a list such as DMS_DATA_ROOTS (separated by `os.pathsep`).

    Raises:
        Refused: an entry is not an absolute path.

    """
    roots = tuple(item.strip() for item in text.split(os.pathsep) if item.strip())
    for root in roots:
        split_path(root)
    return roots


def locate(text: str, roots: tuple[str, ...]) -> Location:
    """Return where `text` lies below one of `roots`.

    A root may be a symbolic link that the operator made: it is resolved here, and paths may be
    spelled with either of its names. What lies below a root is never resolved, a root inside
    another one neither: a task for the outer one could have put a link in its place.

    Raises:
        Refused: the path is malformed or lies under no root.

    """
    parts = split_path(text)
    spelled = [split_path(root) for root in roots]
    found: Location | None = None
    for root, spelling in zip(roots, spelled, strict=True):
        if not any(_is_below(spelling, other) for other in spelled):
            inside = [other[len(spelling) :] for other in spelled if _is_below(other, spelling)]
            here = _below_root(text, parts, root, inside)
            if here and (found is None or len(here.parts) < len(found.parts)):
                found = here
    if found is None:
        raise Refused(_outside(text, roots), error_class="outside_roots")
    return found


def _is_below(parts: tuple[str, ...], above: tuple[str, ...]) -> bool:
    return len(parts) > len(above) and parts[: len(above)] == above


def _below_root(
    text: str, parts: tuple[str, ...], root: str, inside: list[tuple[str, ...]]
) -> Location | None:
    """Return where the path lies below a root, which has the roots `inside` it; None if not."""
    real = os.path.realpath(root)
    for spelling in (split_path(root), split_path(real)):
        if parts[: len(spelling)] == spelling:
            rest = parts[len(spelling) :]
            fixed = max((len(other) for other in inside if rest[: len(other)] == other), default=0)
            return Location(text, real, rest, text.endswith(("/", "/.")), fixed)
    return None


def _outside(text: str, roots: tuple[str, ...]) -> str:
    if not roots:
        return (
            f"path {text!r} is not allowed: no data roots are set. Start the worker with "
            f"DMS_DATA_ROOTS=/absolute/path (several separated by {os.pathsep!r})"
        )
    return (
        f"path {text!r} is outside the allowed roots ({', '.join(roots)}). Use a path below one "
        "of them, or let the operator add a root to DMS_DATA_ROOTS"
    )


def descend(location: Location) -> tuple[int, tuple[str, ...]]:
    """Open the deepest existing directory of `location`; return its descriptor and what is left.

    The descriptor is opened with O_PATH and belongs to the caller. What is left is empty if the
    whole path is a directory.

    Raises:
        MoverError: the root is missing, or a component is a symbolic link or not permitted.

    """
    fd = _open_root(location.root)
    for index, part in enumerate(location.parts):
        try:
            below = os.open(part, PATH_FLAGS, dir_fd=fd)
        except (FileNotFoundError, NotADirectoryError):
            _refuse_symlink(fd, part, location)
            if index < location.fixed:
                os.close(fd)
                inside = "/".join((location.root, *location.parts[: location.fixed]))
                raise _unavailable(inside) from None
            return fd, location.parts[index:]
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        fd = below
    return fd, ()


def _open_root(root: str) -> int:
    try:
        return os.open(root, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _unavailable(root) from error


def _unavailable(root: str) -> MoverError:
    message = f"the allowed root {root} is not there; mount it or correct DMS_DATA_ROOTS"
    return MoverError(message, error_class="root_unavailable", retryable=True)


def _refuse_symlink(fd: int, part: str, location: Location) -> None:
    status = status_at(fd, part)
    if status is None or not stat.S_ISLNK(status.st_mode):
        return
    os.close(fd)
    message = (
        f"path {location.text!r}: {part!r} is a symbolic link, and links are never followed. "
        "Use the path that it points to"
    )
    raise Refused(message, error_class="symlink_refused")


def status_at(fd: int, name: str) -> os.stat_result | None:
    """Return the status of `name` in the directory `fd`, of a link itself; None if not there."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return what tells one inode from all others of this machine."""
    return (status.st_dev, status.st_ino)


def root_identities(roots: tuple[str, ...]) -> frozenset[tuple[int, int]]:
    """Return what the allowed roots are, by whatever name; one that is not there is left out."""
    found: set[tuple[int, int]] = set()
    for root in roots:
        with suppress(OSError):
            found.add(identity(os.stat(root)))
    return frozenset(found)


def kind_of(status: os.stat_result) -> str:
    """Return words for the type of a file."""
    return _TYPE_NAMES.get(stat.S_IFMT(status.st_mode), "of an unknown type")


def refuse_blocked(fd: int, missing: tuple[str, ...], text: str) -> None:
    """Refuse the destination `text` if the first name that `fd` lacks as a folder is something."""
    status = status_at(fd, missing[0]) if missing else None
    if status is not None:
        message = f"destination {text!r}: {missing[0]!r} is {kind_of(status)}"
        raise Refused(message, error_class="bad_destination")
