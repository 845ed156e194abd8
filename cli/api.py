"""The way to the API: the client of `app.client`, its errors in a command's words."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.client.errors import (
    AddressError,
    AuthError,
    ClientError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
    UsageError,
    WaitTimeoutError,
)
from app.client.types import TaskArg, TaskRef
from cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from app.client import Client


@contextmanager
def connected(api_base: str, token: str | None = None) -> "Generator[Client]":
    """A client for one command; raises CliError alone, with its exit code.

    Without a token none is sent, whatever the environment has: the option has read that already.
    """
    # Imported here: help and completion, which many commands end as, need no HTTP.
    from app.client import Client

    try:
        with Client(api_base, token=token or "") as client:
            yield client
    except ClientError as error:
        raise in_our_words(error) from error


def task_of(task_id: str, service: str | None, user: str | None) -> TaskArg:
    """A user's own task, or an operator's when neither service nor user is named."""
    if service and user:
        return TaskRef(task_id, service, user)
    if service or user:
        raise CliError(
            "--service and --user belong together",
            "name both; or neither, with --operator-token",
            ExitCode.USAGE,
        )
    return task_id


def in_our_words(error: ClientError) -> CliError:
    """The same error with the remedy that a command has, and the exit code that it means."""
    return CliError(error.cause, _remedy(error), _code(error))


def _remedy(error: ClientError) -> str:
    match error:
        case OutcomeUnknownError(idempotency_key=str(key)):
            return f"repeat the command with --idempotency-key {key}: it is accepted only once"
        case UnavailableError(reached=False):
            return (
                "is DMS running? `dms-frontend up` starts one here; "
                "another's address: --api-base or DMS_API_BASE"
            )
        case AuthError():
            return "operators name their token: --operator-token or DMS_OPERATOR_TOKEN"
        case _:
            return error.remedy.replace("pass base_url, or set DMS_API_BASE", _WHERE)


_WHERE = "--api-base or DMS_API_BASE"


def _code(error: ClientError) -> ExitCode:
    match error:
        case UnavailableError():
            return ExitCode.UNREACHABLE
        case WaitTimeoutError():
            return ExitCode.TIMEOUT
        case AuthError():
            return ExitCode.AUTH
        case NotFoundError() | AddressError(status=404):
            return ExitCode.NOT_FOUND
        case UsageError() | AddressError(status=None):
            return ExitCode.USAGE
        case _:
            return ExitCode.ERROR
