"""Which waiting task gets the next free slot; not the engine, which only carries what was admitted.

A task that was accepted waits in the lane of its user and service. `admit` fills the slots that
living workers have free: definitions of higher priority first, then the user whose last turn is
the longest ago, then that user's oldest task. It is one script, so any number of callers may call
it at the same time. Pausing and draining a service live here too, since both are about starting.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, cast

from task_state._codec import check_name
from task_state._store import Store
from task_state.errors import InvalidRequestError
from task_state.managed import FIRST_CHECK_MS, Waiting
from task_state.models import TaskRecord, TaskStatus
from task_state.timezone import from_microseconds

EVERY_SERVICE: Final = "*"
MAX_REASON: Final = 500
_MOST_ADMITTED: Final = 100
_WAITING: Final = frozenset({TaskStatus.PENDING, TaskStatus.DISPATCHING})


class ServiceMode(StrEnum):
    """What a service does with tasks; what runs goes on in each of them."""

    ACTIVE = "ACTIVE"
    """Takes tasks and starts them."""
    PAUSED = "PAUSED"
    """Takes tasks, and starts none, retries included."""
    DRAINING = "DRAINING"
    """Refuses new tasks, and finishes those that it has."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A service's mode and its load.

    `since` and `reason` tell of the mode, and are None while it is ACTIVE. Together the numbers
    are its managed tasks that have not ended: `waiting` those that are on their way to the
    scheduler, wait for a slot, or have one and are on their way to a worker; `delayed` those whose
    next attempt is put off; `running` those under way, or about to be cancelled.
    """

    service: str
    mode: ServiceMode
    since: datetime | None
    reason: str | None
    waiting: int
    delayed: int
    running: int


@dataclass(frozen=True, slots=True)
class Policy:
    """How a definition's tasks are let through: higher `priority` first; at most
    `concurrency_limit` at once on the cluster, and `per_user_limit` of one user; None: no limit."""

    priority: int = 0
    concurrency_limit: int | None = None
    per_user_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Attendance:
    """A worker that can run `slots` attempts at once, and is taken for gone when it has not said
    so again within `seconds`. No slots: it leaves."""

    worker: str
    slots: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Admitted:
    """What `admit` let through, to be given to the engine. `due_seconds` is when the first task
    that was put off is due; `more` says that it stopped at its own limit, so call again."""

    calls: list[Waiting]
    due_seconds: float | None
    more: bool


class Admission:
    """Lets waiting tasks through. Raises StoreUnavailableError like the repository."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(
        self,
        policies: Mapping[str, Policy] | None = None,
        *,
        attendance: Attendance | None = None,
        limit: int = _MOST_ADMITTED,
    ) -> Admitted:
        """Give the free slots to waiting tasks, at most `limit` in this call.

        The caller gives the calls to the engine. If it dies before that, the rescuer's look at
        the admitted tasks does it. A worker tells its `attendance` with it.
        """
        here = attendance or Attendance("", 0, 0.0)
        reply = await self._store.write(
            "admit",
            "",
            limit,
            FIRST_CHECK_MS,
            _encoded(policies or {}),
            here.worker,
            here.slots,
            int(here.seconds * 1000),
            self._store.seen,
        )
        found, due_ms, more, latest = cast("tuple[list[list[Any]], int, int, bytes]", reply)
        self.remember(int(latest))
        calls = [Waiting(task_id.decode(), epoch + 1) for task_id, epoch in found]
        return Admitted(calls, None if due_ms < 0 else due_ms / 1000, more == 1)

    @property
    def seen(self) -> int:
        """The latest change of the store that this process knows of, in µs; 0: none yet."""
        return self._store.seen

    def remember(self, seen: int) -> None:
        """Take it that the store was seen with a change of that time, perhaps by somebody else.

        If the store was not there at that time, by its own account, and has not told of that, it
        is a restored one: `admit` and `begin` then pause every service, and start nothing.
        """
        self._store.seen = max(self._store.seen, seen)

    async def pause(self, service: str, reason: str | None = None) -> None:
        """Start nothing of the service any more; `*` means every service. Tasks that were let
        through and have not begun wait again."""
        await self._set_mode(service, ServiceMode.PAUSED, reason)

    async def drain(self, service: str, reason: str | None = None) -> None:
        """Take no new tasks for the service (ServiceDrainingError), and finish what it has."""
        await self._set_mode(service, ServiceMode.DRAINING, reason)

    async def resume(self, service: str) -> None:
        """End a pause or a drain. `*` ends what was said of `*` alone."""
        await self._set_mode(service, ServiceMode.ACTIVE, None)

    async def states(self) -> list[ServiceState]:
        """Every service that has tasks or a mode, by name; `*` is among them when it has one.

        Each has the stricter of what was said of it and of `*`.
        """
        rows = await self._store.read("service_states", "", fresh=True)
        return [_state(row) for row in sorted(cast("list[list[Any]]", rows))]

    async def position(self, task: TaskRecord) -> int | None:
        """The place of a waiting task among those of its service, 1 for the next; None for one
        that does not wait, or is put off. Priorities of other services are not looked at."""
        if not task.managed or task.status not in _WAITING:
            return None
        place = cast("int", await self._store.read("position", task.task_id, fresh=True))
        return place if place > 0 else None

    async def _set_mode(self, service: str, mode: ServiceMode, reason: str | None) -> None:
        if service != EVERY_SERVICE:
            check_name(service, "service")
        if reason is not None and len(reason) > MAX_REASON:
            raise InvalidRequestError(
                f"a reason of {len(reason)} characters: say it in at most {MAX_REASON}"
            )
        await self._store.write("set_mode", service, mode, reason or "")


def _encoded(policies: Mapping[str, Policy]) -> str:
    """What differs from the defaults, as JSON: service to [priority, limit, limit of a user]."""
    plain = Policy()
    return json.dumps(
        {
            service: [policy.priority, policy.concurrency_limit or 0, policy.per_user_limit or 0]
            for service, policy in policies.items()
            if policy != plain
        },
        separators=(",", ":"),
    )


def _state(row: list[Any]) -> ServiceState:
    service, packed, waiting, delayed, running = row
    mode, since, reason = [*cast("bytes", packed).decode().split(" ", 2), "", ""][:3]
    return ServiceState(
        service=service.decode(),
        mode=ServiceMode(mode or "ACTIVE"),
        since=from_microseconds(since.encode()) if since else None,
        reason=reason or None,
        waiting=waiting,
        delayed=delayed,
        running=running,
    )
