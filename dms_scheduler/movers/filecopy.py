"""Puts one file or link at the destination: temporary name, attributes, check, rename."""

from __future__ import annotations

import itertools
import os
import stat
from contextlib import suppress

from dms_scheduler.movers.compare import mode_of
from dms_scheduler.movers.content import copy_content, digest_from_storage, digest_of
from dms_scheduler.movers.contract import MoveOptions, MoveRequest, Preserve, Verify
from dms_scheduler.movers.errors import MoverError
from dms_scheduler.movers.guard import Guard
from dms_scheduler.movers.meter import Meter, Tally
from dms_scheduler.movers.oserrors import classify
from dms_scheduler.movers.patterns import temporary_name
from dms_scheduler.movers.throttle import TokenBucket, chunk_size
from dms_scheduler.movers.tree import Item

# Not blocking: the file may have become a FIFO since it was listed.
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_LONGEST_PAUSE = 2.0


class FileProblem(MoverError):
    """One file could not be copied; the others can."""

    retryable = True


class FilePace:
    """Applies the guard and the bandwidth limit to the chunks of one file, and counts them."""

    def __init__(self, guard: Guard, meter: Meter, bucket: TokenBucket | None, chunk: int) -> None:
        self.chunk = chunk
        self.moved = 0
        self._guard = guard
        self._meter = meter
        self._bucket = bucket

    def check(self) -> None:
        """Raise to stop."""
        self._guard.check()

    def before(self, size: int) -> None:
        """Wait for the bandwidth limit."""
        if self._bucket is None:
            self._guard.check()
        else:
            self._guard.pause(self._bucket.reserve(size))

    def after(self, size: int) -> None:
        """Count what was moved."""
        self.moved += size
        self._meter.moved(size)


class FileCopier:
    """Copies files and links; used by all threads of a move at once."""

    def __init__(self, request: MoveRequest, guard: Guard, meter: Meter) -> None:
        self._task_id = request.task_id
        self._epoch = request.epoch
        self._options: MoveOptions = request.options
        self._guard = guard
        self._meter = meter
        self._numbers = itertools.count(1)
        bandwidth = request.options.bandwidth
        self._bucket = TokenBucket(bandwidth) if bandwidth else None
        self._chunk = chunk_size(bandwidth)

    def pace(self) -> FilePace:
        """Return the pace for one file."""
        return FilePace(self._guard, self._meter, self._bucket, self._chunk)

    def copy(self, item: Item, target_fd: int) -> None:
        """Copy a regular file, again if it failed in a way that may pass.

        Raises:
            OSError, FileProblem: it could not be copied, `retries` times over.

        """
        for attempt in itertools.count():
            pace = self.pace()
            try:
                self._copy_once(item, target_fd, pace)
                break
            except (OSError, FileProblem) as error:
                if attempt >= self._options.retries or not _may_pass(error):
                    raise
            self._meter.expect_more(pace.moved)
            self._guard.pause(min(_LONGEST_PAUSE, 0.1 * 2**attempt))

    def _copy_once(self, item: Item, target_fd: int, pace: FilePace) -> None:
        source = open_file(item.folder.source_fd, item.name)
        try:
            status = os.fstat(source)
            temporary = self._new_name()
            mode = 0o600 if Preserve.MODE in self._options.preserve else 0o666
            target = os.open(temporary, _NEW_FILE, mode, dir_fd=target_fd)
            try:
                self._fill(source, status, target, pace)
                self._guard.check()
                os.rename(temporary, item.target, src_dir_fd=target_fd, dst_dir_fd=target_fd)
            except BaseException:
                _discard(temporary, target_fd)
                raise
            finally:
                os.close(target)
        finally:
            os.close(source)
        self._meter.add(Tally.BYTES, status.st_size)

    def _fill(self, source: int, status: os.stat_result, target: int, pace: FilePace) -> None:
        hashed = self._options.verify is Verify.TRANSFERRED
        copied = copy_content(source, target, status.st_size, pace, hashed=hashed)
        if copied.size != status.st_size or _changed(status, os.fstat(source)):
            message = "the file changed while it was read; retry when nobody writes to it"
            raise FileProblem(message, error_class="changed_during_copy")
        if hashed and digest_from_storage(target, copied.size, pace) != copied.digest:
            message = "the copy differs from what was read; the storage or its path is faulty"
            raise FileProblem(message, error_class="verify_mismatch")
        self._set_attributes(target, status)

    def _set_attributes(self, target: int, status: os.stat_result) -> None:
        if Preserve.MODE in self._options.preserve:
            os.fchmod(target, mode_of(status))
        if Preserve.MTIME in self._options.preserve:
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def link(self, item: Item, target_fd: int) -> bool:
        """Put the same symbolic link at the destination; return False if it was there already.

        Raises:
            OSError: it could not be read or made.

        """
        points_to = os.readlink(item.name, dir_fd=item.folder.source_fd)
        if link_at(target_fd, item.target) == points_to:
            return False
        temporary = self._new_name()
        os.symlink(points_to, temporary, dir_fd=target_fd)
        try:
            if Preserve.MTIME in self._options.preserve:
                times = (item.status.st_atime_ns, item.status.st_mtime_ns)
                os.utime(temporary, ns=times, dir_fd=target_fd, follow_symlinks=False)
            self._guard.check()
            os.rename(temporary, item.target, src_dir_fd=target_fd, dst_dir_fd=target_fd)
        except BaseException:
            _discard(temporary, target_fd)
            raise
        return True

    def update(self, item: Item, target_fd: int) -> None:
        """Give the file at the destination the attributes of its source; raises OSError."""
        # Opened as a mere place, so that no permission of the file's own is needed; the path
        # through /proc leads to that very inode and cannot be swapped.
        place = os.open(item.target, os.O_PATH | os.O_NOFOLLOW, dir_fd=target_fd)
        try:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                message = "the destination changed while it was looked at"
                raise FileProblem(message, error_class="changed_during_copy")
            self._guard.check()
            if Preserve.MODE in self._options.preserve:
                os.chmod(f"/proc/self/fd/{place}", mode_of(item.status))
            if Preserve.MTIME in self._options.preserve:
                times = (item.status.st_atime_ns, item.status.st_mtime_ns)
                os.utime(f"/proc/self/fd/{place}", ns=times)
        finally:
            os.close(place)

    def same_content(self, item: Item, target_fd: int) -> bool:
        """Compare a file with the destination's by hash; raises OSError."""
        pace = self.pace()
        source = open_file(item.folder.source_fd, item.name)
        try:
            target = open_file(target_fd, item.target)
            try:
                size = os.fstat(source).st_size
                if size != os.fstat(target).st_size:
                    return False
                return digest_of(source, size, pace) == digest_of(target, size, pace)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _new_name(self) -> str:
        return temporary_name(self._task_id, self._epoch, next(self._numbers))


def open_file(fd: int, name: str) -> int:
    """Open the regular file `name` of the directory `fd` for reading.

    Raises:
        OSError: not permitted, gone, or a symbolic link by now.
        FileProblem: another kind of file by now.

    """
    opened = os.open(name, READ_FILE, dir_fd=fd)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        message = "the file was replaced by something else while it was looked at"
        raise FileProblem(message, error_class="changed_during_copy")
    return opened


def _discard(temporary: str, fd: int) -> None:
    # The error that led here is the one to hear of; what stays is removed by the next attempt.
    with suppress(OSError):
        os.unlink(temporary, dir_fd=fd)


def link_at(fd: int, name: str) -> str | None:
    """Return where the link `name` points to, None if there is no link of that name."""
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError:
        return None


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _may_pass(error: OSError | FileProblem) -> bool:
    if isinstance(error, OSError):
        # A file that is gone will not be back in a moment; the next attempt lists anew.
        return classify(error).retryable and not isinstance(error, FileNotFoundError)
    return error.retryable
