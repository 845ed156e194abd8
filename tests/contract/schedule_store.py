"""What the tests of schedules share: specs, a past to settle, slots, tasks that end."""

from collections.abc import Sequence
from typing import Any

from task_state import JsonObject, TaskStatus, keys
from task_state.managed import ManagedTasks
from task_state.schedules import (
    Fire,
    ScheduleRecord,
    Schedules,
    ScheduleSpec,
    Settled,
    SlotTask,
)
from tests.contract.store import Keyspace

NAME = "nightly"
START = 1_700_000_000


def spec(**values: Any) -> ScheduleSpec:
    """A schedule of the service `sync`."""
    request = {"cron": "* * * * * *", "service": "sync", "user_id": "alice", "timezone": "UTC"}
    return ScheduleSpec.model_validate({**request, **values})


def task_of(slot: int | str, name: str = NAME) -> str:
    """The id of a slot's task."""
    return f"s.{name}.{slot}"


def slots(*numbers: int) -> list[SlotTask]:
    """Slots to fire."""
    return [SlotTask(number, {}) for number in numbers]


class Old:
    """A schedule that was made long ago, so that there is something to settle."""

    def __init__(self, schedules: Schedules, keyspace: Keyspace, name: str = NAME) -> None:
        self.schedules = schedules
        self.keyspace = keyspace
        self.name = name
        self.revision = 0
        self.cursor = START

    async def made(self, **values: Any) -> "Old":
        """The same, in the store."""
        self.revision = (await self.schedules.create(self.name, spec(**values))).revision
        self.keyspace.client.hset(keys.schedule(self.name), "cursor", str(self.cursor))
        return self

    async def settle(self, *numbers: int, to: int = 0, missed: Sequence[int] | int = ()) -> Settled:
        """Settle these slots (seconds after START), from where the schedule is known to be."""
        return await self.settle_with({}, *numbers, to=to, missed=missed)

    async def settle_with(
        self,
        parameters: JsonObject,
        *numbers: int,
        to: int = 0,
        missed: Sequence[int] | int = (),
    ) -> Settled:
        """The same, with parameters for the tasks."""
        settled = await self.schedules.settle(
            self.name,
            revision=self.revision,
            cursor=self.cursor,
            new_cursor=START + (to or max(numbers, default=0)),
            tasks=[SlotTask(START + number, parameters) for number in numbers],
            missed=missed if isinstance(missed, int) else [START + number for number in missed],
        )
        self.revision, self.cursor = settled.revision, settled.cursor
        return settled

    async def now(self) -> ScheduleRecord:
        """The schedule as it is stored."""
        found = await self.schedules.get(self.name)
        assert found
        return found

    def task(self, number: int) -> str:
        """The task of that slot."""
        return task_of(START + number, self.name)


def told(fires: Sequence[Fire]) -> list[tuple[int, str]]:
    """Slots after START and what became of them."""
    return [((fire.slot or START) - START, fire.outcome) for fire in fires]


async def end(
    managed: ManagedTasks, task_id: str, status: TaskStatus = TaskStatus.COMPLETED
) -> None:
    """Run a task to its end."""
    await managed.begin(task_id, 1, worker="w")
    await managed.finish(task_id, 1, status)
