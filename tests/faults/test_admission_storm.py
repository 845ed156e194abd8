"""Everything at once: submissions, pauses, drains, cancels, deletes, and workers and a server that
die or stand still. Whatever the order, each task ends, limits hold, and the store is consistent."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from app.core.events import DISPATCH_GROUP
from dms_scheduler.rescuer import Rescuer, RescuerSettings
from task_state import (
    ServiceDrainingError,
    StoreUnavailableError,
    TaskNotFoundError,
    TransitionError,
    keys,
)
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from tests.contract.servers import RealServer, running
from tests.faults.test_admission_faults import most_at_once
from tests.support import handlers  # its definitions' limits are the admitter's in this process too
from tests.support.worker_process import SHORT, Client, WorkerProcess

SERVICES = ["t.add-inline", "t.first", "t.two-at-once", "t.one-a-user", "e.fail"]
USERS = ["u0", "u1", "u2"]
STEPS = 120
# What runs when a worker is lost is given to another one after its lease, again and again.
END_SECONDS = 300.0
# Leases that a busy machine can keep: what is lost is lost by the storm.
TWO_SLOTS = {**SHORT, "DMS_LEASE_SECONDS": "6", "DMS_HEARTBEAT_SECONDS": "1.5"} | {
    "DMS_WORKER_CONCURRENCY": "2"
}

pytestmark = pytest.mark.timeout(500)


class Storm:
    """Two schedulers' admitters, three workers, and a dice."""

    def __init__(self, server: RealServer, folder: Path, dice: random.Random) -> None:
        assert handlers.Numbers
        self.server = server
        self.dice = dice
        self.ids: list[str] = []
        self.deleted = set[str]()
        self.schedulers: list[Client] = []
        self.workers: list[WorkerProcess] = []
        self._folder = folder
        self._stopped: list[WorkerProcess] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Storm":
        for _ in range(2):
            client = await self._stack.enter_async_context(
                Client(self.server.url, timeout_seconds=60)
            )
            self.schedulers.append(client)
            admitting = asyncio.create_task(client.admitter.run())
            self._stack.push_async_callback(client.admitter.end, admitting)
        for _ in range(3):
            self._hire()
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.send(signal.SIGKILL)  # one that stands still would not end otherwise
        await self._stack.aclose()

    @property
    def client(self) -> Client:
        """One of the schedulers."""
        return self.dice.choice(self.schedulers)

    def _hire(self) -> None:
        worker = self._stack.enter_context(WorkerProcess(self.server.url, TWO_SLOTS))
        self.workers.append(worker)

    async def step(self) -> None:
        """One event, most often a submission."""
        events: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (60, self.submit), (16, self.change_mode), (8, self.cancel), (4, self.delete),
            (1, self.kill), (1, self.stand_still), (2, self.go_on), (1, self.restart),
        ]  # fmt: skip
        weights = [weight for weight, _ in events]
        ((_, event),) = self.dice.choices(events, weights)
        # A refusal is an answer; while the server is away there is none.
        with contextlib.suppress(
            ServiceDrainingError, TaskNotFoundError, TransitionError, StoreUnavailableError
        ):
            await event()

    async def submit(self) -> None:
        folder = self._folder / str(len(self.ids))
        folder.mkdir(exist_ok=True)
        service = self.dice.choice(SERVICES)
        numbers = {"first": 1, "second": 1}
        parameters: dict[str, Any] = {"file": str(self._folder), "folder": str(folder)}
        made = await self.client.managed.submit(
            service=service,
            user_id=self.dice.choice(USERS),
            parameters=numbers if service in {"t.add-inline", "t.first"} else parameters,
        )
        self.ids.append(made.task_id)
        if self.dice.random() < 0.9:  # of the others the event is late
            await self.client.managed.accept(made.task_id)
            self.client.admitter.wake()

    async def change_mode(self) -> None:
        admission = self.client.admission
        change = self.dice.choice([admission.pause, admission.drain, *[admission.resume] * 4])
        await change(self.dice.choice([*SERVICES, "*"]))

    async def cancel(self) -> None:
        if self.ids:
            await self.client.managed.cancel(self.dice.choice(self.ids[-20:]))

    async def delete(self) -> None:
        if self.ids:
            task_id = self.dice.choice(self.ids[-20:])
            self.deleted.add(task_id)
            await self.client.repository.delete(task_id)

    async def kill(self) -> None:
        worker = self.workers.pop(self.dice.randrange(3))
        worker.send(signal.SIGKILL)
        self._hire()

    async def stand_still(self) -> None:
        worker = self.dice.choice(self.workers)
        worker.send(signal.SIGSTOP)
        self._stopped.append(worker)

    async def go_on(self) -> None:
        while self._stopped:
            worker = self._stopped.pop()
            if worker.process.poll() is None:
                worker.send(signal.SIGCONT)

    async def restart(self) -> None:
        self.server.kill()
        self.server.start()

    async def calm_down(self) -> None:
        """Let all workers go on, end every pause, and have every event arrive."""
        await self.go_on()
        for service in [*SERVICES, "*"]:
            await self.client.admission.resume(service)
        for task_id in self.stored():
            await self.client.managed.accept(task_id)

    def stored(self) -> list[str]:
        """All tasks, also those whose submission got no answer; none is gone by itself."""
        with self.server.client() as raw:
            found = [
                task_id.decode() for task_id in cast("list[bytes]", raw.zrange(keys.IDS, 0, -1))
            ]
        assert set(self.ids) - self.deleted <= set(found)
        return found


@contextlib.asynccontextmanager
async def rescuing(client: Client) -> AsyncGenerator[None]:
    """A rescuer beside the workers' own, some of which stand still."""
    provider = RedisRepositoryProvider(
        RedisRepositorySettings(write_url=client.url, timeout_seconds=60)
    )
    rescuer = Rescuer(provider, client.engine, RescuerSettings.of(1.5), client.admitter.wake)
    task = asyncio.create_task(rescuer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await provider.close()


async def settled(client: Client, ids: list[str]) -> None:
    """Wait until all of them have ended."""
    async with asyncio.timeout(END_SECONDS):
        while True:
            records = await client.repository.list_by_ids(ids)
            if all(record.status.is_terminal for record in records):
                return
            await asyncio.sleep(0.2)


async def findings(url: str) -> list[Any]:
    provider = RedisRepositoryProvider(RedisRepositorySettings(write_url=url, timeout_seconds=60))
    try:
        audit = await provider.get_audit(DISPATCH_GROUP)
        return [finding async for finding in audit.walk()]
    finally:
        await provider.close()


async def test_a_storm_leaves_every_task_ended_and_the_store_whole(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)  # pytest shows it with a failure
    with running("valkey", "--appendonly", "yes", "--appendfsync", "always") as server:
        async with Storm(server, tmp_path, random.Random(seed)) as storm:
            async with rescuing(storm.schedulers[0]):
                for _ in range(STEPS):
                    await storm.step()
                    await asyncio.sleep(storm.dice.random() * 0.05)
                await storm.calm_down()
                await settled(storm.client, storm.stored())
            assert await findings(server.url) == []
            states = await storm.client.admission.states()
            assert [each for each in states if each.waiting + each.delayed + each.running] == []
            with server.client() as raw:
                names = cast("list[bytes]", raw.keys(f"{keys.PREFIX}*"))
                families = {name.decode().removeprefix(keys.PREFIX).split(":")[0] for name in names}
                assert not families & {"lane", "ring", "busy", "arriving", "held", "queued"}
                mine: dict[str, list[str]] = {name: [] for name in SERVICES}
                for record in await storm.client.repository.list_by_ids(storm.stored()):
                    mine[record.service].append(record.task_id)
                assert most_at_once(raw, mine["t.two-at-once"]) <= 2
                assert most_at_once(raw, mine["t.one-a-user"], {}) <= 1
