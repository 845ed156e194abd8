"""What a mover is: its requests, the options they share, and the two protocols around it.

A mover moves bytes for one attempt of one task. It is synchronous, runs in a process of its own,
and knows nothing of Redis, HTTP or asyncio: it talks to whoever runs it through `Control` alone.
What it tells is in `results`, what it raises in `errors`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dms_scheduler.movers.results import CheckResult, MovePlan, MoveResult, Progress, ReportEntry

_TASK_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Compare(StrEnum):
    """When a file at the destination counts as the same as its source."""

    EXISTS = "exists"
    SIZE = "size"
    SIZE_MTIME = "size_mtime"
    CHECKSUM = "checksum"


class Verify(StrEnum):
    """Which files are read back and compared by hash."""

    NONE = "none"
    TRANSFERRED = "transferred"
    ALL = "all"


class Overwrite(StrEnum):
    """When a destination that differs is replaced."""

    ALWAYS = "always"
    NEVER = "never"
    NEWER = "newer"


class Symlinks(StrEnum):
    """What happens to symbolic links, which are never followed."""

    KEEP = "keep"
    SKIP = "skip"


class Preserve(StrEnum):
    """Attributes that are carried over."""

    MTIME = "mtime"
    MODE = "mode"
    OWNER = "owner"
    XATTRS = "xattrs"
    HARDLINKS = "hardlinks"
    SPARSE = "sparse"


DEFAULT_PRESERVE = frozenset({Preserve.MTIME, Preserve.MODE})


class Fsync(StrEnum):
    """When what was written is forced to its storage."""

    NONE = "none"
    END = "end"  # once a file system, before the task is COMPLETED
    EACH = "each"  # each file before it gets its name, and all at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOptions:
    """How to move. `bandwidth` is bytes a second over all transfers; `retries` counts per file."""

    compare: Compare = Compare.SIZE_MTIME
    verify: Verify = Verify.TRANSFERRED
    delete: bool = False
    max_delete: int = 1000
    allow_empty_src: bool = False
    backup_deleted: bool = True
    dry_run: bool = False
    overwrite: Overwrite = Overwrite.ALWAYS
    symlinks: Symlinks = Symlinks.KEEP
    preserve: frozenset[Preserve] = DEFAULT_PRESERVE
    fsync: Fsync = Fsync.END
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bandwidth: int | None = None
    transfers: int = 4
    retries: int = 3
    one_way: bool = False  # of `check` alone: what only the destination has is no difference


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRequest:
    """One attempt: where from, where to, how. `roots` are the folders that paths must lie under.

    Raises:
        ValueError: the task id could not be part of a file name, or a number is out of range.

    """

    task_id: str
    epoch: int
    src: str
    dst: str
    roots: tuple[str, ...]
    options: MoveOptions = field(default_factory=MoveOptions)

    def __post_init__(self) -> None:
        """Refuse what would make unsafe names for temporary files."""
        require_names(self.task_id, self.epoch)
        if not 1 <= self.options.transfers <= 32:
            message = "transfers must be 1 to 32"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRequest:
    """One attempt to remove what is at `path`, an entry below one of `roots`.

    A directory that is not empty needs `recursive`. With `backup` what is removed is moved to
    `.dms-deleted/<task>.<epoch>/` in the folder that holds it. Raises ValueError as MoveRequest.
    """

    task_id: str
    epoch: int
    path: str
    roots: tuple[str, ...]
    recursive: bool = False
    max_delete: int = 1000
    dry_run: bool = False
    backup: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would make unsafe names."""
        require_names(self.task_id, self.epoch)


def require_names(task_id: str, epoch: int) -> None:
    """Raise ValueError unless both may be part of a file name."""
    if not _TASK_ID.fullmatch(task_id):
        message = f"task id {task_id!r} must be 1 to 128 of A-Z a-z 0-9 . _ -"
        raise ValueError(message)
    if epoch < 0:
        message = "epoch must not be negative"
        raise ValueError(message)


class Control(Protocol):
    """The mover's view of whoever runs it. Every method is called from several threads."""

    @property
    def deadline(self) -> float:
        """`time.monotonic()` seconds after which nothing may be changed any more; each word of
        the supervisor moves it on. Read right before each rename and delete."""
        ...

    @property
    def bandwidth(self) -> int | None:
        """The limit that somebody set while the task runs, in bytes a second: 0 for none, None as
        long as the options' own holds."""
        ...

    def check(self) -> None:
        """Raise (`Cancelled`, `LeaseLost`, ...) when the mover must stop; cost microseconds.

        Asked at least every tenth of a second, and before each change of the destination.
        """
        ...

    def progress(self, progress: Progress) -> None:
        """Take the state of the move; called twice a second, from one thread at a time."""
        ...

    def log(self, message: str) -> None:
        """Take one line for the task's log."""
        ...

    def report(self, entry: ReportEntry) -> None:
        """Take what was done with one path: a line of the task's report."""
        ...


class Mover(Protocol):
    """An engine that moves data."""

    @property
    def engine(self) -> str:
        """Name of the engine."""
        ...

    @property
    def version(self) -> str:
        """Version of the engine."""
        ...

    def plan(self, request: MoveRequest, control: Control) -> MovePlan:
        """Say what `run` would do and change nothing; its report equals that of the run.

        Raises:
            MoverError: it would be refused.

        """
        ...

    def run(self, request: MoveRequest, control: Control) -> MoveResult:
        """Do it. Success means everything is at the destination and on its storage.

        Raises:
            MoverError: with `result` set once anything was begun.

        """
        ...

    def check(self, request: MoveRequest, control: Control) -> CheckResult:
        """Compare source and destination by `options.compare`, changing nothing.

        Differences are told in the result and the report; they are no error of this call. Of the
        options `compare one_way preserve symlinks include exclude bandwidth transfers retries`
        count; of `preserve` mode, mtime and owner, which must be the same then.

        Raises:
            MoverError: a side cannot be read, or some paths could not be (PartialFailure).

        """
        ...

    def remove(self, request: RemoveRequest, control: Control) -> MoveResult | MovePlan:
        """Remove what the request names; a plan of it with `dry_run`.

        Raises:
            MoverError: with `result` set once anything was begun.

        """
        ...
