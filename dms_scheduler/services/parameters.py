"""The parameters of the built-in tasks, from a query string or JSON, every value checked for sense.

Not `app.api.parameters`, which takes any task's parameters out of a request.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from app.core.bandwidth import MAX_BANDWIDTH
from dms_scheduler.movers import (
    DEFAULT_PRESERVE,
    Compare,
    Fsync,
    MoveOptions,
    Overwrite,
    Preserve,
    Symlinks,
    Verify,
)
from dms_scheduler.movers.native.ageing import AgeBy
from dms_scheduler.services import schemas, values
from dms_scheduler.services.legacy import DCMP, DRM, DSYNC, Legacy, Tool, read_legacy
from dms_scheduler.services.wording import problem_of, raise_in_plain_words

Whole = Annotated[int, BeforeValidator(values.whole_number)]
Place = Annotated[str, AfterValidator(values.place)]
LocalPlace = Annotated[str, AfterValidator(values.local_place)]
Patterns = Annotated[
    tuple[str, ...],
    Field(max_length=100),
    BeforeValidator(values.listed),
    AfterValidator(values.patterns),
]
Preserved = Annotated[
    frozenset[Preserve],
    BeforeValidator(values.preserved),
    WithJsonSchema(schemas.PRESERVED),
]
Bandwidth = Annotated[
    int,
    Field(ge=1, le=MAX_BANDWIDTH),
    BeforeValidator(values.bandwidth),
    WithJsonSchema(schemas.BANDWIDTH),
]
Deadline = Annotated[
    timedelta | AwareDatetime,
    BeforeValidator(values.deadline),
    WithJsonSchema(schemas.DEADLINE),
]

_USE_SYNC = "copy never deletes; use the service sync for that"


class Parameters(BaseModel):
    """What all built-in tasks take. Values may be text, as a query string has nothing else."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra=schemas.put_required_first
    )

    elsewhere: ClassVar[dict[str, str]] = {}
    takes_remotes: ClassVar[bool] = False
    legacy_tool: ClassVar[Tool | None] = None

    include: Patterns = Field((), description="Only files that match one of these patterns")
    exclude: Patterns = Field((), description="Nothing that matches one of these patterns")
    deadline: Deadline | None = Field(
        None, description="Stop after this long (an attempt), or at this time"
    )
    label: str | None = Field(None, max_length=200, description="Free text for people")

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_words(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        legacy = cls._legacy(value)
        try:
            made = handler({**legacy.fields, **value} if legacy else value)
        except ValidationError as error:
            raise_in_plain_words(error, schemas.in_order(cls.model_fields), cls.elsewhere)
        if legacy:
            _refuse_contradictions(made, legacy)
        return made

    @classmethod
    def _legacy(cls, value: Any) -> Legacy | None:
        given = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        text = given.get("options")
        if cls.legacy_tool is None or not isinstance(text, str):
            return None
        try:
            return read_legacy(text, cls.legacy_tool)
        except ValueError as error:
            raise problem_of("options", str(error)) from None

    def notes(self) -> tuple[str, ...]:
        """Return lines for the task's log: what of the old options means nothing here."""
        text = getattr(self, "options", None)
        if not text or self.legacy_tool is None:
            return ()
        return read_legacy(text, self.legacy_tool).notes

    def seconds_left(self) -> float | None:
        """Return how many seconds remain until the deadline, None without one."""
        if isinstance(self.deadline, datetime):
            return (self.deadline - datetime.now(UTC)).total_seconds()
        return None if self.deadline is None else self.deadline.total_seconds()


def _refuse_contradictions(made: Parameters, legacy: Legacy) -> None:
    for name, wanted in legacy.wanted.items():
        if not _agrees(getattr(made, name), wanted):
            words = f"{legacy.spelled[name]} contradicts the parameter {name}; give one of them"
            raise problem_of("options", words)


def _agrees(given: object, wanted: object) -> bool:
    if isinstance(wanted, frozenset) and isinstance(given, frozenset):
        return wanted <= given
    return given == wanted


class TwoSides(Parameters):
    """What `sync`, `copy` and `check` share: two places."""

    takes_remotes: ClassVar[bool] = True

    src: Place = Field(description="Absolute path under an allowed root, or remote:path")
    dst: Place = Field(description="Absolute path under an allowed root, or remote:path")
    symlinks: Symlinks = Field(Symlinks.KEEP, description="Links are kept or skipped, not followed")
    bandwidth: Bandwidth | None = Field(
        None, description="Bytes a second for the whole task, such as 10M"
    )
    transfers: Whole = Field(4, ge=1, le=32, description="Files worked on at the same time")

    def move_options(self) -> MoveOptions:
        """Return what a mover needs of these."""
        shared = MoveOptions.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return MoveOptions(**{name: getattr(self, name) for name in shared})


class CopyParameters(TwoSides):
    """What `copy` takes; `sync` takes more."""

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("delete", "max_delete", "allow_empty_src", "backup_deleted"), _USE_SYNC
    )
    legacy_tool: ClassVar[Tool | None] = DSYNC.without("delete", _USE_SYNC)

    compare: Compare = Field(Compare.SIZE_MTIME, description="When a file counts as the same")
    verify: Verify = Field(Verify.TRANSFERRED, description="Which files are read back by hash")
    dry_run: bool = Field(default=False, description="Only report what would be done")
    overwrite: Overwrite = Field(Overwrite.ALWAYS, description="When to replace what differs")
    preserve: Preserved = Field(
        DEFAULT_PRESERVE, description="Attributes to carry over; set-id bits never are"
    )
    fsync: Fsync = Field(Fsync.END, description="When what was written is forced to storage")
    retries: Whole = Field(3, ge=0, le=100, description="How often a single file is tried again")
    options: str | None = Field(
        None, max_length=4096, description="Options of mpiFileUtils' dsync, such as -D --contents"
    )


class SyncParameters(CopyParameters):
    """What `sync` takes."""

    elsewhere: ClassVar[dict[str, str]] = {}
    legacy_tool: ClassVar[Tool | None] = DSYNC

    delete: bool = Field(default=False, description="Delete what the source does not have")
    max_delete: Whole = Field(1000, ge=0, description="Refuse to delete more entries than this")
    allow_empty_src: bool = Field(default=False, description="Let an empty source delete all")
    backup_deleted: bool = Field(default=True, description="Keep what is deleted in .dms-deleted")


_CHANGES_NOTHING = "check changes nothing; use the service sync for that"


def _comparable(value: frozenset[Preserve]) -> frozenset[Preserve]:
    """Refuse what a comparison does not look at."""
    if extra := value - {Preserve.MTIME, Preserve.MODE, Preserve.OWNER}:
        message = f"{', '.join(sorted(extra))} cannot be compared; choose of mtime, mode, owner"
        raise ValueError(message)
    return value


class CheckParameters(TwoSides):
    """What `check` takes."""

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("delete", "max_delete", "allow_empty_src", "backup_deleted", "dry_run", "overwrite"),
        _CHANGES_NOTHING,
    )
    legacy_tool: ClassVar[Tool | None] = DCMP

    compare: Compare = Field(Compare.CHECKSUM, description="When a file counts as the same")
    one_way: bool = Field(default=False, description="Ignore what only the destination has")
    preserve: Annotated[Preserved, AfterValidator(_comparable)] = Field(
        frozenset[Preserve](), description="Attributes that must be the same too"
    )
    retries: Whole = Field(3, ge=0, le=100, description="How often a file that changes is reread")
    options: str | None = Field(
        None, max_length=4096, description="Options of mpiFileUtils' dcmp, such as --lite"
    )


class RmParameters(Parameters):
    """What `rm` takes."""

    takes_remotes: ClassVar[bool] = True
    legacy_tool: ClassVar[Tool | None] = DRM

    path: Place = Field(description="Absolute path under an allowed root, or remote:path")
    recursive: bool = Field(default=False, description="Remove a directory with all in it")
    max_delete: Whole = Field(1000, ge=0, description="Refuse to remove more entries than this")
    dry_run: bool = Field(default=False, description="Only report what would be removed")
    backup_deleted: bool = Field(
        default=False, description="Move to .dms-deleted beside it instead of removing"
    )
    options: str | None = Field(
        None, max_length=4096, description="Options of mpiFileUtils' drm, such as --dryrun"
    )


class HotcoldParameters(Parameters):
    """What `hotcold` takes."""

    path: LocalPlace = Field(description="Absolute path of a directory under an allowed root")
    by: AgeBy = Field(AgeBy.MTIME, description="Time that counts: written, read, or the later one")
    hot_days: Whole = Field(30, ge=0, le=36_500, description="Younger files than this are hot")
    cold_days: Whole = Field(180, ge=1, le=36_500, description="From this age on files are cold")
    top: Whole = Field(20, ge=0, le=1000, description="How many of the biggest folders to name")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.hot_days > self.cold_days:
            words = "must not be more than cold_days: what is hot cannot be cold"
            raise problem_of("hot_days", words)
        return self
