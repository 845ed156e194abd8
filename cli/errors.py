"""What ends a command early: one base, the exit codes, and a message with cause and remedy."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the command tells its caller; `docs/cli.md` has the table for people."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    UNREACHABLE = 5
    TASK_FAILED = 10
    TASK_CANCELLED = 11
    TIMEOUT = 124
    INTERRUPTED = 130


class CliError(Exception):
    """Base of every error of this package: the cause, a remedy, and the exit code that it means."""

    def __init__(self, cause: str, remedy: str = "", code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.code = code


class UpError(CliError):
    """`up` cannot start or go on."""
