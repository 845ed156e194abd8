"""Replicas that do the same thing at the same moment: a slot becomes one task, whoever wins."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator

import pytest_asyncio

from task_state import ScheduleConflictError, StoreUnavailableError, TaskStatus
from task_state.managed import ManagedTasks
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.schedules import Overlap, ScheduleRecord, Schedules, Settled, SlotTask
from tests.contract.schedule_store import NAME, START, Old, slots, spec
from tests.contract.servers import RealServer
from tests.contract.store import Keyspace

REPLICAS = 8


@pytest_asyncio.fixture
async def replicas(
    shared_server: RealServer, keyspace: Keyspace
) -> AsyncGenerator[list[Schedules]]:
    """The schedules of one store, each on connections of its own."""
    settings = RedisRepositorySettings(write_url=shared_server.url, timeout_seconds=60)
    providers = [RedisRepositoryProvider(settings) for _ in range(REPLICAS)]
    try:
        yield [await provider.get_schedules() for provider in providers]
    finally:
        for provider in providers:
            await provider.close()


def submitted(keyspace: Keyspace) -> Counter[str]:
    """How often each task was submitted."""
    return Counter(task_id for kind, task_id, _ in keyspace.outbox() if kind == "submitted")


async def play(replica: Schedules, until: int, step: int) -> list[Settled]:
    """Settle as a replica does, so many slots at a time, until all are settled."""
    known = await replica.get(NAME)
    assert known
    revision, cursor = known.revision, known.cursor
    answers: list[Settled] = []
    while cursor < until:
        to = min(cursor + step, until)
        answer = await replica.settle(
            NAME,
            revision=revision,
            cursor=cursor,
            new_cursor=to,
            tasks=slots(*range(cursor + 1, to + 1)),
        )
        revision, cursor = answer.revision, answer.cursor
        answers.append(answer)
    return answers


async def test_each_slot_becomes_one_task(replicas: list[Schedules], keyspace: Keyspace) -> None:
    await Old(replicas[0], keyspace).made(overlap="allow")
    until = START + 300
    played = await asyncio.gather(*(play(each, until, 1 + n) for n, each in enumerate(replicas)))
    fires = [fire for answers in played for answer in answers for fire in answer.fires]
    assert {fire.outcome for fire in fires} == {"fired"}
    assert sorted(fire.slot or 0 for fire in fires) == list(range(START + 1, until + 1))
    wanted = {f"s.{NAME}.{slot}" for slot in range(START + 1, until + 1)}
    assert submitted(keyspace) == Counter(wanted)
    assert {answer.state for answers in played for answer in answers} <= {"done", "moved"}


async def test_settling_against_making_up_again(
    replicas: list[Schedules], keyspace: Keyspace
) -> None:
    await Old(replicas[0], keyspace).made(overlap="allow")
    until = START + 100
    past = [SlotTask(slot, {}) for slot in range(START + 1, until + 1)]
    await asyncio.gather(
        *(play(each, until, 3) for each in replicas[:4]),
        *(
            each.backfill(NAME, past[at : at + 10], overlap=Overlap.ALLOW)
            for at in range(0, 100, 10)
            for each in replicas[4:]
        ),
    )
    assert submitted(keyspace) == Counter(f"s.{NAME}.{task.slot}" for task in past)


async def edit(replica: Schedules, times: int) -> list[ScheduleRecord]:
    """Change the schedule so often, at its present revision and cursor, as a person would."""
    done: list[ScheduleRecord] = []
    while len(done) < times:
        known = await replica.get(NAME)
        assert known
        given = spec(overlap="allow", description=f"edit {len(done)}")
        try:
            done.append(
                await replica.replace(
                    NAME, given, revision=known.revision, cursor=known.cursor, before=None
                )
            )
        except ScheduleConflictError:
            continue
    return done


async def test_one_edit_of_many_wins(replicas: list[Schedules], keyspace: Keyspace) -> None:
    await Old(replicas[0], keyspace).made()
    known = await replicas[0].get(NAME)
    assert known

    async def replace(replica: Schedules, description: str) -> str:
        try:
            await replica.replace(
                NAME,
                spec(description=description),
                revision=known.revision,
                cursor=known.cursor,
                before=None,
            )
        except ScheduleConflictError:
            return ""
        return description

    won = await asyncio.gather(*(replace(each, f"by {n}") for n, each in enumerate(replicas)))
    (winner,) = [description for description in won if description]
    found = await replicas[0].get(NAME)
    assert found
    assert found.spec.description == winner


async def test_edits_by_several_get_a_revision_each(
    replicas: list[Schedules], keyspace: Keyspace
) -> None:
    await Old(replicas[0], keyspace).made()
    done = await asyncio.gather(*(edit(each, 5) for each in replicas))
    revisions = [record.revision for edits in done for record in edits]
    assert len(set(revisions)) == 5 * REPLICAS
    found = await replicas[0].get(NAME)
    assert found
    assert found.revision == max(revisions)


async def test_what_waits_starts_once(
    replicas: list[Schedules], keyspace: Keyspace, managed: ManagedTasks
) -> None:
    names = [f"n{number}" for number in range(10)]
    for name in names:
        old = await Old(replicas[0], keyspace, name).made(overlap="buffer_all")
        await old.settle(1, 2, 3)
    for slot in (1, 2):
        for name in names:
            task_id = f"s.{name}.{START + slot}"
            await managed.begin(task_id, 1, worker="w")
            await managed.finish(task_id, 1, TaskStatus.COMPLETED)
        released = await asyncio.gather(*(each.release() for each in replicas))
        started = [fire.task_id or "" for fires in released for fire in fires]
        assert sorted(started) == [f"s.{name}.{START + slot + 1}" for name in names]
    assert set(submitted(keyspace).values()) == {1}
    assert len(submitted(keyspace)) == 30


async def test_one_key_is_one_run(replicas: list[Schedules], keyspace: Keyspace) -> None:
    await replicas[0].create(NAME, spec())
    keyed = await asyncio.gather(*(each.run(NAME, {}, idempotency_key="k") for each in replicas))
    assert len({fire.task_id for fire in keyed}) == 1
    assert Counter(fire.outcome for fire in keyed) == {"fired": 1, "existing": REPLICAS - 1}
    free = await asyncio.gather(*(each.run(NAME, {}) for each in replicas for _ in range(5)))
    assert len({fire.task_id for fire in free}) == 5 * REPLICAS
    assert set(submitted(keyspace).values()) == {1}


async def test_a_reader_of_changes_misses_none(
    replicas: list[Schedules], keyspace: Keyspace
) -> None:
    reader, *writers = replicas
    done = asyncio.Event()
    known: dict[str, ScheduleRecord] = {}

    async def follow() -> None:
        at = 0
        while True:
            last = done.is_set()
            changed = await reader.changed(at, limit=3)
            if changed.reset:
                known.clear()
            known.update((record.schedule_id, record) for record in changed.records)
            for name in changed.deleted:
                known.pop(name, None)
            at = changed.version
            if last and not changed.more:
                return

    async def write(replica: Schedules, own: int) -> None:
        for number in range(30):
            name = f"w{own}.{number % 7}"
            if number % 3:
                await replica.delete(name)
            elif await replica.get(name) is None:
                await replica.create(name, spec(description=str(number)))
            else:
                await replica.pause(name, str(number))

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(each, own) for own, each in enumerate(writers)))
    done.set()
    await following
    stored = {record.schedule_id: record for record in (await reader.page(limit=200)).records}
    assert known == stored


async def test_a_server_that_is_killed_loses_and_doubles_no_slot(own_server: RealServer) -> None:
    """Slots are settled and made up at the same time, and the server is killed three times."""
    settings = RedisRepositorySettings(write_url=own_server.url)
    providers = [RedisRepositoryProvider(settings) for _ in range(3)]
    until = START + 120
    try:
        first, second, third = [await provider.get_schedules() for provider in providers]
        with own_server.client() as client:
            await Old(first, Keyspace(client)).made(overlap="allow")
        players = [
            asyncio.create_task(play_on(first, until, 1)),
            asyncio.create_task(play_on(second, until, 2)),
            asyncio.create_task(make_up(third, until)),
        ]
        for part in (30, 60, 90):
            while (await known_cursor(first)) < START + part:
                await asyncio.sleep(0.01)
            own_server.kill()
            await asyncio.to_thread(own_server.start)
        await asyncio.gather(*players)
        with own_server.client() as client:
            wanted = Counter(f"s.{NAME}.{slot}" for slot in range(START + 1, until + 1))
            assert submitted(Keyspace(client)) == wanted
        found = await first.get(NAME)
        assert found
        assert (found.cursor, found.fired) == (until, 120)
    finally:
        for provider in providers:
            await provider.close()


async def known_cursor(replica: Schedules) -> int:
    """Where the schedule is, as soon as the server answers."""
    while True:
        with contextlib.suppress(StoreUnavailableError):
            found = await replica.get(NAME)
            assert found
            return found.cursor
        await asyncio.sleep(0.01)


async def play_on(replica: Schedules, until: int, step: int) -> None:
    """Play, and go on when the server is there again: what became of the last call is not known."""
    while await known_cursor(replica) < until:
        with contextlib.suppress(StoreUnavailableError):
            await play(replica, until, step)


async def make_up(replica: Schedules, until: int) -> None:
    """Make up every slot that was settled, and those before it, as a person would by mistake."""
    at = START + 1
    while at <= until:
        with contextlib.suppress(StoreUnavailableError):
            await replica.backfill(NAME, slots(at), overlap=Overlap.ALLOW)
            at += 1
