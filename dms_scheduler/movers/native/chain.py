"""Opens directories below one that is open, one component at a time, and never through a link."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.records import Identity
from dms_scheduler.movers.paths import READ_DIRECTORY, identity


class Chain:
    """The last directory that was asked for stays open, with those above it."""

    def __init__(self, top: int) -> None:
        """`top` stays the caller's."""
        self._top = top
        self._names: list[str] = []
        self._fds: list[int] = []
        self._path = ""

    def __enter__(self) -> Self:
        """Return it; all is closed at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all directories below the top."""
        self._shorten(0)

    def open(self, path: str) -> int:
        """Return the directory `path` ('' is the top), open until the next call.

        Raises:
            OSError: there is none, or it is not permitted.

        """
        if path != self._path or len(self._fds) != len(self._names):
            self._go(path.split("/") if path else [])
        return self._fds[-1] if self._fds else self._top

    def open_known(self, path: str, known: Identity) -> int:
        """Return the directory `path`, which must be the one that was met before.

        Raises:
            OSError: as `open`.
            FileProblem: another directory is there now.

        """
        fd = self.open(path)
        if identity(os.fstat(fd)) != known:
            message = "its directory was replaced by another one in mid-run"
            raise FileProblem(message, error_class="changed_during_copy")
        return fd

    def _go(self, names: list[str]) -> None:
        same = 0
        for had, wanted in zip(self._names, names, strict=False):
            if had != wanted:
                break
            same += 1
        self._shorten(same)
        for name in names[same:]:
            above = self._fds[-1] if self._fds else self._top
            self._fds.append(os.open(name, READ_DIRECTORY, dir_fd=above))
            self._names.append(name)
        self._path = "/".join(names)

    def _shorten(self, length: int) -> None:
        while len(self._fds) > length:
            os.close(self._fds.pop())
        del self._names[length:]
        self._path = "/".join(self._names)
