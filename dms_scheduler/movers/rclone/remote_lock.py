"""Keeps the tasks of one machine apart that write to the same folder of a remote.

Remotes have no locks of their own. What is locked are bytes of a file of this machine, one that
stands for each folder: the destination's alone for its task, those above it shared. Workers on
other machines, and other names for the same storage, are not seen.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct
import tempfile
from contextlib import ExitStack

from dms_scheduler.movers.errors import DestinationBusy, MoverError
from dms_scheduler.movers.rclone.address import Address

_NAME = "dms-remote-locks"
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, process (0 for these locks)
_BUSY = {errno.EAGAIN, errno.EACCES}


def hold_remote(address: Address, config: str, stack: ExitStack, *, alone: bool) -> None:
    """Lock the folder `address` until `stack` is closed, or this process dies.

    `config` is the path of the config file that gives the remote its name. With `alone` no other
    task may write there; else (a single file) others may as well.

    Raises:
        DestinationBusy: another task writes there, above or below it.

    """
    fd = _open()
    stack.callback(os.close, fd)
    for depth in range(len(address.parts) + 1):
        last = depth == len(address.parts)
        kind = fcntl.F_WRLCK if last and alone else fcntl.F_RDLCK
        try:
            # Of the open file, not of the process: the tasks of one process are kept apart too.
            byte = _byte(config, address, depth)
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            message = f"another task writes to {address.text}; wait until it is done, or cancel it"
            raise DestinationBusy(message) from error


def _byte(config: str, address: Address, depth: int) -> int:
    """Return the byte that stands for the first `depth` components: 62 bits of a hash."""
    where = os.path.realpath(config)
    name = "/".join((where, address.name, str(address.absolute), *address.parts[:depth]))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2


def _open() -> int:
    path = os.path.join(tempfile.gettempdir(), f"{_NAME}-{os.geteuid()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    status = os.fstat(fd)
    private = status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
    if not (private and stat.S_ISREG(status.st_mode)):
        os.close(fd)
        message = f"{path} is not this user's alone; remove it, or set TMPDIR to another folder"
        raise MoverError(message, error_class="rclone_failed")
    return fd
