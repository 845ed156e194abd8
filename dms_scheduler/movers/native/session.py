"""One call of the native engine: its guard, its meter, and how failures and lines are told."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from dms_scheduler.movers.answering import Answering
from dms_scheduler.movers.contract import Control
from dms_scheduler.movers.errors import (
    FileProblem,
    MoverError,
    RunnerLost,
)
from dms_scheduler.movers.guard import Guard, Stopped
from dms_scheduler.movers.native.meter import Meter
from dms_scheduler.movers.oserrors import as_mover_error, classify, reason_of
from dms_scheduler.movers.results import Action, MoveOutcome, ReportEntry, readable

ENGINE = "native"
VERSION = "2"


class Session(Answering):
    """What the calls that compare, remove and count have in common; of one call."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.guard = Guard(control)
        self.meter = Meter()
        super().__init__(ENGINE, VERSION, self.meter)

    def log(self, message: str) -> None:
        """Hand a line to the task's log."""
        try:
            self.control.log(readable(message))
        except OSError as error:
            raise RunnerLost(error) from error

    def report(self, entry: ReportEntry) -> None:
        """Hand a line to the task's report."""
        try:
            self.control.report(entry)
        except OSError as error:
            raise RunnerLost(error) from error

    def fail(self, path: str, error: OSError | FileProblem) -> None:
        """Record a failed path; raises MoverError if the whole call has to end."""
        if isinstance(error, OSError):
            fault = classify(error)
            self._record(path, reason_of(error), fault.error_class, retryable=fault.retryable)
            if fault.fatal:
                raise as_mover_error(error, path)
        else:
            self._record(path, str(error), error.error_class, retryable=error.retryable)

    def _record(self, path: str, reason: str, error_class: str, *, retryable: bool) -> None:
        named = self.meter.fail(path, reason, error_class, retryable=retryable)
        self.report(
            ReportEntry(action=Action.FAILED, path=path, error_class=error_class, reason=reason)
        )
        if named:
            self.log(f"failed: {path or '.'}: {reason}")

    @contextmanager
    def errors_told(self, result: Callable[[str | None], MoveOutcome]) -> Generator[None]:
        """Turn what ends the call into one MoverError that tells what had been done.

        `result` makes that of the error's class.
        """
        try:
            try:
                yield
            except Stopped as stopped:
                raise self.guard.cause or stopped from None
        except OSError as error:
            told = as_mover_error(error, "")
            told.result = result(told.error_class)
            raise told from error
        except MoverError as error:
            error.result = error.result or result(error.error_class)
            raise
