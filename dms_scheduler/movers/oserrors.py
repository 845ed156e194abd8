"""Turns operating system errors into the movers' stable error classes."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from dms_scheduler.movers.errors import MoverError, NoSpace


@dataclass(frozen=True, slots=True)
class OsFault:
    """What an errno means for a task: a word, whether trying again may help, whether all stops."""

    error_class: str
    retryable: bool = False
    fatal: bool = False


_UNKNOWN = OsFault("os_error")
_UNAVAILABLE = OsFault("storage_unavailable", retryable=True)
_BUSY = OsFault("busy", retryable=True)
_CONFLICT = OsFault("type_conflict")
_FAULTS = {
    errno.ENOSPC: OsFault("no_space", fatal=True),
    errno.EDQUOT: OsFault("quota_exceeded", fatal=True),
    errno.EROFS: OsFault("read_only", fatal=True),
    errno.EACCES: OsFault("permission_denied"),
    errno.EPERM: OsFault("permission_denied"),
    # Only ever of a source that was listed a moment ago, or a destination another program removed.
    errno.ENOENT: OsFault("changed_during_copy", retryable=True),
    errno.ENAMETOOLONG: OsFault("name_too_long"),
    errno.EILSEQ: OsFault("name_not_allowed"),
    errno.ELOOP: OsFault("symlink_refused"),
    errno.EFBIG: OsFault("file_too_large"),
    errno.EXDEV: OsFault("other_file_system"),
    errno.EISDIR: _CONFLICT,
    errno.ENOTDIR: _CONFLICT,
    errno.ENOTEMPTY: _BUSY,
    errno.EBUSY: _BUSY,
    errno.ETXTBSY: _BUSY,
    errno.EIO: OsFault("io_error", retryable=True),
    errno.ESTALE: _UNAVAILABLE,
    errno.ETIMEDOUT: _UNAVAILABLE,
    errno.ENOTCONN: _UNAVAILABLE,
    errno.EHOSTDOWN: _UNAVAILABLE,
    errno.EMFILE: OsFault("too_many_open_files", retryable=True),
    errno.ENFILE: OsFault("too_many_open_files", retryable=True),
    errno.ENOMEM: OsFault("out_of_memory", retryable=True),
}
_REMEDIES = {
    "no_space": "Free some space or choose another destination, then retry the task: "
    "it skips what is already copied.",
    "quota_exceeded": "Raise the quota or free some space, then retry the task: "
    "it skips what is already copied.",
    "read_only": "Make the destination writable or choose another one.",
    "permission_denied": "Let the worker's user read the source and write the destination.",
}


def classify(error: OSError) -> OsFault:
    """Return what `error` means for the task."""
    return _FAULTS.get(error.errno or 0, _UNKNOWN)


def reason_of(error: OSError) -> str:
    """Return the system's words for `error`, without a path (the path is reported beside it)."""
    return error.strerror or str(error)


def as_mover_error(error: OSError, path: str) -> MoverError:
    """Return the error that ends the whole run because of `error` at `path`."""
    fault = classify(error)
    remedy = _REMEDIES.get(fault.error_class, "")
    message = f"{path or '.'}: {reason_of(error)}. {remedy}".rstrip()
    kind = NoSpace if fault.error_class in {"no_space", "quota_exceeded"} else MoverError
    return kind(message, error_class=fault.error_class, retryable=fault.retryable)
