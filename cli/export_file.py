"""The file of an export: whole lines only, on disk before anything that is in it is removed."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from app.core.line_files import cut_partial_line, sync_folder, write_all
from cli.errors import CliError, ExitCode

_FIRST = re.compile(rb'\{"task_id":"([A-Za-z0-9._-]{1,128})"')
_HEAD_BYTES = 160
STDOUT = "-"


class LineIds:
    """The ids of the tasks whose whole lines have passed by; each begins with its task's id."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self._head = b""

    def take(self, data: bytes) -> None:
        """The next piece; lines may be split anywhere."""
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            self._grow(data[at:end])
            if found := _FIRST.match(self._head):
                self.ids.add(found[1].decode())
            self._head = b""
            at = end + 1
        self._grow(data[at:])

    def _grow(self, data: bytes) -> None:
        self._head += data[: max(_HEAD_BYTES - len(self._head), 0)]


class ExportFile:
    """A file that an export is written to, step by step; `-` is stdout.

    It is new, unless `append` says otherwise. A step that fails, or is interrupted, is taken back.
    """

    def __init__(self, name: str, *, append: bool = False) -> None:
        self._name = name
        self._append = append
        self._descriptor = -1

    def __enter__(self) -> Self:
        if self._name == STDOUT:
            self._descriptor = os.dup(sys.stdout.fileno())
            return self
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        flags |= os.O_APPEND if self._append else os.O_EXCL
        try:
            self._descriptor = os.open(self._name, flags, 0o600)
            if self._append:
                cut_partial_line(self._descriptor)
            sync_folder(Path(self._name).parent)
        except FileExistsError:
            raise CliError(
                f"{self._name} is there already",
                "name a new file, or say --append to add to it",
                ExitCode.USAGE,
            ) from None
        except OSError as error:
            raise CliError(f"{self._name} cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def add(self, pieces: Iterator[bytes]) -> set[str]:
        """Write what comes and have it on disk; the ids of the tasks that are in it."""
        lines, start = LineIds(), self._size()
        try:
            for piece in pieces:
                write_all(self._descriptor, piece)
                lines.take(piece)
            self._sync()
        except BaseException as error:
            self._cut(start)
            if isinstance(error, OSError):
                raise CliError(
                    f"{self._name} cannot be written: {error.strerror}",
                    "what was written before is whole; free space, and go on with --append",
                ) from error
            raise
        return lines.ids

    def _size(self) -> int:
        return 0 if self._name == STDOUT else os.fstat(self._descriptor).st_size

    def _cut(self, size: int) -> None:
        if self._name != STDOUT:
            with suppress(OSError):  # the first error is the one to tell
                os.ftruncate(self._descriptor, size)
                os.lseek(self._descriptor, size, os.SEEK_SET)

    def _sync(self) -> None:
        if self._name != STDOUT:
            os.fsync(self._descriptor)
