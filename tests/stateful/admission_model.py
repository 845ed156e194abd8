"""A plain model of the admission: who waits where, and who gets the next slot."""

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

from task_state.admission import Policy, ServiceMode

Place = Literal["arriving", "lane", "delayed", "queued", "running"]


@dataclass
class Task:
    """A task that has not ended. `number` orders by creation."""

    task_id: str
    number: int
    service: str
    user: str
    place: Place = "lane"
    epoch: int = 0
    worker: str = ""


@dataclass
class Admissions:
    """Everything that decides. A turn is (0, time of coming) for a user who had none yet, else
    (1, number of the turn)."""

    policies: Mapping[str, Policy]
    tasks: dict[str, Task] = field(default_factory=dict[str, Task])
    slots: dict[str, int] = field(default_factory=dict[str, int])
    modes: dict[str, ServiceMode] = field(default_factory=dict[str, ServiceMode])
    turns: dict[str, int] = field(default_factory=dict[str, int])
    coming: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    clock: int = 0

    def at(self, place: Place, service: str | None = None) -> list[Task]:
        """The tasks there, oldest first."""
        found = [task for task in self.tasks.values() if task.place == place]
        found = [task for task in found if service in {None, task.service}]
        return sorted(found, key=lambda task: task.number)

    def busy(self, service: str) -> list[Task]:
        """The tasks of a service that were admitted or run."""
        return self.at("queued", service) + self.at("running", service)

    def held(self) -> Counter[str]:
        """How many attempts each worker runs."""
        return Counter(task.worker for task in self.at("running"))

    def ring(self, service: str) -> list[str]:
        """The users who wait in a service, in the order of their turns."""
        users = {task.user for task in self.at("lane", service)}
        return sorted(users, key=lambda user: self.turn(service, user))

    def turn(self, service: str, user: str) -> tuple[int, int]:
        """What orders users."""
        if user in self.turns:
            return 1, self.turns[user]
        return 0, self.coming[service, user]

    # -------------------------------------------------------------------------------------- changes
    def put(self, task: Task, place: Place) -> None:
        """Move a task; a user who had no task in the lane comes anew."""
        self.clock += 1
        if place == "lane" and not self._waits(task.service, task.user):
            self.coming[task.service, task.user] = self.clock
        task.place = place

    def _waits(self, service: str, user: str) -> bool:
        return any(task.user == user for task in self.at("lane", service))

    def set_mode(self, service: str, mode: ServiceMode) -> None:
        """Pause, drain or resume; what was admitted to a paused service goes back."""
        if mode is ServiceMode.ACTIVE:
            self.modes.pop(service, None)
        else:
            self.modes[service] = mode
        if mode is ServiceMode.PAUSED:
            for task in self.at("queued", None if service == "*" else service):
                self.put(task, "lane")

    def admit(self) -> list[Task]:
        """Fill the free slots."""
        free = sum(max(slots - self.held()[worker], 0) for worker, slots in self.slots.items())
        free -= len(self.at("queued"))
        admitted: list[Task] = []
        while len(admitted) < free and (task := self._next()):
            admitted.append(task)
            self._serve(task)
        return admitted

    def _serve(self, task: Task) -> None:
        self.put(task, "queued")
        self.turns[task.user] = max(self.turns.values(), default=0) + 1

    def _next(self) -> Task | None:
        candidates = [
            (
                -self.policies[service].priority,
                self.turn(service, user),
                self._first(service, user).number,
            )
            for service in self.policies
            if not self._closed(service)
            for user in self.ring(service)
            if not self._full(service, user)
        ]
        if not candidates:
            return None
        *_, number = min(candidates)
        return next(task for task in self.tasks.values() if task.number == number)

    def _first(self, service: str, user: str) -> Task:
        return next(task for task in self.at("lane", service) if task.user == user)

    def _closed(self, service: str) -> bool:
        limit = self.policies[service].concurrency_limit
        paused = {self.modes.get(service), self.modes.get("*")}
        return ServiceMode.PAUSED in paused or (
            limit is not None and len(self.busy(service)) >= limit
        )

    def _full(self, service: str, user: str) -> bool:
        limit = self.policies[service].per_user_limit
        own = [task for task in self.busy(service) if task.user == user]
        return limit is not None and len(own) >= limit

    def order(self, service: str) -> list[str]:
        """In which order the tasks in a service's lanes would start, were it the only service, with
        one slot: what queue positions tell."""
        alone = deepcopy(self)
        alone.policies, alone.modes = {service: Policy()}, {}
        alone.tasks = {task.task_id: task for task in alone.at("lane", service)}
        found: list[str] = []
        while task := alone._next():
            alone._serve(task)
            del alone.tasks[task.task_id]
            found.append(task.task_id)
        return found
