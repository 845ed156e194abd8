"""The parameters of `sync`: parsed from a query string or JSON, every value checked for sense."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, cast

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from dms_scheduler.movers import (
    DEFAULT_PRESERVE,
    Compare,
    MoveOptions,
    MoverError,
    Overwrite,
    Preserve,
    Symlinks,
    Verify,
    split_path,
)
from dms_scheduler.movers.patterns import compile_pattern

_BANDWIDTH = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LATER = {"owner", "xattrs", "hardlinks", "sparse"}


def _number(value: object) -> object:
    """Refuse true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        message = "must be a whole number"
        raise ValueError(message)
    return value


def _bandwidth(value: object) -> object:
    """Read `10M` as 10 MiB a second."""
    if not isinstance(value, str):
        return _number(value)
    match = _BANDWIDTH.fullmatch(value.strip())
    if not match:
        message = "must be bytes a second, such as 500000, 512K or 10M"
        raise ValueError(message)
    return int(match[1]) * 1024 ** _POWERS[match[2].lower()]


def _deadline(value: object) -> object:
    """Read `90`, `90s`, `15m`, `2h`, `1d` as a duration; leave a point in time to pydantic."""
    if isinstance(value, bool) or value == "":
        message = "must be a duration such as 90s or 2h, or a time such as 2030-01-31T12:00:00Z"
        raise ValueError(message)
    match = _DURATION.fullmatch(str(value).strip())
    if not match:
        return value
    seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 < seconds <= 366 * 86400:
        message = "must be more than nothing and at most 366 days"
        raise ValueError(message)
    return timedelta(seconds=seconds)


def _listed(value: object) -> object:
    """Take a parameter that was given once as a list of one."""
    return (value,) if isinstance(value, str) else value


def _preserve(value: object) -> object:
    """Take a list, or names separated by commas; `none` for nothing."""
    if not isinstance(value, str | list | tuple | set | frozenset):
        message = "must be names separated by commas, such as mtime,mode"
        raise ValueError(message)
    values = [value] if isinstance(value, str) else cast("Iterable[object]", value)
    names = [name.strip() for item in values for name in str(item).split(",") if name.strip()]
    if later := sorted(_LATER.intersection(names)):
        message = f"{', '.join(later)} cannot be preserved by this version; use mtime and mode"
        raise ValueError(message)
    return [name for name in names if name != "none"]


Whole = Annotated[int, BeforeValidator(_number)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(max_length=100)]


class SyncParameters(BaseModel):
    """What `sync` takes. Values may be text, as a query string has nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    src: str = Field(description="Absolute path under an allowed root: a directory or a file")
    dst: str = Field(description="Absolute path under an allowed root; made if it is missing")
    compare: Compare = Field(Compare.SIZE_MTIME, description="When a file counts as the same")
    verify: Verify = Field(Verify.TRANSFERRED, description="Which files are read back by hash")
    delete: bool = Field(default=False, description="Delete what the source does not have")
    max_delete: Whole = Field(1000, ge=0, description="Refuse to delete more entries than this")
    allow_empty_src: bool = Field(default=False, description="Let an empty source delete all")
    backup_deleted: bool = Field(default=True, description="Keep what is deleted in .dms-deleted")
    dry_run: bool = Field(default=False, description="Only report what would be done")
    overwrite: Overwrite = Field(Overwrite.ALWAYS, description="When to replace what differs")
    symlinks: Symlinks = Field(Symlinks.KEEP, description="Links are kept or skipped, not followed")
    preserve: Annotated[frozenset[Preserve], BeforeValidator(_preserve)] = Field(
        DEFAULT_PRESERVE, description="Attributes to carry over; set-id bits never are"
    )
    include: Patterns = Field((), description="Only files that match one of these patterns")
    exclude: Patterns = Field((), description="Nothing that matches one of these patterns")
    bandwidth: Annotated[int, BeforeValidator(_bandwidth), Field(ge=1, le=1 << 50)] | None = Field(
        None, description="Bytes a second for the whole task, such as 10M"
    )
    transfers: Whole = Field(4, ge=1, le=32, description="Files moved at the same time")
    deadline: Annotated[timedelta | AwareDatetime, BeforeValidator(_deadline)] | None = Field(
        None, description="Stop after this long (an attempt), or at this time"
    )
    retries: Whole = Field(3, ge=0, le=100, description="How often a single file is tried again")
    label: str | None = Field(None, max_length=200, description="Free text for people")

    @field_validator("src", "dst")
    @classmethod
    def _is_path(cls, value: str) -> str:
        try:
            split_path(value)
        except MoverError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for pattern in value:
                compile_pattern(pattern)
        except MoverError as error:
            raise ValueError(str(error)) from error
        return value

    def options(self) -> MoveOptions:
        """Return what a mover needs of these."""
        shared = MoveOptions.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return MoveOptions(**{name: getattr(self, name) for name in shared})

    def seconds_left(self) -> float | None:
        """Return how many seconds remain until the deadline, None without one."""
        if isinstance(self.deadline, datetime):
            return (self.deadline - datetime.now(UTC)).total_seconds()
        return None if self.deadline is None else self.deadline.total_seconds()
