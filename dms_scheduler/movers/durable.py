"""Makes sure that what was written has reached its storage."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable

from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.paths import READ_DIRECTORY

_WAIT_SECONDS = 0.1


class Devices:
    """One open directory for each file system that a move writes to (mounts may lie in a tree)."""

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}

    def add(self, fd: int) -> None:
        """Remember the file system of the directory `fd`, which the caller may close."""
        device = os.fstat(fd).st_dev
        if device not in self._fds:
            # Not a duplicate: that would share the lock, and a flush left behind would hold it.
            self._fds[device] = os.open(".", READ_DIRECTORY, dir_fd=fd)

    def flush(self, guard: Guard, sync: Callable[[int], None] | None = None) -> None:
        """Wait until all file systems are on storage; raises OSError if one could not be.

        The system call cannot be interrupted and may take minutes, so it has a thread that a
        cancelled run leaves behind: nothing is left to be undone by then.
        """
        errors: list[OSError] = []
        work = threading.Thread(
            target=_flush_all,
            args=(list(self._fds.values()), sync or _syncfs, errors),
            name="mover-sync",
            daemon=True,
        )
        work.start()
        while work.is_alive():
            guard.check()
            work.join(_WAIT_SECONDS)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Close the directories."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def _flush_all(fds: list[int], sync: Callable[[int], None], errors: list[OSError]) -> None:
    for fd in fds:
        try:
            sync(fd)
        except OSError as error:
            errors.append(error)


def _syncfs(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
