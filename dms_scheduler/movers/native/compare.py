"""Decides what to do with one entry of the source: pure, from what both ends look like."""

from __future__ import annotations

import os
import stat
from enum import Enum, auto

from dms_scheduler.movers.contract import Compare, MoveOptions, Overwrite, Preserve, Symlinks

MODE_BITS = 0o1777
"""What is carried over of a mode: never setuid and setgid."""


class Verdict(Enum):
    """What is to be done with an entry."""

    COPY = auto()
    CHECK = auto()  # same size: the contents decide
    LINK = auto()
    UPDATE = auto()  # same content, other attributes
    SKIP = auto()
    SPECIAL = auto()  # a FIFO, socket or device, which is reported and left out
    CONFLICT = auto()  # a directory is in the way


def judge(source: os.stat_result, target: os.stat_result | None, options: MoveOptions) -> Verdict:
    """Say what to do with a file, link or special file. For a link whose target is a link too,
    LINK may turn into SKIP once both are read."""
    if stat.S_ISLNK(source.st_mode):
        if options.symlinks is Symlinks.SKIP:
            return Verdict.SKIP
        wanted = Verdict.LINK
    elif stat.S_ISREG(source.st_mode):
        wanted = Verdict.COPY
    else:
        return Verdict.SPECIAL
    if target is None:
        return wanted
    if options.overwrite is Overwrite.NEVER:
        return Verdict.SKIP
    if stat.S_ISDIR(target.st_mode):
        return Verdict.CONFLICT
    same = _same(source, target, options) if wanted is Verdict.COPY else None
    return same or _overwrite(wanted, source, target, options)


def _overwrite(
    wanted: Verdict, source: os.stat_result, target: os.stat_result, options: MoveOptions
) -> Verdict:
    newer = source.st_mtime_ns > target.st_mtime_ns
    return wanted if options.overwrite is Overwrite.ALWAYS or newer else Verdict.SKIP


def _same(source: os.stat_result, target: os.stat_result, options: MoveOptions) -> Verdict | None:
    """Return the verdict if the target counts as the same file (or may be), else None."""
    if not stat.S_ISREG(target.st_mode):
        return None
    if options.compare is Compare.EXISTS:
        return Verdict.SKIP
    if source.st_size != target.st_size:
        return None
    if options.compare is Compare.CHECKSUM:
        return Verdict.CHECK if _may_replace(source, target, options) else Verdict.SKIP
    if options.compare is Compare.SIZE_MTIME and source.st_mtime_ns != target.st_mtime_ns:
        return None
    return settled(source, target, options)


def _may_replace(source: os.stat_result, target: os.stat_result, options: MoveOptions) -> bool:
    return _overwrite(Verdict.COPY, source, target, options) is Verdict.COPY


def settled(source: os.stat_result, target: os.stat_result, options: MoveOptions) -> Verdict:
    """Say what to do with a regular file whose content is right."""
    if not _attributes_differ(source, target, options):
        return Verdict.SKIP
    # A file with several names may be known elsewhere too: its attributes are not ours to change,
    # so it is replaced by a file of its own.
    return Verdict.UPDATE if target.st_nlink == 1 else Verdict.COPY


def _attributes_differ(
    source: os.stat_result, target: os.stat_result, options: MoveOptions
) -> bool:
    if Preserve.MODE in options.preserve and mode_of(source) != stat.S_IMODE(target.st_mode):
        return True
    if Preserve.OWNER in options.preserve and owner_of(source) != owner_of(target):
        return True
    # With compare=size the contents may differ: the source's time would hide that for ever.
    return (
        options.compare is Compare.CHECKSUM
        and Preserve.MTIME in options.preserve
        and source.st_mtime_ns != target.st_mtime_ns
    )


def mode_of(source: os.stat_result) -> int:
    """Return the permission bits to carry over."""
    return source.st_mode & MODE_BITS


def owner_of(status: os.stat_result) -> tuple[int, int]:
    """Return the user and the group."""
    return (status.st_uid, status.st_gid)


def links_differ(source: os.stat_result, target: os.stat_result, options: MoveOptions) -> bool:
    """Say whether two symbolic links that point to the same place differ in what is carried over.

    A link has no mode of its own.
    """
    if Preserve.OWNER in options.preserve and owner_of(source) != owner_of(target):
        return True
    return Preserve.MTIME in options.preserve and source.st_mtime_ns != target.st_mtime_ns
