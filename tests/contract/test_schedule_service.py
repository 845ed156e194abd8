"""The service of schedules on a real store: edits drop nothing that is due, runs, backfills."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.errors import BadInputError, InvalidScheduleError, ScheduleOwesError
from app.services.schedules import MAX_PREVIEW, ScheduleService
from app.services.schedules_plan import SchedulePlan
from task_state import (
    JsonObject,
    ScheduleConflictError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    keys,
)
from task_state.admission import Admission
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from task_state.schedules import Overlap, Schedules, ScheduleSpec
from tests.contract.schedule_store import NAME, spec, task_of
from tests.contract.store import Keyspace


@pytest.fixture
def service(provider: RedisRepositoryProvider) -> ScheduleService:
    return ScheduleService(provider, timeout_seconds=60, default_timezone="Asia/Seoul")


class Past:
    """A schedule whose cursor is moved into the past: as if no scheduler had run."""

    def __init__(self, service: ScheduleService, schedules: Schedules, keyspace: Keyspace) -> None:
        self.service = service
        self.schedules = schedules
        self.keyspace = keyspace

    async def made(self, seconds: int, own: ScheduleSpec, name: str = NAME) -> int:
        """Create it; its cursor, so many seconds ago."""
        await self.service.create(name, own)
        cursor = int(await self.schedules.now()) - seconds
        self.keyspace.client.hset(keys.schedule(name), "cursor", str(cursor))
        return cursor


@pytest.fixture
def past(service: ScheduleService, schedules: Schedules, keyspace: Keyspace) -> Past:
    return Past(service, schedules, keyspace)


async def parameters(repository: RedisTaskRepository, *slots: int) -> list[JsonObject | None]:
    """What the slots' tasks were given; None where there is none."""
    tasks = await repository.list_by_ids([task_of(slot) for slot in slots])
    found = {task.task_id: task.parameters for task in tasks}
    return [found.get(task_of(slot)) for slot in slots]


def caught_up(**values: Any) -> ScheduleSpec:
    return spec(coalesce="all", overlap="allow", **values)


# ----------------------------------------------------------------------------------------- creation
async def test_a_schedule_is_created_shown_listed_and_deleted(service: ScheduleService) -> None:
    made = await service.create("b", spec(cron="0 9 * * *"), paused=True, reason="아직")
    assert (made.record.paused, made.record.reason) == (True, "아직")
    await service.create("a", spec(cron="0 9 * * *"))
    assert (await service.get("a")).words == "at 09:00"
    assert [view.record.schedule_id for view in (await service.list(limit=10)).views] == ["a", "b"]
    later = await service.list(after="a", limit=10)
    assert [view.record.schedule_id for view in later.views] == ["b"]
    with pytest.raises(ScheduleExistsError):
        await service.create("a", spec())
    await service.delete("a")
    for call in (service.get("a"), service.delete("a"), service.fires("a"), service.run("a")):
        with pytest.raises(ScheduleNotFoundError):
            await call


async def test_what_means_nothing_is_not_stored(service: ScheduleService) -> None:
    for wrong in (
        spec(cron="61 * * * *"),
        spec(timezone="Mars/Base"),
        spec(parameters={"src": "{{ slto }}"}),
        # Ten times as long as it is written.
        spec(parameters={"much": "{{ slot:" + "%F" * 30_000 + " }}"}),
    ):
        with pytest.raises(InvalidScheduleError):
            service.preview(wrong)
        with pytest.raises(InvalidScheduleError):
            await service.create(NAME, wrong)
        await service.create("other", spec())
        with pytest.raises(InvalidScheduleError):
            await service.replace("other", wrong)
        await service.delete("other")
    assert (await service.list()).views == []


def test_a_preview_stores_nothing_and_is_bounded(service: ScheduleService) -> None:
    own = service.read({"cron": "@hourly", "service": "sync", "user_id": "a"})
    shown = service.preview(own, count=3, after=datetime(2026, 1, 5, 9, 30))  # noqa: DTZ001
    assert [fire.slot.isoformat() for fire in shown.fires] == [
        f"2026-01-05T{hour}:00:00+09:00" for hour in (10, 11, 12)
    ]
    assert shown.words == "every hour"
    for count in (0, MAX_PREVIEW + 1):
        with pytest.raises(BadInputError):
            service.preview(own, count=count)


# -------------------------------------------------------------------------------------------- edits
async def test_an_edit_settles_first_what_the_old_spec_owes(
    service: ScheduleService, past: Past, repository: RedisTaskRepository
) -> None:
    cursor = await past.made(5, caught_up(parameters={"of": "old", "at": "{{ slot:%s }}"}))
    view = await service.replace(NAME, spec(cron="0 0 1 1 *", parameters={"of": "new"}))
    record = view.record
    slots = range(cursor + 1, record.cursor + 1)
    assert record.revision > 1
    assert record.fired == len(slots) >= 5
    found = await parameters(repository, *slots)
    assert found == [{"of": "old", "at": str(slot)} for slot in slots]
    assert await parameters(repository, cursor, record.cursor + 1) == [None, None]


async def test_an_edit_fires_nothing_of_the_new_spec_before_it(
    service: ScheduleService, past: Past
) -> None:
    await past.made(3600, spec(cron="0 0 1 1 *"))
    record = (await service.replace(NAME, caught_up())).record
    assert record.fired == 0
    assert abs(record.cursor - await past.schedules.now()) < 60


async def test_an_edit_fires_a_slot_that_jitter_holds_back(
    service: ScheduleService, past: Past, repository: RedisTaskRepository
) -> None:
    moment = datetime.fromtimestamp(int(await past.schedules.now()) - 5, UTC)
    slot = int(moment.timestamp())
    yearly = spec(cron=f"{moment:%-S %-M %-H %-d %-m} *", jitter_seconds=86_400)
    names = (f"n{number}" for number in range(10_000))
    name = next(one for one in names if SchedulePlan.of(one, yearly).due(slot) > slot + 7200)
    cursor = await past.made(10, yearly, name)
    record = (await service.replace(name, spec(cron="0 0 1 1 *"))).record
    assert cursor < slot <= record.cursor
    assert record.fired == 1
    assert len(await repository.list_by_ids([task_of(slot, name)])) == 1


async def test_an_edit_of_a_revision_is_refused_when_another_came_first(
    service: ScheduleService,
) -> None:
    revision = (await service.create(NAME, spec())).record.revision
    edits = [
        service.replace(NAME, spec(description=f"{number}"), revision=revision)
        for number in range(8)
    ]
    results = await asyncio.gather(*edits, return_exceptions=True)
    assert sum(isinstance(result, ScheduleConflictError) for result in results) == 7
    (await service.replace(NAME, spec(description="last")))
    assert (await service.get(NAME)).record.spec.description == "last"


async def test_edits_at_the_same_time_all_come_about(
    service: ScheduleService, past: Past, repository: RedisTaskRepository
) -> None:
    cursor = await past.made(20, caught_up())
    edits = [service.replace(NAME, caught_up(description=f"{number}")) for number in range(8)]
    views = await asyncio.gather(*edits)
    assert len({view.record.revision for view in views}) == 8
    record = (await service.get(NAME)).record
    slots = range(cursor + 1, record.cursor + 1)
    assert (record.fired, record.missed) == (len(slots), 0)
    assert None not in await parameters(repository, *slots)


async def test_an_edit_waits_for_a_drained_service_unless_what_is_due_is_given_up(
    service: ScheduleService, past: Past, admission: Admission
) -> None:
    await past.made(5, caught_up())
    await admission.drain("sync")
    with pytest.raises(ScheduleOwesError, match="'sync' is being drained"):
        await service.replace(NAME, spec(description="new"))
    await service.pause(NAME)
    await service.replace(NAME, spec(description="new"))
    await service.resume(NAME)
    record = (await service.get(NAME)).record
    assert (record.fired, record.paused, record.spec.description) == (0, False, "new")


async def test_a_schedule_that_nobody_understands_can_be_mended(
    service: ScheduleService, past: Past, schedules: Schedules
) -> None:
    await schedules.create(NAME, spec(cron="never", parameters={"x": "{{ no }}"}))
    view = await service.get(NAME)
    assert view.problem is not None
    assert view.next_fires == []
    with pytest.raises(InvalidScheduleError):
        await service.run(NAME)
    mended = await service.replace(NAME, spec(cron="@daily"))
    assert (mended.problem, mended.record.fired) == (None, 0)


async def test_a_schedule_whose_tasks_would_be_too_long_can_be_mended(
    service: ScheduleService, past: Past, schedules: Schedules, keyspace: Keyspace
) -> None:
    long = {"much": "{{ slot:" + "%F" * 30_000 + " }}"}
    await schedules.create(NAME, caught_up(parameters=long))
    keyspace.client.hincrby(keys.schedule(NAME), "cursor", -5)
    record = (await service.replace(NAME, spec(cron="@daily"))).record
    assert record.spec.parameters == {}


# ------------------------------------------------------------------------------------ runs by hand
async def test_a_run_by_hand_is_filled_in_with_its_moment(
    service: ScheduleService, schedules: Schedules, repository: RedisTaskRepository
) -> None:
    own = spec(cron="0 0 1 1 *", parameters={"at": "{{ slot:%s }}", "next": "{{ next:%m-%d }}"})
    await service.create(NAME, own, paused=True)
    before = int(await schedules.now())
    fire = await service.run(NAME, idempotency_key="k")
    again = await service.run(NAME, idempotency_key="k")
    assert (fire.outcome, again.outcome) == ("fired", "existing")
    assert fire.task_id == again.task_id
    assert fire.task_id is not None
    task = await repository.get(fire.task_id)
    assert task is not None
    assert task.parameters["next"] == "01-01"
    assert before <= int(task.parameters["at"]) <= await schedules.now()


# --------------------------------------------------------------------------------------- backfills
def minutes(count: int, last: int = 10) -> tuple[datetime, datetime]:
    """A range of so many minutes that ended minutes ago."""
    end = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=last)
    return end - timedelta(minutes=count), end


async def test_a_backfill_makes_up_the_slots_of_a_range_once(
    service: ScheduleService, repository: RedisTaskRepository
) -> None:
    await service.create(NAME, spec(cron="* * * * *", parameters={"at": "{{ slot:%s }}"}))
    some = minutes(3)
    first = int(some[0].timestamp())
    slots = [first, first + 60, first + 120]
    dry = await service.backfill(NAME, *some, dry_run=True)
    assert [(fire.slot, fire.outcome) for fire in dry.fires] == [(slot, "fired") for slot in slots]
    assert await parameters(repository, *slots) == [None] * 3
    done = await service.backfill(NAME, *some, overlap=Overlap.ALLOW)
    assert [fire.slot for fire in done.fires] == slots
    assert await parameters(repository, first - 60, *slots, first + 180) == [
        None, *({"at": str(slot)} for slot in slots), None,
    ]  # fmt: skip
    wider = (some[0] - timedelta(minutes=1), some[1])
    for dry_run in (True, False):
        again = await service.backfill(NAME, *wider, overlap=Overlap.ALLOW, dry_run=dry_run)
        assert [fire.outcome for fire in again.fires] == ["fired", *["existing"] * 3]


async def test_a_backfill_runs_one_after_the_other_by_default(service: ScheduleService) -> None:
    await service.create(NAME, spec(cron="* * * * *"))
    done = await service.backfill(NAME, *minutes(3))
    assert [fire.outcome for fire in done.fires] == ["fired", "buffered", "buffered"]
    again = await service.backfill(NAME, *minutes(3))
    assert [fire.outcome for fire in again.fires] == ["existing"] * 3


async def test_a_large_backfill_goes_in_pieces_and_has_a_bound(
    service: ScheduleService, repository: RedisTaskRepository
) -> None:
    await service.create(NAME, spec(cron="* * * * *"))
    with pytest.raises(BadInputError, match="250 slots would have to wait"):
        await service.backfill(NAME, *minutes(250))
    done = await service.backfill(NAME, *minutes(250), overlap=Overlap.ALLOW)
    assert [fire.outcome for fire in done.fires] == ["fired"] * 250
    found = await parameters(repository, *(fire.slot or 0 for fire in done.fires[:200]))
    assert None not in found
    with pytest.raises(BadInputError, match="1001 slots"):
        await service.backfill(NAME, *minutes(1001), overlap=Overlap.ALLOW)


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [(-60, 3600, "in the future"), (-60, -60, "not before"), (-30, -60, "not before")],
)
async def test_ranges_that_make_no_sense(
    service: ScheduleService, start: int, end: int, words: str
) -> None:
    await service.create(NAME, spec(cron="* * * * *"))
    moment = datetime.now(UTC)
    with pytest.raises(BadInputError, match=words):
        await service.backfill(
            NAME, moment + timedelta(seconds=start), moment + timedelta(seconds=end)
        )


async def test_a_range_before_time_began(service: ScheduleService) -> None:
    await service.create(NAME, spec(cron="* * * * *"))
    for year in (1, 1969):
        with pytest.raises(BadInputError, match="before 1970"):
            await service.backfill(NAME, datetime(year, 1, 1, tzinfo=UTC), None)


async def test_a_range_without_a_zone_is_the_schedules(service: ScheduleService) -> None:
    own = spec(cron="0 9 * * *", timezone="Asia/Seoul", start_at="2025-06-02T00:00:00+09:00")
    await service.create(NAME, own)
    done = await service.backfill(
        NAME, datetime(2025, 6, 1), datetime(2025, 6, 4, 9), dry_run=True  # noqa: DTZ001
    )  # fmt: skip
    moments = [datetime.fromtimestamp(fire.slot or 0, UTC).isoformat() for fire in done.fires]
    assert moments == ["2025-06-02T00:00:00+00:00", "2025-06-03T00:00:00+00:00"]
