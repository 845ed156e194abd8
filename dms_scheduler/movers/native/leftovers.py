"""Removes what copies that did not end have left: of earlier attempts of a task, and forgotten."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from dms_scheduler.movers.contract import MoveRequest
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.paths import READ_DIRECTORY, status_at
from dms_scheduler.movers.patterns import BACKUP_NAME, is_leftover, is_part, is_temporary

FORGOTTEN_SECONDS = 7 * 86_400
"""How long a copy that did not end must lie untouched before a task of another id removes it."""


class Leftovers:
    """Sweeps directories of the destination, whose lock says that earlier attempts are dead."""

    def __init__(self, request: MoveRequest, guard: Guard) -> None:
        self._task_id = request.task_id
        self._epoch = request.epoch
        self._dry = request.options.dry_run
        self._again = request.epoch > 1 and not self._dry
        self._guard = guard
        self._forgotten_before = time.time() - FORGOTTEN_SECONDS

    def sweep(self, fd: int) -> set[str]:
        """Remove what was left in the directory `fd`, but for big files' copies of this task.

        Those are returned: what the plan does not want of them is for `remove`. Raises OSError.
        """
        if self._dry:
            return set()
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".dms-")]
        parts = {name for name in names if is_part(name, self._task_id)}
        self.remove(fd, {name for name in names if name not in parts and self._is_waste(fd, name)})
        return parts

    def remove(self, fd: int, names: set[str]) -> None:
        """Remove files of the directory `fd`; raises OSError."""
        for name in names:
            self._guard.check()
            with suppress(FileNotFoundError, IsADirectoryError):  # gone, or somebody's folder
                os.unlink(name, dir_fd=fd)

    def _is_waste(self, fd: int, name: str) -> bool:
        if is_leftover(name, self._task_id, self._epoch):
            return self._again
        if not is_temporary(name):
            return False
        status = status_at(fd, name)
        return (
            status is not None
            and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode))
            # Not its time of writing: a copy has its source's right before it gets its name.
            and status.st_ctime < self._forgotten_before
        )

    def sweep_doomed(self, fd: int) -> None:
        """Sweep a directory that only the destination has; raises OSError."""
        self.remove(fd, self.sweep(fd))

    def sweep_below(self, source_fd: int, fd: int, folder: str) -> None:
        """Sweep the directories below `fd` that only the destination has, after a first attempt.

        Raises OSError.
        """
        if not self._again:
            return
        for name in _directories(fd):
            reserved = not folder and name == BACKUP_NAME
            if not reserved and status_at(source_fd, name) is None:
                self._sweep_all(fd, name)

    def _sweep_all(self, above: int, name: str) -> None:
        # Where this user may not look, or somebody swaps what is there, it has left nothing.
        with suppress(PermissionError, FileNotFoundError, NotADirectoryError):
            fd = os.open(name, READ_DIRECTORY, dir_fd=above)
            try:
                self.sweep_doomed(fd)
                for inner in _directories(fd):
                    self._guard.check()
                    self._sweep_all(fd, inner)
            finally:
                os.close(fd)


def _directories(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
