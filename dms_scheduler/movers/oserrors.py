"""Turns operating system errors into the movers' stable error classes."""

from __future__ import annotations

import errno

from dms_scheduler.movers.errors import MoverError
from dms_scheduler.movers.faults import Fault, ending

_UNKNOWN = Fault("os_error")
_UNAVAILABLE = Fault("storage_unavailable", retryable=True)
_BUSY = Fault("busy", retryable=True)
_CONFLICT = Fault("type_conflict")
_FAULTS = {
    errno.ENOSPC: Fault("no_space", fatal=True),
    errno.EDQUOT: Fault("quota_exceeded", fatal=True),
    errno.EROFS: Fault("read_only", fatal=True),
    errno.EACCES: Fault("permission_denied"),
    errno.EPERM: Fault("permission_denied"),
    # Only ever of a source that was listed a moment ago, or a destination another program removed.
    errno.ENOENT: Fault("changed_during_copy", retryable=True),
    errno.ENAMETOOLONG: Fault("name_too_long"),
    errno.EILSEQ: Fault("name_not_allowed"),
    errno.ELOOP: Fault("symlink_refused"),
    errno.EFBIG: Fault("file_too_large"),
    errno.EXDEV: Fault("other_file_system"),
    errno.EISDIR: _CONFLICT,
    errno.ENOTDIR: _CONFLICT,
    errno.ENOTEMPTY: _BUSY,
    errno.EBUSY: _BUSY,
    errno.ETXTBSY: _BUSY,
    errno.EIO: Fault("io_error", retryable=True),
    errno.ESTALE: _UNAVAILABLE,
    errno.ETIMEDOUT: _UNAVAILABLE,
    errno.ENOTCONN: _UNAVAILABLE,
    errno.EHOSTDOWN: _UNAVAILABLE,
    errno.EMFILE: Fault("too_many_open_files", retryable=True),
    errno.ENFILE: Fault("too_many_open_files", retryable=True),
    errno.ENOMEM: Fault("out_of_memory", retryable=True),
}
_REMEDIES = {
    "no_space": "Free some space or choose another destination, then retry the task: "
    "it skips what is already copied.",
    "quota_exceeded": "Raise the quota or free some space, then retry the task: "
    "it skips what is already copied.",
    "read_only": "Make the destination writable or choose another one.",
    "permission_denied": "Let the worker's user read the source and write the destination.",
}


def classify(error: OSError) -> Fault:
    """Return what `error` means for the task."""
    return _FAULTS.get(error.errno or 0, _UNKNOWN)


def reason_of(error: OSError) -> str:
    """Return the system's words for `error`, without a path (the path is reported beside it)."""
    return error.strerror or str(error)


def as_mover_error(error: OSError, path: str) -> MoverError:
    """Return the error that ends the whole run because of `error` at `path`."""
    return ending(path or ".", reason_of(error), classify(error), _REMEDIES)
