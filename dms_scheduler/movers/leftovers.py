"""Removes temporary files of attempts of a task that ended before they could."""

from __future__ import annotations

import os
from contextlib import suppress

from dms_scheduler.movers.contract import MoveRequest
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.paths import READ_DIRECTORY, status_at
from dms_scheduler.movers.patterns import BACKUP_NAME, is_leftover


class Leftovers:
    """Sweeps directories of the destination, whose lock says that earlier attempts are dead."""

    def __init__(self, request: MoveRequest, guard: Guard) -> None:
        self._task_id = request.task_id
        self._epoch = request.epoch
        self._guard = guard
        self.expected = request.epoch > 1 and not request.options.dry_run

    def sweep(self, fd: int, folder: str) -> None:
        """Remove what was left in the directory `fd`, whose path is `folder`; raises OSError."""
        if not self.expected:
            return
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if self._is_ours(entry.name)]
        for name in names:
            self._guard.check()
            with suppress(FileNotFoundError, IsADirectoryError):  # gone, or somebody's folder
                os.unlink(name, dir_fd=fd)

    def sweep_below(self, source_fd: int, fd: int, folder: str) -> None:
        """Do so in the directories that only the destination has; raises OSError."""
        if not self.expected:
            return
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in names:
            reserved = not folder and name == BACKUP_NAME
            if not reserved and status_at(source_fd, name) is None:
                self._sweep_all(fd, name)

    def _sweep_all(self, above: int, name: str) -> None:
        with suppress(PermissionError, FileNotFoundError, NotADirectoryError):  # never entered
            fd = os.open(name, READ_DIRECTORY, dir_fd=above)
            try:
                self.sweep(fd, name)
                with os.scandir(fd) as entries:
                    below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
                for inner in below:
                    self._guard.check()
                    self._sweep_all(fd, inner)
            finally:
                os.close(fd)

    def _is_ours(self, name: str) -> bool:
        return is_leftover(name, self._task_id, self._epoch)
