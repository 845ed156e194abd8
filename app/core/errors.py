"""The errors of the frontend: one base, each message with its cause and remedy."""

from collections.abc import Sequence
from typing import NamedTuple


class DmsError(Exception):
    """Base of every error that `app` raises."""


class ConfigurationError(DmsError):
    """A setting is missing or means nothing; the message names the variable and the remedy."""


class BadInputError(DmsError):
    """A request means nothing: wrong or too many parameters, or not the JSON it should be."""


class FieldProblem(NamedTuple):
    """What is wrong with one field of a request."""

    field: str
    problem: str


class InvalidScheduleError(BadInputError):
    """A schedule means nothing; `problems` has each field that is wrong."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in problems))
        self.problems = tuple(problems)


class ScheduleFromFileError(DmsError):
    """A schedule of the operator's file is changed there alone."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            f"schedule {schedule_id!r} is from the file that DMS_SCHEDULES_FILE names: change it "
            "there, and start the scheduler again; pausing, running and resuming work here"
        )


class ScheduleOwesError(DmsError):
    """A schedule cannot be changed while a slot of it that is due cannot be settled."""


class MalformedRequestError(DmsError):
    """The request cannot be read at all: its head contradicts itself, or its body stops coming."""


class PayloadTooLargeError(DmsError):
    """A request's body is larger than the limit."""


class QueryTooLongError(DmsError):
    """A request's query is longer than the limit."""


class UnsupportedBodyError(DmsError):
    """A body came in a form that nothing here reads."""


class UnknownHostError(DmsError):
    """The Host header names none of this service's names."""


class NotAuthenticatedError(DmsError):
    """The operator token, or the trusted proxy's user, is missing or wrong."""


class WebhookRefusedError(DmsError):
    """The sender of a webhook is not the right one, or there is no such webhook: says no more."""

    def __init__(self) -> None:
        super().__init__("not the sender of this webhook")


class WebhookUnavailableError(DmsError):
    """A webhook takes nothing now; the same delivery is welcome later."""


class UnknownWebhookError(DmsError):
    """The operator's file has no webhook of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no webhook {name[:64]!r}: add it to the file that DMS_WEBHOOKS_FILE names, and start "
            "the frontend again"
        )


class ForbiddenError(DmsError):
    """Who asks is known, or does not matter: this is not allowed."""


class TooManyAttemptsError(DmsError):
    """A client failed to authenticate too often and has to wait `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            f"too many wrong operator tokens from this address: wait {retry_after} seconds, then "
            "send the value of DMS_OPERATOR_TOKEN"
        )
        self.retry_after = retry_after


class UnknownDefinitionError(DmsError):
    """Strict handling was asked for, and no definition has the service's name."""


class UnknownGroupError(DmsError):
    """The event broker has no queue of that pattern and group."""


class NotRetryableError(DmsError):
    """Only a task of DMS that has ended can be submitted again."""


class TooManyStreamsError(DmsError):
    """This process follows as many live streams as it may."""


class SchedulerError(DmsError):
    """Base of what can go wrong between the frontend and the scheduler service."""


class SchedulerUnavailableError(SchedulerError):
    """The scheduler gave no answer that could be used: the same call may work later."""


class SchedulerRejectedError(SchedulerError):
    """The scheduler refused the request for good; the message is the scheduler's own."""
