"""What a mover raises: a stable class for programs, words for people, and what had been done."""

from __future__ import annotations

from dms_scheduler.movers.results import FailedPath, MoveOutcome, readable


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
        self.result: MoveOutcome | None = None


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


class Interrupted(MoverError):
    """This attempt has to stop, and another one will go on: what helps it is kept."""

    error_class = "interrupted"
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


class Busy(MoverError):
    """Another task is at work there. No failure of this one: it waits, and is not counted."""

    error_class = "busy"
    retryable = True


class DestinationBusy(Busy):
    """Another task reads or writes what this one would change."""

    error_class = "destination_busy"


class SourceBusy(Busy):
    """Another task writes what this one would read."""

    error_class = "source_busy"


class NoSpace(MoverError):
    """The destination is full. Not retryable: seconds later it is still full, a person must act."""

    error_class = "no_space"


class PartialFailure(MoverError):
    """Some paths failed while the rest was done. Retryable if any of the failures is."""

    error_class = "partial_failure"


class FileProblem(MoverError):
    """One path could not be handled; the others can."""

    retryable = True


def empty_source() -> Refused:
    """Return the error for a mirror of a source that holds nothing."""
    message = (
        "the source holds no files, so delete=true would empty the destination; "
        "check that it is mounted, or set allow_empty_src=true"
    )
    return Refused(message, error_class="empty_source")


def overlap() -> Refused:
    """Return the error for a source and a destination that hold each other."""
    message = "source and destination are the same or one lies inside the other; separate them"
    return Refused(message, error_class="overlap")


def not_found(called: str) -> Refused:
    """Return the error for what is missing; `called` names it, such as `source '/a/b'`."""
    return Refused(f"{called} does not exist; check the path", error_class="not_found")


def partial_failure(first: FailedPath, count: int, what: str, *, retryable: bool) -> PartialFailure:
    """Return the error for `count` failed paths; `what` says what became of the others."""
    paths = "1 path failed" if count == 1 else f"{count} paths failed"
    message = f"{paths}, {what}; the first: {readable(first.path) or '.'}: {first.reason}"
    return PartialFailure(message, retryable=retryable)
