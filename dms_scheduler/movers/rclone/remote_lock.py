"""Keeps the tasks of one machine apart that write to the same folder of a remote.

Remotes have no locks of their own. What is locked are files of this machine that stand for the
folders: the destination's alone for its task, those above it shared. Workers on other machines,
and other names for the same storage, are not seen.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from contextlib import ExitStack, suppress

from dms_scheduler.movers.errors import DestinationBusy, MoverError
from dms_scheduler.movers.rclone.address import Address

_FOLDER = "dms-remote-locks"


def hold_remote(address: Address, stack: ExitStack, *, alone: bool) -> None:
    """Lock the folder `address` until `stack` is closed, or this process dies.

    With `alone` no other task may write there; else (a single file) others may as well.

    Raises:
        DestinationBusy: another task writes there, above or below it.

    """
    folder = _folder()
    stack.callback(os.close, folder)
    for depth in range(len(address.parts) + 1):
        last = depth == len(address.parts)
        name = "/".join((address.name, str(address.absolute), *address.parts[:depth]))
        key = hashlib.sha256(name.encode()).hexdigest()
        fd = os.open(key, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        stack.callback(os.close, fd)
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if last and alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another task writes to {address.text}; wait until it is done, or cancel it"
            raise DestinationBusy(message) from error


def _folder() -> int:
    path = os.path.join(tempfile.gettempdir(), f"{_FOLDER}-{os.geteuid()}")
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(fd)
        message = f"{path} is not this user's alone; remove it, or set TMPDIR to another folder"
        raise MoverError(message, error_class="rclone_failed")
    return fd
