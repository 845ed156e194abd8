"""Compares the contents of files by several threads: small ones together, a large one in parts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from dms_scheduler.movers.contract import MoveOptions
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.native.crew import Crew
from dms_scheduler.movers.native.filecopy import open_file
from dms_scheduler.movers.native.ranges import ReadLimit, fingerprint, same_range
from dms_scheduler.movers.native.session import Session
from dms_scheduler.movers.native.sides import Pair
from dms_scheduler.movers.native.tree import Folder

PART_BYTES = 64 << 20
"""A larger file is compared in parts of this size, by all threads at once."""
_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
_LONGEST_PAUSE = 2.0
_CHANGED = "the file changed while it was read; check again when nobody writes to it"
Job = Callable[[], None]
Ends = tuple[int, int]


class Matcher:
    """Tells of each pair whether the contents are the same; entered for as long as pairs come.

    A file that changes while it is read is read again, and is a failed path in the end.
    """

    def __init__(
        self,
        session: Session,
        options: MoveOptions,
        limit: ReadLimit,
        tell: Callable[[Pair, bool], None],
    ) -> None:
        """`tell` is called from several threads."""
        self._session = session
        self._retries = options.retries
        self._limit = limit
        self._tell = tell
        self._batch: list[Pair] = []
        self._batch_bytes = 0
        self._read = 0
        self._lock = threading.Lock()
        self._crew: Crew[_Work] = Crew(
            options.transfers, session.guard, lambda work: work.run(), lambda work: work.drop()
        )

    @property
    def read(self) -> int:
        """How many bytes were read so far, of both ends together."""
        return self._read

    @contextmanager
    def running(self) -> Generator[None]:
        """Take pairs while entered; leaving waits until each is told, or after an error dropped."""
        with self._crew:
            try:
                yield
                self._flush()
            except BaseException:
                for pair in self._batch:
                    pair.item.folder.release()
                raise

    def compare(self, pair: Pair) -> None:
        """Take a pair; its folder need not stay open."""
        size = pair.item.status.st_size
        self._session.meter.working_on(pair.item.path)
        if size > PART_BYTES:
            self._submit_parts(pair)
            return
        if self._batch and self._batch[0].item.folder is not pair.item.folder:
            self._flush()
        self._batch.append(pair)
        pair.item.folder.retain()
        self._batch_bytes += size
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            folders = [pair.item.folder for pair in batch]
            self._crew.submit(_Work(lambda: self._settle_all(batch), folders))

    def _submit_parts(self, pair: Pair) -> None:
        large = _Large(self, pair)
        for part in range(large.parts):
            folder = pair.item.folder.retain()
            self._crew.submit(_Work(lambda part=part: large.compare(part), [folder], large.drop))

    def _settle_all(self, batch: list[Pair]) -> None:
        for pair in batch:
            self.settle(pair)

    def settle(self, pair: Pair, *, attempt: int = 0) -> None:
        """Compare a file from its beginning to its end, again if it changes, and tell."""
        path = pair.item.path
        self._session.meter.working_on(path)
        try:
            while (same := self._same(pair)) is None:
                if attempt >= self._retries:
                    raise FileProblem(_CHANGED, error_class="changed_during_copy")
                self._session.guard.pause(min(_LONGEST_PAUSE, 0.1 * 2**attempt))
                attempt += 1
        except (OSError, FileProblem) as error:
            self._session.fail(path, error)
        else:
            self._tell(pair, same)

    def _same(self, pair: Pair) -> bool | None:
        """Compare once; None if one of the files changed meanwhile."""
        source = open_file(pair.item.folder.source_fd, pair.item.name)
        try:
            target = open_file(pair.target_fd, pair.item.target)
            try:
                return self._same_ends((source, target))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _same_ends(self, ends: Ends) -> bool | None:
        first, second = before = [fingerprint(end) for end in ends]
        size = first[0]
        same = size == second[0] and self.same_part(ends, 0, size)
        return same if [fingerprint(end) for end in ends] == before else None

    def same_part(self, ends: Ends, start: int, size: int) -> bool:
        """Compare a range of two open files, and count what was read."""
        same, read = same_range(ends, start, size, self._limit.wait, self._session.meter.moved)
        with self._lock:
            self._read += read
        if read != 2 * size:
            self._session.meter.expect_more(read - 2 * size)
        return same

    def tell_large(
        self, pair: Pair, error: OSError | FileProblem | None, same: bool | None
    ) -> None:
        """Tell of a file that was compared in parts; once more as a whole if it changed."""
        if error is not None:
            self._session.fail(pair.item.path, error)
        elif same is None:
            self.settle(pair, attempt=1)
        else:
            self._tell(pair, same)


@dataclass(frozen=True, slots=True)
class _Work:
    """Something for the crew; its folders are retained until it is done or dropped."""

    job: Job
    folders: list[Folder]
    dropped: Job = lambda: None

    def run(self) -> None:
        try:
            self.job()
        finally:
            self._release()

    def drop(self) -> None:
        self.dropped()
        self._release()

    def _release(self) -> None:
        for folder in self.folders:
            folder.release()


class _Large:
    """A file that several threads compare; the last one tells."""

    def __init__(self, matcher: Matcher, pair: Pair) -> None:
        self._matcher = matcher
        self._pair = pair
        self._size = pair.item.status.st_size
        self.parts = -(-self._size // PART_BYTES)
        self._left = self.parts
        self._same = True
        self._error: OSError | FileProblem | None = None
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._ends: Ends | None = None
        self._before: list[tuple[int, ...]] = []

    def compare(self, part: int) -> None:
        """Compare one part, unless another one differs already; after the last one tell."""
        try:
            self._compare(part)
        except (OSError, FileProblem) as error:
            self._error = error
        except BaseException:
            self.drop()
            raise
        if self._is_last():
            self._tell()

    def drop(self) -> None:
        """Give up a part."""
        if self._is_last():
            self._stack.close()

    def _compare(self, part: int) -> None:
        ends = self._opened()
        start = part * PART_BYTES
        size = min(PART_BYTES, self._size - start)
        if self._same and not self._matcher.same_part(ends, start, size):
            self._same = False

    def _opened(self) -> Ends:
        with self._lock:
            if self._ends is None:
                item = self._pair.item
                source = open_file(item.folder.source_fd, item.name)
                self._stack.callback(os.close, source)
                target = open_file(self._pair.target_fd, item.target)
                self._stack.callback(os.close, target)
                self._ends = (source, target)
                self._before = [fingerprint(end) for end in self._ends]
            return self._ends

    def _is_last(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0

    def _tell(self) -> None:
        with self._stack:
            same = self._same if self._is_steady() else None
        self._matcher.tell_large(self._pair, self._error, same)

    def _is_steady(self) -> bool:
        """Say whether both files are what they were, and of the size that was expected."""
        if self._ends is None:
            return False
        after = [fingerprint(end) for end in self._ends]
        return after == self._before and {size for size, *_ in after} == {self._size}
