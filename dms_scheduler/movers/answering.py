"""Makes a mover's answers of what one call has counted; the same for every engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from dms_scheduler.movers.errors import partial_failure
from dms_scheduler.movers.results import (
    FailedPath,
    MovePlan,
    MoveResult,
    ReportEntry,
    Totals,
)


class Counted(Protocol):
    """What a call has done so far."""

    @property
    def totals(self) -> Totals:
        """The counts."""
        ...

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        ...

    @property
    def failed(self) -> Sequence[FailedPath]:
        """The first paths that failed."""
        ...

    @property
    def failed_count(self) -> int:
        """How many paths failed, named or not."""
        ...

    @property
    def retryable(self) -> bool:
        """Whether another attempt may help any of them."""
        ...


class Answering:
    """Base of the sessions of all engines: what their calls answer."""

    def __init__(self, engine: str, version: str, counted: Counted) -> None:
        self.engine = engine
        self.version = version
        self._counted = counted

    def move_plan(self, totals: Totals, sample: Iterable[ReportEntry]) -> MovePlan:
        """Return what a dry run answers."""
        return MovePlan(
            engine=self.engine,
            version=self.version,
            totals=totals,
            sample=tuple(sample),
            failed=tuple(self._counted.failed),
            failed_count=self._counted.failed_count,
        )

    def move_result(self, error_class: str | None) -> MoveResult:
        """Return what has been done so far."""
        return MoveResult(
            engine=self.engine,
            version=self.version,
            totals=self._counted.totals,
            seconds=self._counted.seconds,
            error_class=error_class,
            failed=tuple(self._counted.failed),
            failed_count=self._counted.failed_count,
        )

    def refuse_partial(self, what: str) -> None:
        """Raise PartialFailure if some paths failed; `what` says what became of the others."""
        done = self._counted
        if done.failed_count:
            raise partial_failure(done.failed[0], done.failed_count, what, retryable=done.retryable)
