"""Stored schedules: made, changed, paused, removed; what replicas are told of it; the history."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from task_state import (
    InvalidRequestError,
    ScheduleConflictError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    ScheduleUnreadableError,
    keys,
)
from task_state.managed import ManagedTasks
from task_state.schedules import (
    MAX_FIRES,
    Overlap,
    SchedulePage,
    ScheduleRecord,
    Schedules,
    SlotTask,
)
from tests.contract.schedule_store import NAME, START, Old, end, slots, spec, told
from tests.contract.store import Keyspace


@pytest.fixture
def old(schedules: Schedules, keyspace: Keyspace) -> Old:
    return Old(schedules, keyspace)


async def stored(schedules: Schedules, name: str = NAME) -> ScheduleRecord:
    found = await schedules.get(name)
    assert found
    return found


# -------------------------------------------------------------------------------- create, get, page
async def test_a_new_schedule_is_as_it_was_given(schedules: Schedules) -> None:
    given = spec(
        parameters={"src": "/data/원본", "n": 1},
        description="매일 밤",
        overlap="buffer_all",
        grace_seconds=5.5,
        coalesce="all",
        jitter_seconds=1.5,
        start_at=datetime(2026, 1, 1, tzinfo=UTC),
        end_at=datetime(2027, 1, 1, 9, tzinfo=UTC),
        pause_after_failures=3,
        dst_policy="skip",
    )
    before = (await schedules.changed(0)).now
    made = await schedules.create(NAME, given, source="file", paused=True, reason="아직")
    assert made.spec == given
    assert (made.source, made.paused, made.reason) == ("file", True, "아직")
    assert made.paused_at == made.created_at == made.updated_at
    assert int(before) <= made.cursor <= (await schedules.changed(0)).now
    assert (made.fired, made.missed, made.skipped, made.failures) == (0, 0, 0, 0)
    assert (made.active, made.active_count, made.buffered) == ([], 0, [])
    assert await schedules.get(NAME) == made
    assert await schedules.fires(NAME) == []


async def test_a_name_is_given_once(schedules: Schedules) -> None:
    first = await schedules.create(NAME, spec())
    with pytest.raises(ScheduleExistsError, match="'nightly' already"):
        await schedules.create(NAME, spec(service="rm"))
    assert await schedules.get(NAME) == first


async def test_what_is_not_there(schedules: Schedules) -> None:
    assert await schedules.get(NAME) is None
    assert await schedules.delete(NAME) is False
    assert await schedules.page() == SchedulePage([], [], None)
    record = await schedules.settle(NAME, revision=1, cursor=1, new_cursor=2, tasks=[])
    assert record.state == "gone"
    for call in (
        schedules.pause(NAME),
        schedules.resume(NAME),
        schedules.run(NAME, {}),
        schedules.backfill(NAME, slots(START), overlap=Overlap.ALLOW),
        schedules.replace(NAME, spec(), revision=1, cursor=1, before=None),
        schedules.fires(NAME),
    ):
        with pytest.raises(ScheduleNotFoundError):
            await call


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a b", "a:b", "a" * 65, "a\n", "한글"])
async def test_names_that_are_none(schedules: Schedules, name: str) -> None:
    for call in (
        schedules.create(name, spec()),
        schedules.get(name),
        schedules.run(name, {}),
        schedules.delete(name),
        schedules.settle(name, revision=1, cursor=1, new_cursor=2, tasks=[]),
    ):
        with pytest.raises(InvalidRequestError, match="is no name of a schedule"):
            await call


@pytest.mark.parametrize(
    "values",
    [
        {"cron": ""},
        {"service": "a:b"},
        {"user_id": ".."},
        {"timezone": ""},
        {"overlap": "some"},
        {"grace_seconds": -1},
        {"grace_seconds": float("nan")},
        {"max_catchup": 0},
        {"max_catchup": 101},
        {"jitter_seconds": float("inf")},
        {"start_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - a naive one is refused
        {"start_at": datetime(2026, 1, 2, tzinfo=UTC), "end_at": datetime(2026, 1, 2, tzinfo=UTC)},
        {"pause_after_failures": 0},
        {"description": "a" * 1001},
        {"unknown": 1},
    ],
)
def test_specs_that_mean_nothing(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**values)


@pytest.mark.parametrize(
    "parameters",
    [{"n": float("nan")}, {"o": object()}, {"s": "\ud800"}, {"big": "x" * 65_536}],
)
async def test_parameters_that_cannot_be_stored(
    schedules: Schedules, parameters: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError):
        await schedules.create(NAME, spec(parameters=parameters))
    assert await schedules.get(NAME) is None


async def test_pages_go_by_name(schedules: Schedules) -> None:
    names = ["B", "a", "a.b", "a1", "b"]
    for name in reversed(names):
        await schedules.create(name, spec())
    whole = await schedules.page(limit=200)
    assert ([found.schedule_id for found in whole.records], whole.next_after) == (names, None)
    two = await schedules.page(after="a", limit=2)
    assert ([found.schedule_id for found in two.records], two.next_after) == (names[2:4], "a1")
    assert await schedules.page(after="b") == SchedulePage([], [], None)
    for limit in (0, 201):
        with pytest.raises(InvalidRequestError, match="limit"):
            await schedules.page(limit=limit)


async def test_one_that_cannot_be_read_hides_no_other(
    schedules: Schedules, keyspace: Keyspace
) -> None:
    await schedules.create("a", spec())
    await schedules.create("b", spec())
    newer = '{"cron":"* * * * *","service":"s","user_id":"u","timezone":"UTC","new":1}'
    keyspace.client.hset(keys.schedule("b"), "spec", newer)
    assert (await stored(schedules, "b")).spec.service == "s", "what is new is passed over"
    keyspace.client.hset(keys.schedule("a"), "spec", newer.replace('"new":1', '"overlap":"new"'))
    with pytest.raises(ScheduleUnreadableError, match="'a' cannot be read"):
        await schedules.get("a")
    first = await schedules.page(limit=1)
    assert (first.records, first.unreadable, first.next_after) == ([], ["a"], "a")
    rest = await schedules.page(after="a")
    assert ([found.schedule_id for found in rest.records], rest.next_after) == (["b"], None)
    changed = await schedules.changed(0)
    assert ([found.schedule_id for found in changed.records], changed.unreadable) == (["b"], ["a"])


# ------------------------------------------------------------------------------------------ replace
async def test_a_replaced_schedule_begins_now(schedules: Schedules, old: Old) -> None:
    await old.made(pause_after_failures=2)
    made = await old.now()
    changed = await schedules.replace(
        NAME, spec(service="rm"), revision=made.revision, cursor=START, before=None
    )
    assert (changed.spec, changed.created_at) == (spec(service="rm"), made.created_at)
    assert changed.revision > made.revision
    assert changed.cursor > START
    for revision, cursor in ((made.revision, changed.cursor), (changed.revision, START)):
        with pytest.raises(ScheduleConflictError):
            await schedules.replace(NAME, spec(), revision=revision, cursor=cursor, before=None)
    assert await schedules.get(NAME) == changed


async def test_an_edit_waits_for_what_is_due(schedules: Schedules) -> None:
    made = await schedules.create(NAME, spec())
    now = (await schedules.changed(0)).now
    given = {"revision": made.revision, "cursor": made.cursor}
    with pytest.raises(ScheduleConflictError):
        await schedules.replace(NAME, spec(cron="@daily"), **given, before=now)
    assert await schedules.get(NAME) == made
    await schedules.replace(NAME, spec(cron="@daily"), **given, before=now + 3600)


# ------------------------------------------------------------------------------------ pause, resume
async def test_a_paused_schedule_settles_nothing(schedules: Schedules, old: Old) -> None:
    await old.made()
    paused = await schedules.pause(NAME, "the disk is full")
    assert (paused.paused, paused.reason) == (True, "the disk is full")
    assert await schedules.pause(NAME, "the disk is full") == paused, "again: nothing changes"
    with pytest.raises(ScheduleConflictError):
        await schedules.pause(NAME, "no use", revision=paused.revision - 1)
    again = await schedules.pause(NAME, "for good")
    assert (again.paused_at, again.reason) == (paused.paused_at, "for good")
    assert await schedules.pause(NAME) == again
    old.revision = again.revision
    assert (await old.settle(1)).state == "paused"
    resumed = await schedules.resume(NAME)
    assert (resumed.paused, resumed.paused_at, resumed.reason) == (False, None, None)
    assert resumed.cursor > START, "the slots of the pause are not made up"
    assert await schedules.resume(NAME) == resumed
    old.revision = again.revision
    assert (await old.settle(1)).state == "moved"
    with pytest.raises(InvalidRequestError, match="reason of 501"):
        await schedules.pause(NAME, "a" * 501)


# ------------------------------------------------------------------------------------------ changed
async def test_replicas_are_told_what_changed(schedules: Schedules) -> None:
    empty = await schedules.changed(0)
    assert (empty.records, empty.deleted, empty.more) == ([], [], False)
    made = [await schedules.create(name, spec()) for name in ("a", "b", "c")]
    first = await schedules.changed(empty.version, limit=2)
    assert (first.records, first.more) == (made[:2], True)
    rest = await schedules.changed(first.version)
    assert (rest.records, rest.more, rest.reset) == (made[2:], False, False)
    assert (await schedules.changed(rest.version)).records == []
    paused = await schedules.pause("b")
    await schedules.delete("a")
    second = await schedules.changed(rest.version)
    assert (second.records, second.deleted) == ([paused], ["a"])
    assert second.version > rest.version
    anew = await schedules.create("a", spec())
    third = await schedules.changed(second.version)
    assert (third.records, third.deleted) == ([anew], [])
    assert anew.revision > made[2].revision, "never one of its predecessor's"


async def test_versions_go_on_when_the_clock_was_set_back(
    schedules: Schedules, keyspace: Keyspace
) -> None:
    await schedules.create("a", spec())
    ahead = int(((await schedules.changed(0)).now + 3600) * 1_000_000)
    keyspace.client.zadd(keys.SCHEDULE_CHANGES, {"a": ahead})
    seen = (await schedules.changed(0)).version
    made = [await schedules.create(name, spec()) for name in ("b", "c")]
    changed = await schedules.changed(seen)
    assert (changed.records, changed.reset) == (made, False)


async def test_redis_tells_its_time(schedules: Schedules) -> None:
    made = await schedules.create(NAME, spec())
    now = (await schedules.changed(0)).now
    assert 0 <= now - made.created_at.timestamp() < 60


async def test_who_is_far_behind_loads_all_anew(schedules: Schedules, keyspace: Keyspace) -> None:
    stays = [f"stays{number}" for number in range(5)]
    for name in [*stays, "goes"]:
        await schedules.create(name, spec())
    seen = (await schedules.changed(0)).version
    await schedules.delete("goes")
    for number in range(1001):
        await schedules.create(f"n{number}", spec())
        await schedules.delete(f"n{number}")
    assert keyspace.client.zcard(keys.SCHEDULE_DELETED) == 1000
    assert keyspace.client.zcard(keys.SCHEDULE_CHANGES) == 1005
    at, names, resets = seen, list[str](), list[bool]()
    for _ in range(1005):
        changed = await schedules.changed(at, limit=2)
        names += [found.schedule_id for found in changed.records]
        resets.append(changed.reset)
        at = changed.version
        if not changed.more:
            break
    assert names == stays
    assert resets[0] is True
    assert not any(resets[1:]), "the pages of one load follow one another"
    assert (await schedules.changed(at)).reset is False


async def test_a_store_that_lost_data_is_loaded_anew(
    schedules: Schedules, keyspace: Keyspace
) -> None:
    await schedules.create("a", spec())
    seen = (await schedules.changed(0)).version
    keyspace.client.flushall()
    changed = await schedules.changed(seen)
    assert (changed.reset, changed.records) == (True, [])
    made = await schedules.create("b", spec())
    assert (await schedules.changed(changed.version)).records == [made]


# -------------------------------------------------------------------------------------------- fires
async def test_what_goes_on_is_one_line_of_the_history(schedules: Schedules, old: Old) -> None:
    await old.made()
    await old.settle(to=10, missed=range(1, 11))
    await old.settle(to=20, missed=10)
    await old.settle(31, to=40, missed=range(21, 31))
    for number in range(41, 46):
        await old.settle(number)
    newest, *older = await schedules.fires(NAME)
    assert (newest.outcome, newest.count, newest.first, newest.slot) == (
        "skipped", 5, START + 41, START + 45,
    )  # fmt: skip
    assert newest.reason == f"task {old.task(31)} has not ended"
    assert [(fire.outcome, fire.count, fire.number) for fire in older] == [
        ("fired", 1, 2),
        ("missed", 30, 1),
    ]
    assert (older[1].first, older[1].slot) == (START + 1, START + 30)
    assert older[0].task_id == old.task(31)
    found = await old.now()
    assert (found.fired, found.missed, found.skipped) == (1, 30, 5)


async def test_another_reason_is_another_line(
    schedules: Schedules, old: Old, managed: ManagedTasks
) -> None:
    await old.made(overlap="allow")
    await old.settle(1, 2)
    await schedules.replace(NAME, spec(), revision=old.revision, cursor=old.cursor, before=None)
    for number in (1, 2):
        run = SlotTask(START + 10 + number, {})
        await schedules.backfill(NAME, [run], overlap=Overlap.SKIP)
        await end(managed, old.task(number))
    first, second = (await schedules.fires(NAME))[:2]
    assert [fire.reason for fire in (second, first)] == [
        f"task {old.task(1)} has not ended",
        f"task {old.task(2)} has not ended",
    ]


async def test_the_history_has_an_end_and_pages(
    schedules: Schedules, old: Old, keyspace: Keyspace
) -> None:
    await old.made(overlap="allow")
    for start in range(1, 1101, 100):
        await old.settle(*range(start, start + 100))
    assert keyspace.client.llen(keys.schedule_fires(NAME)) == MAX_FIRES
    first = await schedules.fires(NAME, limit=3)
    assert [fire.number for fire in first] == [1100, 1099, 1098]
    assert told(first) == [(1100, "fired"), (1099, "fired"), (1098, "fired")]
    assert [fire.number for fire in await schedules.fires(NAME, limit=2, before=1098)] == [
        1097,
        1096,
    ]
    assert [fire.number for fire in await schedules.fires(NAME, before=102)] == [101]
    assert await schedules.fires(NAME, before=1) == []
    with pytest.raises(InvalidRequestError, match="limit"):
        await schedules.fires(NAME, limit=MAX_FIRES + 1)


# ------------------------------------------------------------------------------------------- delete
async def test_a_deleted_schedule_leaves_its_tasks_alone(
    schedules: Schedules, old: Old, keyspace: Keyspace
) -> None:
    await old.made(overlap="buffer_all")
    await old.settle(1, 2)
    assert await schedules.delete(NAME) is True
    left = {name for name in keyspace.names() if "schedule" in name}
    assert left <= {keys.SCHEDULE_CHANGES, keys.SCHEDULE_DELETED, keys.SCHEDULE_REVISION}
    assert keyspace.client.exists(keys.task(old.task(1)))
    assert await schedules.release() == []
    assert (await old.settle(3)).state == "gone"


# ------------------------------------------------------------------------------------------- bounds
async def test_bounds_of_a_call(schedules: Schedules, old: Old) -> None:
    await old.made()
    with pytest.raises(InvalidRequestError, match="101 slots"):
        await old.settle(*range(1, 102))
    for wrong in ([2, 1], [1, 1]):
        with pytest.raises(InvalidRequestError, match="each once, oldest first"):
            await old.settle(*wrong)
    with pytest.raises(InvalidRequestError, match="not within"):
        await old.settle(5, to=4)
    with pytest.raises(InvalidRequestError, match="more than 262144"):
        await old.settle_with({"big": "x" * 262_144}, 1)
    assert (await old.now()).cursor == START
    assert (await old.settle_with({"big": "x" * 200_000}, 1)).state == "done"


async def test_what_is_not_yet_due_is_refused(schedules: Schedules) -> None:
    made = await schedules.create(NAME, spec())
    later = made.cursor + int(timedelta(hours=1).total_seconds())
    settled = await schedules.settle(
        NAME, revision=made.revision, cursor=made.cursor, new_cursor=later, tasks=slots(later)
    )
    assert (settled.state, settled.cursor) == ("early", made.cursor)
    with pytest.raises(InvalidRequestError, match="in the future"):
        await schedules.backfill(NAME, [SlotTask(later, {})], overlap=Overlap.ALLOW)
    assert await schedules.get(NAME) == made
