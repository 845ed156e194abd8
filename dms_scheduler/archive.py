"""The archive of removed tasks: a file of JSON lines a day, on disk before a task is removed."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from app.core.line_files import cut_partial_line, sync_folder, write_all
from task_state.export import ExportForm
from task_state.models import TaskRecord
from task_state.retention import Retention, Seen

_BUFFER_BYTES = 1024 * 1024


class ArchiveError(Exception):
    """The archive cannot take more: full, missing, or not writable. Nothing may be removed."""


class Archive:
    """Appends tasks to `tasks-<UTC date>.jsonl` in one folder, files of mode 0600.

    A file always ends with a whole line: what a full disk or a crash cut off is taken away again,
    and belongs to a step that removed nothing. A lock keeps a second writer out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def add(self, retention: Retention, tasks: list[TaskRecord]) -> list[Seen]:
        """Write the tasks and have them on disk; what was written of each, those left out that
        went meanwhile. Raises ArchiveError when it fails, and then the file is as it was."""
        try:
            with self._opened() as descriptor:
                start = os.fstat(descriptor).st_size
                try:
                    ids = [task.task_id for task in tasks]
                    seen = [await _append(descriptor, retention, task_id) for task_id in ids]
                    await _in_thread(os.fsync, descriptor)
                except BaseException:
                    os.ftruncate(descriptor, start)
                    raise
                return [each for each in seen if each is not None]
        except BlockingIOError as error:
            raise ArchiveError(
                f"another process writes the archive {self._folder}: wait for it, or end the one "
                "that is not wanted there"
            ) from error
        except OSError as error:
            raise ArchiveError(
                f"the archive {self._folder} cannot be written, so nothing is removed: "
                f"{error.strerror or error}; free space or mend the folder of DMS_ARCHIVE_DIR"
            ) from error

    @contextmanager
    def _opened(self) -> Generator[int]:
        path = self._folder / f"tasks-{datetime.now(UTC):%Y-%m-%d}.jsonl"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            cut_partial_line(descriptor)
            sync_folder(self._folder)
            yield descriptor
        finally:
            os.close(descriptor)


async def _append(descriptor: int, retention: Retention, task_id: str) -> Seen | None:
    start = os.fstat(descriptor).st_size
    export = retention.export(task_id, ExportForm.JSONL)
    waiting = bytearray()
    async for chunk in export.chunks():
        waiting += chunk
        if len(waiting) >= _BUFFER_BYTES:
            await _in_thread(write_all, descriptor, bytes(waiting))
            waiting.clear()
    await _in_thread(write_all, descriptor, bytes(waiting))
    if export.seen is None:
        os.ftruncate(
            descriptor, start
        )  # it went meanwhile: half of its log must not be its last word
    return export.seen


async def _in_thread(work: Callable[..., object], *arguments: object) -> None:
    """Do it in a thread, and never leave that behind: it would write to a file that is closed."""
    doing = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise
