"""What a call of the client can end with: one base, each with cause and remedy."""


class ClientError(Exception):
    """Base of every error of this package: the cause, and what to do about it.

    `status` is the HTTP status, `kind` the problem's slug (such as `task-not-found`) and
    `request_id` the name under which the service's log has the request; None where no answer came.
    """

    def __init__(
        self,
        cause: str,
        remedy: str = "",
        *,
        status: int | None = None,
        kind: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.status = status
        self.kind = kind
        self.request_id = request_id

    def __str__(self) -> str:
        told = f"{self.cause}: {self.remedy}" if self.remedy else self.cause
        return f"{told} (request {self.request_id})" if self.request_id else told


class UsageError(ClientError, ValueError):
    """The call itself cannot be sent; nothing was."""


class AddressError(ClientError):
    """What was given as the API's base is none, or another server answers there."""


class NotFoundError(ClientError):
    """There is no such task for this user (or it is another's), or no such service."""


class ConflictError(ClientError):
    """The state of the task or the service does not allow it (409)."""


class RefusedError(ClientError):
    """The service understood the request and does not accept it (422 and other 4xx)."""


class AuthError(ClientError):
    """The operator token is missing or wrong, or the user is not the one who asks."""


class UnexpectedAnswerError(ClientError):
    """An answer that is a defect of the service (500), or that is not the service's at all."""


class UnavailableError(ClientError):
    """No answer, or the answer that none can be given now: the same request may work later.

    `retry_after` is how many seconds the service asked to wait, 0 if it did not. `reached` is False
    where no connection was made, so that nothing can have been done.
    """

    def __init__(
        self,
        cause: str,
        remedy: str = "",
        *,
        status: int | None = None,
        kind: str | None = None,
        request_id: str | None = None,
        retry_after: float = 0.0,
        reached: bool = True,
    ) -> None:
        super().__init__(cause, remedy, status=status, kind=kind, request_id=request_id)
        self.retry_after = retry_after
        self.reached = reached


class OutcomeUnknownError(UnavailableError):
    """A change was sent and may have been made, although no answer says so.

    For a submission `idempotency_key` makes repeating safe: pass it again, and one task is made.
    """

    idempotency_key: str | None = None


class WaitTimeoutError(ClientError, TimeoutError):
    """The task has not ended within the time that the caller gave; it goes on."""
