"""What a mover is: its request, progress, result, errors, and the two protocols around it.

A mover moves bytes for one attempt of one task. It is synchronous, runs in a process of its own,
and knows nothing of Redis, HTTP or asyncio: it talks to whoever runs it through `Control` alone.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Protocol

MAX_FAILED_PATHS = 100
"""How many failed paths a result names; the rest is only counted, so that a result stays small."""

_TASK_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Phase(StrEnum):
    """What a mover does right now; phases come in this order and may be left out."""

    PLAN = "plan"
    COPY = "copy"
    DELETE = "delete"
    VERIFY = "verify"


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
    preserve: frozenset[Preserve] = frozenset(Preserve)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bandwidth: int | None = None
    transfers: int = 4
    retries: int = 3


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
        if not _TASK_ID.fullmatch(self.task_id):
            message = f"task id {self.task_id!r} must be 1 to 128 of A-Z a-z 0-9 . _ -"
            raise ValueError(message)
        if self.epoch < 0 or not 1 <= self.options.transfers <= 32:
            message = "epoch must not be negative and transfers must be 1 to 32"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a move stands. Bytes are bytes, `speed` is bytes a second, `eta` seconds or unknown.

    `bytes` never goes back: what a repeated file moved twice is added to `total_bytes` too.
    """

    phase: Phase
    bytes: int = 0
    total_bytes: int = 0
    files: int = 0
    total_files: int = 0
    checks: int = 0
    deletes: int = 0
    errors: int = 0
    speed: float = 0.0
    eta: float | None = None
    current: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the progress as JSON-safe data."""
        data: dict[str, object] = asdict(self)
        data["phase"] = self.phase.value
        data["current"] = readable(self.current)
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What was done, or in a plan: what would be done."""

    files: int = 0
    bytes: int = 0
    skipped: int = 0
    updated: int = 0
    links: int = 0
    dirs: int = 0
    special: int = 0
    checks: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPath:
    """A path (relative to the source or destination) that could not be handled, and why."""

    path: str
    reason: str
    error_class: str

    def to_dict(self) -> dict[str, object]:
        """Return the failure as JSON-safe data."""
        return {
            "path": readable(self.path),
            "reason": readable(self.reason),
            "error_class": self.error_class,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAction:
    """One thing that a run would do."""

    action: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePlan:
    """What a run would do; `sample` names the first 100 actions."""

    engine: str
    version: str
    totals: Totals
    sample: tuple[PlannedAction, ...] = ()
    failed: tuple[FailedPath, ...] = ()
    failed_count: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return the plan as JSON-safe data."""
        return {
            "engine": self.engine,
            "version": self.version,
            "dry_run": True,
            "totals": asdict(self.totals),
            "sample": [{"action": a.action, "path": readable(a.path)} for a in self.sample],
            "failed": [item.to_dict() for item in self.failed],
            "failed_count": self.failed_count,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveResult:
    """What an attempt did, also when it failed: then `error_class` says how."""

    engine: str
    version: str
    totals: Totals
    seconds: float
    error_class: str | None = None
    failed: tuple[FailedPath, ...] = ()
    failed_count: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON-safe data."""
        return {
            "engine": self.engine,
            "version": self.version,
            "dry_run": False,
            "totals": asdict(self.totals),
            "seconds": round(self.seconds, 3),
            "error_class": self.error_class,
            "failed": [item.to_dict() for item in self.failed],
            "failed_count": self.failed_count,
        }


class MoverError(Exception):
    """Base of what a mover raises.

    `error_class` is a stable word for programs, `retryable` says whether another attempt may help,
    `result` is what had been done (None if nothing was begun).
    """

    error_class: str = "mover_error"
    retryable: bool = False

    def __init__(
        self, message: str, *, error_class: str | None = None, retryable: bool | None = None
    ) -> None:
        """Keep the class's own error class and retryability where none are given."""
        super().__init__(readable(message))
        self.error_class = error_class or type(self).error_class
        self.retryable = type(self).retryable if retryable is None else retryable
        self.result: MoveResult | MovePlan | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the error, with what had been done, as JSON-safe data."""
        return {
            "message": str(self),
            "error_class": self.error_class,
            "retryable": self.retryable,
            "result": self.result.to_dict() if self.result else None,
        }


class Refused(MoverError):
    """The request itself is not allowed or makes no sense; nothing was changed."""

    error_class = "refused"


class Cancelled(MoverError):
    """Somebody asked to stop; own temporary files are gone, finished files stay."""

    error_class = "cancelled"


class LeaseLost(MoverError):
    """This attempt may no longer write: another one may have begun."""

    error_class = "lease_lost"
    retryable = True


class DeadlineExceeded(MoverError):
    """The task's own deadline passed."""

    error_class = "deadline_exceeded"


class RunnerLost(MoverError):
    """Whoever runs this mover cannot be told anything any more."""

    error_class = "runner_lost"
    retryable = True

    def __init__(self, error: OSError) -> None:
        """`error` is what the control raised; it must not pass for a fault of some file."""
        super().__init__(f"the runner of this task cannot be reached: {error}")


class DestinationBusy(MoverError):
    """Another task writes to the same destination."""

    error_class = "destination_busy"
    retryable = True


class NoSpace(MoverError):
    """The destination is full. Not retryable: seconds later it is still full, a person must act."""

    error_class = "no_space"


class PartialFailure(MoverError):
    """Some paths failed while the rest was done. Retryable if any of the failures is."""

    error_class = "partial_failure"


class Control(Protocol):
    """The mover's view of whoever runs it. `check` and `log` are called from several threads."""

    def check(self) -> None:
        """Raise (`Cancelled`, `LeaseLost`, ...) when the mover must stop; cost microseconds.

        Called before each rename and delete, and at each chunk that is copied.
        """
        ...

    def progress(self, progress: Progress) -> None:
        """Take the state of the move; called twice a second, from one thread at a time."""
        ...

    def log(self, message: str) -> None:
        """Take one line for the task's log."""
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
        """Say what `run` would do and change nothing; raises MoverError."""
        ...

    def run(self, request: MoveRequest, control: Control) -> MoveResult:
        """Do it. Success means everything is at the destination and on its storage.

        Raises:
            MoverError: with `result` set once anything was begun.

        """
        ...


def readable(name: str) -> str:
    r"""Return `name` as text that JSON, terminals and logs can carry.

    Bytes that are not UTF-8 (surrogate escapes) and control characters become backslash escapes.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(lambda match: _escape(match.group()), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
