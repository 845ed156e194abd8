"""Puts one file or link at the destination: temporary name, attributes, check, then its name.

Content is copied by `content` (by `sparse` where holes are to be kept), attributes by `attributes`.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from contextlib import suppress
from typing import NamedTuple

from dms_scheduler.movers.contract import (
    Compare,
    Fsync,
    MoveOptions,
    MoveRequest,
    Overwrite,
    Preserve,
    Verify,
)
from dms_scheduler.movers.errors import FileProblem
from dms_scheduler.movers.guard import Brake
from dms_scheduler.movers.native import attributes
from dms_scheduler.movers.native.content import copy_content, digest_from_storage
from dms_scheduler.movers.native.meter import Ledger
from dms_scheduler.movers.native.spans import digest_range
from dms_scheduler.movers.native.sparse import (
    copy_with_holes,
    has_holes,
    sparse_digest,
    sparse_digest_from_storage,
)
from dms_scheduler.movers.native.throttle import TokenBucket, chunk_size
from dms_scheduler.movers.native.tree import Item
from dms_scheduler.movers.oserrors import classify
from dms_scheduler.movers.paths import identity, status_at
from dms_scheduler.movers.patterns import temporary_name

# Not blocking: the file may have become a FIFO since it was listed.
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_LONGEST_PAUSE = 2.0
_NAMES_TRIED = 1000
_SLICE_SECONDS = 0.05
_TICK_NS = 20_000_000
_MOST_LOOKS = 3
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Ends(NamedTuple):
    """A directory at both ends, open; `path` is relative to their tops."""

    path: str
    source_fd: int
    target_fd: int


class TemporaryNames:
    """Names for temporary files that no other process of this move uses."""

    def __init__(self, request: MoveRequest, first: int = 1, step: int = 1) -> None:
        """Processes that share a move have different `first`s and the same `step`."""
        self._task_id = request.task_id
        self._epoch = request.epoch
        self._numbers = itertools.count(first, step)

    def next(self) -> tuple[int, str]:
        """Return a new one and its number."""
        number = next(self._numbers)
        return number, temporary_name(self._task_id, self._epoch, number)


class FilePace:
    """Applies the brake and the bandwidth limit to the chunks of one file, and counts them."""

    def __init__(
        self, brake: Brake, ledger: Ledger, bucket: TokenBucket | None, chunk: int = 1 << 20
    ) -> None:
        """`chunk` bounds how many bytes are moved at once; a limit may ask for fewer."""
        self.moved = 0
        self._chunk = chunk
        self._brake = brake
        self._ledger = ledger
        self._bucket = bucket

    @property
    def chunk(self) -> int:
        """How many bytes to move at once."""
        if self._bucket is None or not self._bucket.rate:
            return self._chunk
        return min(self._chunk, chunk_size(self._bucket.rate))

    def check(self) -> None:
        """Raise to stop."""
        self._brake.check()

    def before(self, size: int) -> None:
        """Wait for the bandwidth limit."""
        if self._bucket is None or not self._bucket.rate:
            self._brake.check()
            return
        rate, left = self._bucket.rate, self._bucket.reserve(size)
        while left > _SLICE_SECONDS and rate == self._bucket.rate:
            self._brake.pause(_SLICE_SECONDS)
            left -= _SLICE_SECONDS
        self._brake.pause(min(left, _SLICE_SECONDS))

    def after(self, size: int) -> None:
        """Count what was moved."""
        self.moved += size
        self._ledger.moved(size)


class FileCopier:
    """Copies files and links, for one thread of a process or, with a meter, for several."""

    def __init__(
        self,
        request: MoveRequest,
        brake: Brake,
        ledger: Ledger,
        bucket: TokenBucket,
        names: TemporaryNames | None = None,
    ) -> None:
        self._options: MoveOptions = request.options
        self._brake = brake
        self._ledger = ledger
        self._bucket = bucket
        self.names = names or TemporaryNames(request)
        self._hashed = request.options.verify is Verify.TRANSFERRED
        self.new_mode = 0o600 if Preserve.MODE in request.options.preserve else 0o666

    def pace(self) -> FilePace:
        """Return the pace for one file."""
        return FilePace(self._brake, self._ledger, self._bucket)

    def copy(self, ends: Ends, name: str, target: str) -> int | None:
        """Copy a regular file, again if it failed in a way that may pass; return its size.

        None says that what is at the destination by now is to stay (overwrite never, newer).

        Raises:
            OSError, FileProblem: it could not be copied, `retries` times over.

        """
        for attempt in itertools.count():
            pace = self.pace()
            try:
                return self._copy_once(ends, name, target, pace)
            except (OSError, FileProblem) as error:
                if attempt >= self._options.retries or not may_pass(error):
                    raise
            self._ledger.expect_more(pace.moved)
            self._brake.pause(retry_pause(attempt))
        return None

    def _copy_once(self, ends: Ends, name: str, target: str, pace: FilePace) -> int | None:
        source, status = open_with_status(ends.source_fd, name)
        try:
            temporary, fd = self._create(ends.target_fd)
            try:
                try:
                    self._fill(source, status, fd, pace)
                finally:
                    os.close(fd)  # may tell of a write that failed: before it has its name
                placed = self.place(ends.target_fd, temporary, target, status)
            except BaseException:
                self.discard(ends.target_fd, temporary)
                raise
        finally:
            os.close(source)
        if placed:
            self._ledger.hold(0)
            return status.st_size
        self.discard(ends.target_fd, temporary)
        return None

    def _create(self, target_fd: int) -> tuple[str, int]:
        for _ in range(_NAMES_TRIED):
            number, name = self.names.next()
            self._ledger.hold(number)  # before it is there: who kills this process removes it
            try:
                fd = os.open(name, NEW_FILE, self.new_mode, dir_fd=target_fd)
            except FileExistsError:
                continue  # somebody else's by that name: neither followed nor touched
            return name, fd
        raise FileExistsError(errno.EEXIST, "no name is left for a temporary file")

    def _fill(self, source: int, status: os.stat_result, target: int, pace: FilePace) -> None:
        size = status.st_size
        if Preserve.SPARSE in self._options.preserve and has_holes(status):
            copied = copy_with_holes(source, target, size, pace, hashed=self._hashed)
            reread = sparse_digest_from_storage(target, size, pace) if self._hashed else None
        else:
            copied = copy_content(source, target, size, pace, hashed=self._hashed)
            reread = digest_from_storage(target, copied.size, pace) if self._hashed else None
        self.complete(source, status, target, copied.size)
        if reread != copied.digest:
            raise mismatch()

    def complete(self, source: int, status: os.stat_result, target: int, size: int) -> None:
        """Refuse a source that changed since `status`; give the copy its attributes."""
        if size != status.st_size or changed(status, os.fstat(source)):
            raise changed_while_read()
        attributes.carry(
            self._options.preserve, attributes.opened(source), status, attributes.opened(target)
        )
        if self._options.fsync is Fsync.EACH:
            os.fsync(target)

    def place(self, target_fd: int, temporary: str, target: str, status: os.stat_result) -> bool:
        """Give a finished copy its name, the last step; return False if what is there stays.

        Raises:
            OSError: it could not be renamed; and whatever stops the run.

        """
        if self._options.overwrite is Overwrite.NEVER:
            return self._place_new(target_fd, temporary, target)
        if self._options.overwrite is Overwrite.NEWER:
            there = status_at(target_fd, target)
            if there is not None and there.st_mtime_ns >= status.st_mtime_ns:
                return False
        self._brake.check()
        os.rename(temporary, target, src_dir_fd=target_fd, dst_dir_fd=target_fd)
        return True

    def _place_new(self, target_fd: int, temporary: str, target: str) -> bool:
        self._brake.check()
        try:
            os.link(
                temporary,
                target,
                src_dir_fd=target_fd,
                dst_dir_fd=target_fd,
                follow_symlinks=False,
            )
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # Between the look and the rename somebody could still come: the best there is here.
            if status_at(target_fd, target) is not None:
                return False
            os.rename(temporary, target, src_dir_fd=target_fd, dst_dir_fd=target_fd)
            return True
        os.unlink(temporary, dir_fd=target_fd)
        return True

    def discard(self, target_fd: int, temporary: str) -> None:
        """Remove a temporary file."""
        # The error that led here is the one to hear of; what stays is removed by the next attempt.
        with suppress(OSError):
            os.unlink(temporary, dir_fd=target_fd)
        self._ledger.hold(0)

    def link(self, ends: Ends, name: str, target: str) -> bool:
        """Put the same symbolic link at the destination; return False if it was there already.

        Raises:
            OSError: it could not be read or made.
            FileProblem: it is no link any more.

        """
        status = os.stat(name, dir_fd=ends.source_fd, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            # A mode must not be taken for a link's: there is no way to set one without following.
            message = "the link was replaced while it was looked at"
            raise FileProblem(message, error_class="changed_during_copy")
        points_to = os.readlink(name, dir_fd=ends.source_fd)
        _, temporary = self.names.next()
        os.symlink(points_to, temporary, dir_fd=ends.target_fd)
        try:
            self._carry_to_link(ends, name, status, temporary)
            placed = self.place(ends.target_fd, temporary, target, status)
        except BaseException:
            self.discard(ends.target_fd, temporary)
            raise
        if not placed:
            self.discard(ends.target_fd, temporary)
        return placed

    def _carry_to_link(self, ends: Ends, name: str, status: os.stat_result, temporary: str) -> None:
        held = os.open(temporary, os.O_PATH | os.O_NOFOLLOW, dir_fd=ends.target_fd)
        try:
            made = os.fstat(held)
            if not stat.S_ISLNK(made.st_mode) or made.st_nlink != 1:
                # Else who may write here could have the owner of any file changed.
                message = "the link that was just made was replaced by something else"
                raise FileProblem(message, error_class="changed_during_copy")
            attributes.carry(
                self._options.preserve,
                attributes.entry(ends.source_fd, name),
                status,
                attributes.place(held),
            )
        finally:
            os.close(held)

    def update(
        self, ends: Ends, name: str, target: str, compared: os.stat_result | None = None
    ) -> None:
        """Give what is at the destination the attributes of its source.

        `compared` is what the source was when its content was found to be the same.

        Raises:
            OSError: the system refused.
            FileProblem: one of them changed since they were compared.

        """
        # Opened as mere places, so that no permission of the files' own is needed.
        source = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=ends.source_fd)
        try:
            there = os.open(target, os.O_PATH | os.O_NOFOLLOW, dir_fd=ends.target_fd)
            try:
                self._update(source, there, compared)
            finally:
                os.close(there)
        finally:
            os.close(source)

    def _update(self, source: int, target: int, compared: os.stat_result | None) -> None:
        wanted, had = os.fstat(source), os.fstat(target)
        if stat.S_IFMT(wanted.st_mode) != stat.S_IFMT(had.st_mode) or had.st_nlink != 1:
            message = "the destination changed while it was looked at"
            raise FileProblem(message, error_class="changed_during_copy")
        preserve = self._options.preserve
        if self._has_other_content(wanted, had, compared):
            # The source's new time on its old content would hide that from every later run.
            message = "the file changed since it was compared; retry when nobody writes to it"
            raise FileProblem(message, error_class="changed_during_copy")
        if self._options.compare is Compare.SIZE and stat.S_ISREG(wanted.st_mode):
            # Its content may differ, which the source's time would hide from every later run.
            preserve -= {Preserve.MTIME}
        self._brake.check()
        attributes.carry(
            preserve,
            attributes.place(source),
            wanted,
            attributes.place(target),
            had,
        )

    def _has_other_content(
        self, wanted: os.stat_result, had: os.stat_result, compared: os.stat_result | None
    ) -> bool:
        """Say whether a regular source may have changed since it counted as the same."""
        if not stat.S_ISREG(wanted.st_mode):
            return False
        if compared is not None:
            return identity(wanted) != identity(compared) or changed(compared, wanted)
        by_time = self._options.compare is Compare.SIZE_MTIME
        return wanted.st_size != had.st_size or (by_time and wanted.st_mtime_ns != had.st_mtime_ns)

    def same_content(self, item: Item, target_fd: int) -> bool:
        """Compare a file with the destination's by hash; raises OSError."""
        return self.equal(item.folder.source_fd, item.name, target_fd, item.target)

    def equal(self, source_fd: int, name: str, target_fd: int, target: str) -> bool:
        """Compare two files by hash; raises OSError."""
        pace = self.pace()
        source = open_file(source_fd, name)
        try:
            there = open_file(target_fd, target)
            try:
                status, other = os.fstat(source), os.fstat(there)
                size = status.st_size
                if size != other.st_size:
                    return False
                if has_holes(status) or has_holes(other):  # which may be terabytes
                    return sparse_digest(source, 0, size, pace) == sparse_digest(
                        there, 0, size, pace
                    )
                return digest_range(source, 0, size, pace) == digest_range(there, 0, size, pace)
            finally:
                os.close(there)
        finally:
            os.close(source)


def open_with_status(fd: int, name: str) -> tuple[int, os.stat_result]:
    """Open the regular file `name` of the directory `fd` for reading; return its status too.

    Raises:
        OSError: not permitted, gone, or a symbolic link by now.
        FileProblem: another kind of file by now.

    """
    opened = os.open(name, READ_FILE, dir_fd=fd)
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            message = "the file was replaced by something else while it was looked at"
            raise FileProblem(message, error_class="changed_during_copy")
        return opened, _at_rest(opened, status)
    except BaseException:
        os.close(opened)
        raise


def _at_rest(fd: int, status: os.stat_result) -> os.stat_result:
    """Return a status that will not be that of the file once it is written to again.

    Waits for a file that changed just now, not for one that changes all the time: the time of its
    next change tells of that to a later run.
    """
    for _ in range(_MOST_LOOKS):
        if not just_changed(status):
            break
        time.sleep(_TICK_NS / 1e9)
        status = os.fstat(fd)
    return status


def just_changed(status: os.stat_result) -> bool:
    """Say whether one more change could leave the times as they are: before Linux 6.13 they stand
    still for up to 10 ms."""
    return abs(time.time_ns() - status.st_ctime_ns) < _TICK_NS


def open_file(fd: int, name: str) -> int:
    """Open the regular file `name` of the directory `fd` for reading; raises as above."""
    return open_with_status(fd, name)[0]


def link_at(fd: int, name: str) -> str | None:
    """Return where the link `name` points to, None if there is no link of that name."""
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError:
        return None


def mismatch() -> FileProblem:
    """Return the error for a copy that is read back as something else."""
    message = "the copy differs from what was read; the storage or its path is faulty"
    return FileProblem(message, error_class="verify_mismatch")


def changed_while_read() -> FileProblem:
    """Return the error for a source that is not what it was when its copy began."""
    message = "the file changed while it was read; retry when nobody writes to it"
    return FileProblem(message, error_class="changed_during_copy")


def changed(before: os.stat_result, after: os.stat_result) -> bool:
    """Say whether a file was written to, or something of it was set, between two looks."""
    return (
        before.st_ctime_ns != after.st_ctime_ns
        or before.st_mtime_ns != after.st_mtime_ns
        or before.st_size != after.st_size
    )


def retry_pause(attempt: int) -> float:
    """Return the seconds to wait after a failure; the first attempt is 0."""
    return min(_LONGEST_PAUSE, 0.1 * 2**attempt)


def may_pass(error: OSError | FileProblem) -> bool:
    """Say whether the same copy, made again at once, may succeed."""
    if isinstance(error, OSError):
        # A file that is gone will not be back in a moment; the next attempt lists anew.
        return classify(error).retryable and not isinstance(error, FileNotFoundError)
    return error.retryable
