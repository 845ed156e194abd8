"""Carries owner, extended attributes, mode and times from one inode to another, and compares them.

What is never carried, whatever a task asks for: setuid and setgid, and file capabilities, which
are the same privilege by another name (one at the destination counts as a difference and is taken
away); the rest of `security.*`, whose labels the destination's own policy gives; and attributes
that describe one file system to itself (`system.*` but for POSIX ACLs, `btrfs.*` and the like).
`xattrs` therefore means `user.*`, for root also `trusted.*`, and together with `mode` POSIX ACLs,
which are permissions. The destination gets exactly these: what it has beyond them is removed.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from dms_scheduler.movers.contract import Preserve
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.compare import mode_of, owner_of

Preserved = frozenset[Preserve]

_NAMESPACES = ("user.", "trusted.")
_ACLS = frozenset({"system.posix_acl_access", "system.posix_acl_default"})
_CAPABILITY = "security.capability"
_NONE_HERE = {errno.EOPNOTSUPP, errno.ENOSYS}
_TOO_LARGE = {errno.E2BIG, errno.ERANGE, errno.ENAMETOOLONG}
_NO_OWNER = {errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}  # EINVAL: not in this map


class Spot(NamedTuple):
    """An inode, as the calls for attributes take it."""

    at: int | str
    follows: bool = True


def opened(fd: int) -> Spot:
    """Return the spot of an open file or directory."""
    return Spot(fd)


def place(fd: int) -> Spot:
    """Return the spot of a descriptor opened with O_PATH, of a symbolic link too.

    The path leads to that very inode and cannot be swapped.
    """
    return Spot(f"/proc/self/fd/{fd}")


def entry(fd: int, name: str) -> Spot:
    """Return the spot of `name` in the directory `fd`, of a link itself.

    Good for everything but a mode: that needs the inode held by a descriptor.
    """
    return Spot(f"/proc/self/fd/{fd}/{name}", follows=False)


def carry(
    preserve: Preserved,
    source: Spot,
    status: os.stat_result,
    target: Spot,
    had: os.stat_result | None = None,
) -> None:
    """Give `target` what `preserve` asks for of `source`, which has `status`.

    `had` is the status of a target that was there before; what it has already is left alone.

    Raises:
        OSError: the system refused.
        FileProblem: the owner is not ours to give, or the target cannot keep the attributes.

    """
    # In this order: a new owner takes capabilities away, an ACL changes the mode.
    if Preserve.OWNER in preserve and (had is None or owner_of(status) != owner_of(had)):
        _give(target, *owner_of(status))
    mode = _mode_due(preserve, status, had)
    if Preserve.XATTRS in preserve and xattrs_differ(preserve, source, target):
        loosened = _loosen(target, had)
        _carry_xattrs(preserve, source, target)
        # An ACL, or its end, may have changed it.
        mode = _mode_due(preserve, status, None) if Preserve.MODE in preserve else loosened
    if mode is not None:
        _set_mode(target, mode)
    # The time of access alone is no difference: to read the source is to change it.
    if Preserve.MTIME in preserve and (had is None or had.st_mtime_ns != status.st_mtime_ns):
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(target.at, ns=times, follow_symlinks=target.follows)


def _give(target: Spot, user: int, group: int) -> None:
    try:
        os.chown(target.at, user, group, follow_symlinks=target.follows)
    except OSError as error:
        if error.errno not in _NO_OWNER:
            raise
        message = (
            f"owner {user}:{group} cannot be given to the copy: that needs a worker that runs as "
            "root and a file system that keeps owners; or leave owner out of preserve"
        )
        raise FileProblem(message, error_class="owner_not_permitted", retryable=False) from error


def _mode_due(
    preserve: Preserved, status: os.stat_result, had: os.stat_result | None
) -> int | None:
    """Return the mode to set, None if there is none or nothing to change."""
    if Preserve.MODE not in preserve or stat.S_ISLNK(status.st_mode):
        return None
    mode = mode_of(status)
    return None if had is not None and stat.S_IMODE(had.st_mode) == mode else mode


def _loosen(target: Spot, had: os.stat_result | None) -> int | None:
    """Let this user write attributes of a read-only file of its own; return the mode it had."""
    if had is None or had.st_mode & stat.S_IWUSR or stat.S_ISLNK(had.st_mode):
        return None
    if os.geteuid() in {0, had.st_uid}:
        _set_mode(target, stat.S_IMODE(had.st_mode) | stat.S_IWUSR)
        return stat.S_IMODE(had.st_mode)
    return None


def _set_mode(target: Spot, mode: int) -> None:
    """Set the mode of an inode that a descriptor holds: of a name it could be that of a link, and
    this call follows it out of the tree."""
    if not target.follows:
        raise OSError(errno.ELOOP, "a mode is set by descriptor only")
    os.chmod(target.at, mode)


def xattrs_differ(preserve: Preserved, source: Spot, target: Spot) -> bool:
    """Say whether `target` lacks, or has beyond its due, an extended attribute of `source`.

    Costs a call for each, so ask only with `xattrs`; raises OSError.
    """
    wanted = _carried(preserve, _names(source))
    have = _names(target)
    if _CAPABILITY in have or wanted != _carried(preserve, have):
        return True
    return any(_value(source, name) != _value(target, name) for name in wanted)


def _carry_xattrs(preserve: Preserved, source: Spot, target: Spot) -> None:
    wanted = _carried(preserve, _names(source))
    have = _names(target)
    for name in sorted(_carried(preserve, have) - wanted) + [n for n in have if n == _CAPABILITY]:
        _remove(target, name)
    for name in sorted(wanted):
        value = _value(source, name)
        if value is None:  # gone since it was listed
            _remove(target, name)
        elif _value(target, name) != value:
            _set(target, name, value)


def _carried(preserve: Preserved, names: frozenset[str]) -> frozenset[str]:
    acls = _ACLS if Preserve.MODE in preserve else frozenset[str]()
    return frozenset(name for name in names if name.startswith(_NAMESPACES) or name in acls)


def _names(spot: Spot) -> frozenset[str]:
    try:
        return frozenset(os.listxattr(spot.at, follow_symlinks=spot.follows))
    except OSError as error:
        if error.errno in _NONE_HERE:
            return frozenset()
        raise


def _value(spot: Spot, name: str) -> bytes | None:
    try:
        return os.getxattr(spot.at, name, follow_symlinks=spot.follows)
    except OSError as error:
        if error.errno == errno.ENODATA or error.errno in _NONE_HERE:
            return None
        raise


def _remove(spot: Spot, name: str) -> None:
    try:
        os.removexattr(spot.at, name, follow_symlinks=spot.follows)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def _set(target: Spot, name: str, value: bytes) -> None:
    try:
        os.setxattr(target.at, name, value, follow_symlinks=target.follows)
    except OSError as error:
        problem = _problem(error, target, name, len(value))
        if problem is None:
            raise
        raise problem from error


def _problem(error: OSError, target: Spot, name: str, size: int) -> FileProblem | None:
    """Return what a refused attribute means for its path, None if the errno says it all."""
    if error.errno in _NONE_HERE:
        message = (
            f"the destination's file system keeps no attribute {name}; use one that does, or "
            "leave xattrs out of preserve"
        )
        return FileProblem(message, error_class="xattrs_not_supported", retryable=False)
    # ext4 says ENOSPC for attributes that do not fit into one block: that is no full disk.
    if error.errno in _TOO_LARGE or (error.errno == errno.ENOSPC and not _full(target)):
        message = (
            f"the destination's file system has no room for the attribute {name} of {size} bytes; "
            "use one that has, or leave xattrs out of preserve"
        )
        return FileProblem(message, error_class="xattrs_too_large", retryable=False)
    return None


def _full(target: Spot) -> bool:
    return target.follows and os.statvfs(target.at).f_bavail == 0
