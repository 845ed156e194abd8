"""What a mover tells: progress, the report of single files, and how it ended."""

from __future__ import annotations

import base64
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import NamedTuple

MAX_FAILED_PATHS = 100
"""How many failed paths a result names; the rest is only counted, so that a result stays small."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Phase(StrEnum):
    """What a mover does right now; phases come in this order and may be left out."""

    PLAN = "plan"
    COPY = "copy"
    DELETE = "delete"
    VERIFY = "verify"


class Action(StrEnum):
    """What was done with a path, or in a plan: what would be done; `check` tells the last four."""

    COPY = "copy"
    LINK = "link"  # a symbolic link was made
    HARDLINK = "hardlink"
    MKDIR = "mkdir"
    UPDATE = "update"  # attributes alone
    DELETE = "delete"
    SPECIAL = "special"  # a FIFO, socket or device: left out
    FAILED = "failed"
    DIFFERS = "differs"
    MISSING_SRC = "missing_src"
    MISSING_DST = "missing_dst"
    AGED = "aged"  # a line of an age report


class ReportEntry(NamedTuple):  # made for each file: three times as quick as a frozen dataclass
    """One line of a report. `path` is relative to the source or the destination, `size` in bytes.

    What was there already and is the same has no line, or a report of a million files that did not
    change would hide the one that did.
    """

    action: Action
    path: str
    size: int | None = None
    error_class: str | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the entry as JSON-safe data, without what is not known.

        A name that is no plain UTF-8 has its bytes beside it, as base64.
        """
        shown = readable(self.path)
        data: dict[str, object] = {"action": self.action.value, "path": shown}
        if shown != self.path:
            data["path_base64"] = base64.b64encode(_bytes_of(self.path)).decode("ascii")
        if self.size is not None:
            data["size"] = self.size
        if self.error_class is not None:
            data["error_class"] = self.error_class
        if self.reason is not None:
            data["reason"] = readable(self.reason)
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveFile:
    """A file that is on its way: `bytes` of `size` have been moved."""

    path: str
    bytes: int
    size: int

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON-safe data."""
        return {"path": readable(self.path), "bytes": self.bytes, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a move stands. Bytes are bytes, `speed` is bytes a second, `eta` seconds or unknown.

    `bytes` never goes back: what a repeated file moved twice is added to `total_bytes` too.
    `current` is one path that is worked on, `active` the files that are on their way, at most 8.
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
    active: tuple[ActiveFile, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the progress as JSON-safe data."""
        data: dict[str, object] = asdict(self)
        data["phase"] = self.phase.value
        data["current"] = readable(self.current)
        data["active"] = [each.to_dict() for each in self.active]
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What was done, or in a plan: what would be done."""

    files: int = 0
    bytes: int = 0
    skipped: int = 0
    updated: int = 0
    links: int = 0
    hardlinks: int = 0
    dirs: int = 0
    special: int = 0
    checks: int = 0
    deleted: int = 0

    def done(self) -> str:
        """Return the line for the log of a run that ended well."""
        return (
            f"done: {self.files} files and {self.links} links copied, {self.bytes} bytes, "
            f"{self.skipped} skipped, {self.deleted} deleted"
        )


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
class Told:
    """What every call of a mover answers: by which engine, and the first paths that failed."""

    engine: str
    version: str
    failed: tuple[FailedPath, ...] = ()
    failed_count: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return the answer as JSON-safe data."""
        return {
            "engine": self.engine,
            "version": self.version,
            **self._own(),
            "failed": [item.to_dict() for item in self.failed],
            "failed_count": self.failed_count,
        }

    def _own(self) -> dict[str, object]:
        """Return what one kind of answer has beside that."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Told):
    """What a call that did something answers, also when it failed: `error_class` says how."""

    seconds: float
    error_class: str | None = None

    def _ending(self) -> dict[str, object]:
        return {"seconds": round(self.seconds, 3), "error_class": self.error_class}


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePlan(Told):
    """What a run would do; `sample` names the first 100 actions."""

    totals: Totals
    sample: tuple[ReportEntry, ...] = ()

    def _own(self) -> dict[str, object]:
        return {
            "dry_run": True,
            "totals": asdict(self.totals),
            "sample": [entry.to_dict() for entry in self.sample],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveResult(Ended):
    """What an attempt did."""

    totals: Totals

    def _own(self) -> dict[str, object]:
        return {"dry_run": False, "totals": asdict(self.totals), **self._ending()}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTotals:
    """What a comparison found: entries of each kind, and the bytes that were read to compare."""

    same: int = 0
    differs: int = 0
    missing_src: int = 0  # only the destination has it
    missing_dst: int = 0  # only the source has it
    special: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult(Ended):
    """How two trees compare; `sample` names the first 100 differences."""

    totals: CheckTotals
    sample: tuple[ReportEntry, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs and nothing is missing on either side."""
        totals = self.totals
        return not (totals.differs or totals.missing_src or totals.missing_dst)

    def _own(self) -> dict[str, object]:
        return {
            "same": self.same,
            "totals": asdict(self.totals),
            **self._ending(),
            "sample": [entry.to_dict() for entry in self.sample],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeResult(Ended):
    """How old the files of a tree are; `ages` is what was counted, as JSON-safe data."""

    ages: dict[str, object]

    def _own(self) -> dict[str, object]:
        return {**self.ages, **self._ending()}


MoveOutcome = MoveResult | MovePlan | CheckResult | AgeResult


def readable(name: str) -> str:
    r"""Return `name` as text that JSON, terminals and logs can carry.

    Bytes that are not UTF-8 (surrogate escapes) and control characters become backslash escapes.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(lambda match: _escape(match.group()), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _bytes_of(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
