"""The runner of schedules on real servers: each slot once, whatever is edited, paused or broken."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from app.services.schedules import ScheduleService
from app.services.schedules_plan import SchedulePlan
from dms_scheduler.schedule_metrics import ScheduleMetrics
from dms_scheduler.schedule_runner import ScheduleRunner
from task_state import TaskStatus, keys
from task_state.admission import Admission
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from task_state.schedules import Overlap, ScheduleRecord, Schedules, ScheduleSpec, Settled
from tests.contract.schedule_store import NAME, end, spec, task_of
from tests.contract.servers import RealServer
from tests.contract.store import Keyspace
from tests.support.worker_process import eventually

OLD = 1_700_000_000


@pytest.fixture
def service(provider: RedisRepositoryProvider) -> ScheduleService:
    return ScheduleService(provider, timeout_seconds=60, default_timezone="UTC")


class Replica:
    """A runner with connections and metrics of its own."""

    def __init__(self, url: str, timeout: float, poll_seconds: float) -> None:
        settings = RedisRepositorySettings(write_url=url, timeout_seconds=timeout)
        self.provider = RedisRepositoryProvider(settings)
        self.registry = CollectorRegistry()
        self.runner = ScheduleRunner(
            self.provider, ScheduleMetrics(self.registry), poll_seconds=poll_seconds
        )

    def counted(self, name: str, **labels: str) -> float:
        """A value of its metrics."""
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def replica(
    url: str, timeout: float = 60, poll_seconds: float = 0.05
) -> AsyncGenerator[Replica]:
    """A runner that runs."""
    made = Replica(url, timeout, poll_seconds)
    running = asyncio.create_task(made.runner.run())
    try:
        yield made
        assert not running.done(), "it ended by itself"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await made.provider.close()


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncGenerator[None]:
    """After a test no task of a runner is left."""
    yield
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert not [name for name in names if name.startswith("timetable")]


@pytest.fixture
def url(shared_server: RealServer) -> str:
    return shared_server.url


def each_second(**values: Any) -> ScheduleSpec:
    """A schedule of which no slot is ever too late."""
    return spec(**{"overlap": "allow", "grace_seconds": 3600, **values})


class Seen:
    """A schedule and its tasks."""

    def __init__(self, schedules: Schedules, repository: RedisTaskRepository) -> None:
        self.schedules = schedules
        self.repository = repository

    async def record(self, name: str = NAME) -> ScheduleRecord:
        found = await self.schedules.get(name)
        assert found is not None
        return found

    async def until(
        self, holds: Callable[[ScheduleRecord], bool], what: str, name: str = NAME
    ) -> ScheduleRecord:
        async def look() -> bool:
            return holds(await self.record(name))

        await eventually(look, what)
        return await self.record(name)

    async def given(self, slots: range, name: str = NAME) -> dict[int, Any]:
        """The parameters of the tasks that there are."""
        tasks = await self.repository.list_by_ids([task_of(slot, name) for slot in slots][:200])
        return {int(task.task_id.rpartition(".")[2]): task.parameters for task in tasks}


@pytest.fixture
def seen(schedules: Schedules, repository: RedisTaskRepository) -> Seen:
    return Seen(schedules, repository)


def moved(keyspace: Keyspace, cursor: int, name: str = NAME) -> None:
    """As if everything up to then had been settled, and nothing since."""
    keyspace.client.hset(keys.schedule(name), "cursor", str(cursor))


# ------------------------------------------------------------------------------------------- firing
async def test_three_replicas_fire_each_slot_once(
    url: str, service: ScheduleService, seen: Seen
) -> None:
    own = each_second(parameters={"at": "{{ slot:%s }}"})
    begin = (await service.create(NAME, own)).record.cursor
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(url)) for _ in range(3)]
        await seen.until(lambda record: record.fired >= 4, "four have fired")
        record = (await service.pause(NAME)).record
        fired = [one.counted("dms_schedule_fires_total", outcome="fired") for one in replicas]
        lags = [one.counted("dms_schedule_lag_seconds_count") for one in replicas]
    slots = range(begin + 1, record.cursor + 1)
    assert (record.fired, record.missed, record.skipped) == (len(slots), 0, 0)
    assert await seen.given(slots) == {slot: {"at": str(slot)} for slot in slots}
    assert len(slots) - 1 <= sum(fired) <= len(slots)  # the last answer may be on its way
    assert fired == lags


async def test_nothing_fires_before_it_is_due(
    url: str, service: ScheduleService, seen: Seen
) -> None:
    own = each_second(cron="*/2 * * * * *", jitter_seconds=2)
    await service.create(NAME, own)
    async with replica(url):
        await seen.until(lambda record: record.fired >= 3, "three have fired")
    plan = SchedulePlan.of(NAME, own)
    for fire in await service.fires(NAME):
        assert fire.slot is not None
        assert fire.at.timestamp() >= plan.due(fire.slot) - 0.001


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
async def test_the_clock_of_the_machine_does_not_matter(
    url: str, service: ScheduleService, seen: Seen, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + wrong)
    await service.create(NAME, each_second())
    async with replica(url):
        await seen.until(lambda record: record.fired >= 2, "two have fired")
    for fire in await service.fires(NAME):
        assert fire.slot is not None
        assert -1 <= fire.at.timestamp() - fire.slot < 1800


async def test_a_night_with_a_clock_change_has_its_slots_once(
    url: str, service: ScheduleService, seen: Seen, keyspace: Keyspace
) -> None:
    values: dict[str, Any] = {
        "timezone": "America/New_York",
        "coalesce": "all",
        "end_at": "2024-11-05T00:00:00Z",
    }
    # 2024-03-10 had no half past two, 2024-11-03 two times half past one.
    await service.create(
        "gap", each_second(cron="30 2 * * *", **values | {"end_at": "2024-03-12T04:00:00Z"})
    )
    await service.create("twice", each_second(cron="30 1 * * *", **values))
    moved(keyspace, int(datetime(2024, 3, 8, 12, tzinfo=UTC).timestamp()), "gap")
    moved(keyspace, int(datetime(2024, 11, 1, 12, tzinfo=UTC).timestamp()), "twice")
    async with replica(url):
        for name in ("gap", "twice"):
            await seen.until(lambda record: record.fired > 0, "it fired", name)
    found = {
        name: [
            datetime.fromtimestamp(fire.slot or 0, UTC).isoformat(" ", "minutes")[5:16]
            for fire in reversed(await service.fires(name))
        ]
        for name in ("gap", "twice")
    }
    assert found == {
        "gap": ["03-09 07:30", "03-10 07:00", "03-11 06:30"],
        "twice": ["11-02 05:30", "11-03 05:30", "11-04 06:30"],
    }


# -------------------------------------------------------------------------------------------- edits
async def test_edits_while_it_fires_drop_nothing_and_double_nothing(
    url: str, service: ScheduleService, seen: Seen
) -> None:
    begin = (await service.create(NAME, each_second(parameters={"of": 0}))).record.cursor
    edits: list[tuple[int, int]] = []
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(replica(url))
        for number in range(1, 41):
            changed = await service.replace(NAME, each_second(parameters={"of": number}))
            edits.append((changed.record.cursor, number))
            await asyncio.sleep(0.1)
        last = edits[-1][0]
        await seen.until(lambda record: record.cursor > last + 1, "the last spec has fired")
        record = (await service.pause(NAME)).record
    slots = range(begin + 1, record.cursor + 1)
    given = await seen.given(slots)
    assert list(given) == list(slots) or sorted(given) == list(slots)
    for slot in slots:
        in_force = max((number for cursor, number in edits if cursor < slot), default=0)
        assert given[slot] == {"of": in_force}
    assert (record.fired, record.missed) == (len(slots), 0)


async def test_pause_and_resume_are_heeded_by_a_running_replica(
    url: str, service: ScheduleService, seen: Seen
) -> None:
    await service.create(NAME, each_second())
    async with replica(url) as one:
        await seen.until(lambda record: record.fired >= 1, "it fires")
        paused = (await service.pause(NAME)).record
        await eventually(
            lambda: one.counted("dms_schedules", state="paused") == 1, "the replica knows"
        )
        await service.create("other", each_second())
        await seen.until(lambda record: record.fired >= 2, "time goes on", "other")
        assert (await seen.record()).fired == paused.fired
        resumed = (await service.resume(NAME)).record
        await seen.until(lambda record: record.fired > paused.fired, "it fires again")
    pause = range(paused.cursor + 1, resumed.cursor + 1)
    assert len(pause) >= 1
    assert await seen.given(pause) == {}


async def test_a_deleted_and_made_again_schedule_fires_by_its_new_spec(
    url: str, service: ScheduleService, seen: Seen
) -> None:
    await service.create(NAME, each_second(parameters={"of": "old"}))
    async with replica(url) as one:
        await seen.until(lambda record: record.fired >= 1, "it fires")
        await service.delete(NAME)
        await eventually(
            lambda: one.counted("dms_schedules", state="active") == 0, "the replica knows"
        )
        begin = (await service.create(NAME, each_second(parameters={"of": "new"}))).record.cursor
        record = await seen.until(lambda record: record.fired >= 2, "the new one fires")
    given = await seen.given(range(begin + 1, record.cursor + 1))
    assert list(given.values()) == [{"of": "new"}] * len(given)


async def test_a_replica_that_starts_later_knows_all_schedules(
    url: str, service: ScheduleService, schedules: Schedules, seen: Seen
) -> None:
    rare = spec(cron="0 0 1 1 *")
    for start in range(0, 450, 50):
        await asyncio.gather(*(schedules.create(f"n{start + n}", rare) for n in range(50)))
    for number in range(0, 450, 9):
        await schedules.delete(f"n{number}")
    async with replica(url) as one:
        await eventually(lambda: one.counted("dms_schedules", state="active") == 400, "all known")


# ----------------------------------------------------------------------------------------- misfires
@pytest.mark.parametrize(
    ("coalesce", "fires"), [("latest", 1), ("earliest", 1), ("all", 5), ("none", 0)]
)
async def test_what_nobody_fired_in_time_goes_by_the_policy(
    url: str, service: ScheduleService, seen: Seen, keyspace: Keyspace,
    caplog: pytest.LogCaptureFixture, coalesce: str, fires: int,
) -> None:  # fmt: skip
    own = spec(
        cron="*/10 * * * * *", overlap="allow", coalesce=coalesce, max_catchup=5,
        end_at=datetime.fromtimestamp(OLD + 1000, UTC),
    )  # fmt: skip
    await service.create(NAME, own)
    moved(keyspace, OLD)
    async with replica(url) as one:
        record = await seen.until(lambda record: record.cursor > OLD, "it was settled")
        await eventually(lambda: one.counted("dms_schedule_misfires_total") > 0, "it was counted")
        assert one.counted("dms_schedule_misfires_total") == 99 - fires
    assert (record.fired, record.missed) == (fires, 99 - fires)
    history = [(fire.outcome, fire.count) for fire in await service.fires(NAME)]
    assert sorted(history) == sorted([("missed", 99 - fires), *[("fired", 1)] * fires])
    (warning,) = [
        each for each in caplog.records if each.message == "Slots of a schedule were missed"
    ]
    assert warning.levelno == logging.WARNING


async def test_a_year_of_missed_seconds_holds_up_nothing(
    url: str, service: ScheduleService, seen: Seen, keyspace: Keyspace
) -> None:
    for number in range(20):
        name = f"late-{number}"
        await service.create(name, spec(overlap="allow"))
        moved(keyspace, OLD, name)
    await service.create(NAME, each_second())
    async with replica(url):
        await seen.until(lambda record: record.fired >= 2, "the punctual one fires")
        for number in range(20):
            record = await seen.until(lambda record: record.fired > 0, "it fired", f"late-{number}")
            assert record.missed > 30_000_000


# ---------------------------------------------------------------------------------- what is broken
async def test_a_schedule_that_nobody_understands_is_paused_and_holds_up_nothing(
    url: str, service: ScheduleService, schedules: Schedules, seen: Seen, keyspace: Keyspace,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    await schedules.create("cron", spec(cron="never"))
    await schedules.create("zone", spec(timezone="Mars/Base"))
    await schedules.create("template", spec(parameters={"x": "{{ no }}"}))
    await schedules.create("long", each_second(parameters={"x": "{{ slot:" + "%F" * 30_000 + "}}"}))
    await schedules.create("newer", spec())
    keyspace.client.hset(keys.schedule("newer"), "spec", '{"of": "another version"}')
    await service.create(NAME, each_second())
    async with replica(url):
        for name, why in (
            ("cron", "it cannot fire: cron: "),
            ("zone", "it cannot fire: timezone: "),
            ("template", "it cannot fire: parameters.x: "),
            ("long", "it cannot fire: the parameters are "),
        ):
            record = await seen.until(lambda record: record.paused, "it is paused", name)
            assert (record.reason or "").startswith(why)
        await seen.until(lambda record: record.fired >= 2, "the sound one fires")
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert sorted(each.message.split(",")[0] for each in errors) == [
        *["A stored schedule cannot be read by this version"],
        *["A stored schedule means nothing"] * 4,
    ]


async def test_a_mended_schedule_fires_when_it_is_resumed(
    url: str, service: ScheduleService, schedules: Schedules, seen: Seen
) -> None:
    await schedules.create(NAME, spec(cron="never"))
    async with replica(url):
        await seen.until(lambda record: record.paused, "it is paused")
        await service.replace(NAME, each_second())
        await service.resume(NAME)
        await seen.until(lambda record: record.fired >= 1, "it fires")


async def test_what_was_mended_meanwhile_is_not_paused(
    url: str, schedules: Schedules, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit comes when the runner is about to settle what it has read, and finds it broken."""
    await schedules.create(NAME, spec(parameters={"x": "{{ slot:" + "%F" * 30_000 + "}}"}))
    settle, edited = Schedules.settle, False

    async def edited_before(self: Schedules, schedule_id: str, **values: Any) -> Settled:
        nonlocal edited
        if not edited:
            edited = True
            old = await seen.record()
            await schedules.replace(
                NAME, spec(), revision=old.revision, cursor=old.cursor, before=None
            )
        return await settle(self, schedule_id, **values)

    monkeypatch.setattr(Schedules, "settle", edited_before)
    async with replica(url, poll_seconds=3600):
        record = await seen.until(lambda record: record.fired >= 1, "it fires as mended")
    assert edited
    assert not record.paused


# ------------------------------------------------------------------------------- services and tasks
async def test_a_drained_service_makes_its_schedules_wait(
    url: str, service: ScheduleService, admission: Admission, seen: Seen
) -> None:
    begin = (await service.create(NAME, each_second())).record.cursor
    await service.create("other", each_second(service="copy"))
    await admission.drain("sync")
    async with replica(url):
        await seen.until(lambda record: record.fired >= 3, "the other one fires", "other")
        assert (await seen.record()).fired == 0
        await admission.resume("sync")
        await seen.until(lambda record: record.fired >= 4, "it has caught up")
        record = (await service.pause(NAME)).record
    slots = range(begin + 1, record.cursor + 1)
    assert sorted(await seen.given(slots)) == list(slots)


async def test_slots_that_wait_start_when_the_task_before_has_ended(
    url: str, service: ScheduleService, managed: ManagedTasks, seen: Seen
) -> None:
    await service.create(NAME, each_second(overlap=Overlap.BUFFER_ALL))
    async with replica(url) as one:
        await seen.until(lambda record: len(record.buffered) >= 2, "two wait")
        rare = spec(cron="0 0 1 1 *", overlap="buffer_all")  # no slot of its own helps them on
        record = (await service.replace(NAME, rare)).record
        first, waiting = record.active, sorted(record.buffered)
        assert len(first) == 1
        await end(managed, first[0])
        await seen.until(lambda record: record.active == [task_of(waiting[0])], "the next started")
        await end(managed, task_of(waiting[0]))
        await seen.until(lambda record: record.active == [task_of(waiting[1])], "and the next")
        assert one.counted("dms_schedule_fires_total", outcome="buffered") >= 2


async def test_failures_in_a_row_pause_a_schedule(
    url: str, service: ScheduleService, managed: ManagedTasks, seen: Seen
) -> None:
    await service.create(NAME, each_second(pause_after_failures=2))
    async with replica(url) as one:
        record = await seen.until(lambda record: record.active_count >= 2, "two run")
        for task_id in record.active[:2]:
            await end(managed, task_id, TaskStatus.FAILED)
        record = await seen.until(lambda record: record.paused, "it is paused")
        await eventually(
            lambda: one.counted("dms_schedules", state="paused") == 1, "the replica knows"
        )
        settled = (await seen.record()).fired
        await service.create("other", each_second())
        await seen.until(lambda record: record.fired >= 2, "time goes on", "other")
        assert (await seen.record()).fired == settled


# ------------------------------------------------------------------------------------------ outages
async def until_connected(provider: RedisRepositoryProvider) -> None:
    async def look() -> bool:
        with suppress(Exception):
            await provider.ping()
            return True
        return False

    await eventually(look, "the server answers")


@pytest.fixture
async def own_provider(own_server: RealServer) -> AsyncGenerator[RedisRepositoryProvider]:
    settings = RedisRepositorySettings(write_url=own_server.url, timeout_seconds=60)
    provider = RedisRepositoryProvider(settings)
    yield provider
    await provider.close()


async def test_an_outage_is_waited_out_and_drops_nothing(
    own_server: RealServer, own_provider: RedisRepositoryProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    provider = own_provider
    service = ScheduleService(provider, timeout_seconds=60, default_timezone="UTC")
    seen = Seen(await provider.get_schedules(), await provider.get_repository())
    begin = (await service.create(NAME, each_second())).record.cursor
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(own_server.url, 2)) for _ in range(2)]
        await seen.until(lambda record: record.fired >= 1, "it fires")
        own_server.kill()
        await eventually(lambda: all(one.runner._away for one in replicas), "they have noticed")
        own_server.start()
        await until_connected(provider)
        back = int((await seen.schedules.changed(0, limit=1)).now)
        await seen.until(lambda record: record.cursor > back, "they go on")
        await eventually(lambda: not any(one.runner._away for one in replicas), "both of them")
        record = (await service.pause(NAME)).record
    slots = range(begin + 1, record.cursor + 1)
    assert (record.fired, record.missed) == (len(slots), 0)
    said = [each.message for each in caplog.records]
    assert said.count("Schedules wait for the task store") == 2
    assert said.count("Schedules go on") == 2


async def test_a_runner_that_starts_before_its_store_waits_for_it(
    own_server: RealServer, own_provider: RedisRepositoryProvider
) -> None:
    own_server.kill()
    async with replica(own_server.url, 2) as one:
        await eventually(lambda: one.runner._away, "it has noticed")
        own_server.start()
        await until_connected(own_provider)
        seen = Seen(await own_provider.get_schedules(), await own_provider.get_repository())
        await seen.schedules.create(NAME, each_second())
        await seen.until(lambda record: record.fired >= 1, "it fires")


async def test_metrics_have_no_label_of_a_clients_choosing() -> None:
    registry = CollectorRegistry()
    ScheduleMetrics(registry).watch(lambda state: 3)
    labels = {
        name for metric in registry.collect() for sample in metric.samples for name in sample.labels
    }
    assert labels == {"state", "le"}  # `outcome` has no sample yet
