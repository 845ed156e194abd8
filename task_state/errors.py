"""What can go wrong in task_state: one base, each message with its cause and remedy."""


class TaskStateError(Exception):
    """Base of every error that task_state raises."""


class ConfigurationError(TaskStateError):
    """A setting is missing or means nothing."""


class InvalidRequestError(TaskStateError):
    """An argument means nothing: a bad cursor, limit or name."""


class TaskNotFoundError(TaskStateError):
    """There is no such task (or it belongs to somebody else, which must look the same)."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task {task_id!r}: it was never created, was deleted, or has expired")
        self.task_id = task_id


class TransitionError(TaskStateError):
    """The state machine has no such move."""

    def __init__(self, current: str, requested: str) -> None:
        super().__init__(
            f"a {current} task cannot become {requested}: reload it and act on its present state"
        )
        self.current = current
        self.requested = requested


class TaskEndedError(TaskStateError):
    """The task has ended, or is about to: nothing about it can be adjusted any more."""

    def __init__(self, task_id: str, status: str) -> None:
        super().__init__(
            f"task {task_id!r} is {status}, so nothing is left to be adjusted: submit it again "
            "with other parameters if it is to run differently"
        )
        self.task_id = task_id
        self.status = status


class ConflictError(TaskStateError):
    """Somebody else changed the record since it was loaded, or holds its id."""


class FencedError(TaskStateError):
    """The attempt that writes is not the task's current one: stop its work, write nothing more."""

    def __init__(self, task_id: str, epoch: int) -> None:
        super().__init__(
            f"attempt {epoch} of task {task_id!r} is over: its lease expired and the task went on "
            "without it, so its writes are refused"
        )
        self.task_id = task_id
        self.epoch = epoch


class LeaseHeldError(TaskStateError):
    """A worker holds the task's lease: only its attempt, or a cancel, may change the status."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"task {task_id!r} is leased to a running worker, which alone may change its status: "
            "request its cancellation instead, or wait for it to end"
        )
        self.task_id = task_id


class IdempotencyMismatchError(TaskStateError):
    """An idempotency key was used again for a different request."""

    def __init__(self) -> None:
        super().__init__(
            "this idempotency key was used for other parameters within the last 24 hours: "
            "send a new key with a new request"
        )


class ServiceDrainingError(TaskStateError):
    """The service takes no new tasks; nothing was stored."""

    def __init__(self, service: str) -> None:
        super().__init__(
            f"the service {service!r} is being drained and takes no new tasks: submit again when "
            "an operator has resumed it"
        )
        self.service = service


class ScheduleNotFoundError(TaskStateError):
    """There is no such schedule."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"no schedule {schedule_id!r}: it was never created, or was deleted")
        self.schedule_id = schedule_id


class ScheduleExistsError(TaskStateError):
    """A new schedule has the name of one that exists."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            f"there is a schedule {schedule_id!r} already: choose another name, or change that one"
        )
        self.schedule_id = schedule_id


class ScheduleConflictError(TaskStateError):
    """A schedule was changed, or has fired or come due, since it was read."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            f"schedule {schedule_id!r} was not changed: somebody else changed it, or it fired, "
            "since it was read: read it again and repeat the change"
        )
        self.schedule_id = schedule_id


class ScheduleUnreadableError(TaskStateError):
    """A stored schedule has values that this version of DMS does not know."""

    def __init__(self, schedule_id: str, what: str) -> None:
        super().__init__(
            f"schedule {schedule_id!r} cannot be read by this version of DMS: {what}; store it "
            "anew, or run the version that wrote it"
        )
        self.schedule_id = schedule_id


class StoreUnavailableError(TaskStateError):
    """The store did not answer, or could not confirm: the outcome of a write is unknown."""
