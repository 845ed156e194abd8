"""A store that is older than what was seen of it pauses itself, once, and issues no id again."""

import time

import pytest

from task_state import TaskStatus, keys
from task_state.admission import Admission, Attendance, ServiceMode
from task_state.managed import ManagedTasks, Waiting
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository
from tests.contract.servers import RealServer
from tests.contract.store import Keyspace
from tests.contract.test_managed_tasks import loaded, submit

MINUTE = 60_000_000
HOUR = 60 * MINUTE
HERE = Attendance("w", 4, 3600.0)


def now() -> int:
    return time.time_ns() // 1000


class Past:
    """Makes the store as old as a backup of it would be."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._redis = keyspace.client

    def ago(self, microseconds: int) -> None:
        """The last time that the store was there was so long ago."""
        self._redis.delete(keys.SILENCES)
        self._redis.set(keys.ALIVE, now() - microseconds)

    def silences(self) -> list[tuple[bytes, float]]:
        return self._redis.zrange(keys.SILENCES, 0, -1, withscores=True)  # type: ignore[return-value]


@pytest.fixture
def past(keyspace: Keyspace) -> Past:
    return Past(keyspace)


async def waiting(managed: ManagedTasks, count: int = 1) -> list[str]:
    ids = [await submit(managed) for _ in range(count)]
    for task_id in ids:
        await managed.accept(task_id)
    return ids


async def admitted(admission: Admission) -> list[str]:
    return [call.task_id for call in (await admission.admit(attendance=HERE)).calls]


async def paused(admission: Admission) -> str | None:
    """Why everything is paused, if it is."""
    for state in await admission.states():
        if state.service == "*" and state.mode is ServiceMode.PAUSED:
            return state.reason or ""
    return None


async def test_a_restored_store_pauses_itself_once_and_goes_on_when_it_is_resumed(
    admission: Admission, managed: ManagedTasks, repository: RedisTaskRepository, past: Past
) -> None:
    first, second = await waiting(managed, 2)
    past.ago(24 * HOUR)
    seen = now() - HOUR
    admission.remember(seen)
    assert await admitted(admission) == []
    reason = await paused(admission)
    assert reason is not None
    assert reason.startswith("restored, or lost data: it lacks 1380 minutes or more")
    assert "doctor" in reason
    assert await admitted(admission) == []
    assert (await loaded(repository, first)).status is TaskStatus.PENDING
    await admission.resume("*")
    assert await admitted(admission) == [first, second]
    admission.remember(seen + MINUTE)
    await admission.admit(attendance=HERE)
    assert await paused(admission) is None, "it was told of that restore before"


async def test_no_id_is_issued_a_second_time(
    admission: Admission, repository: RedisTaskRepository, past: Past, keyspace: Keyspace
) -> None:
    ahead = now() + HOUR  # the lost store's clock was ahead
    await admission.admit()
    keyspace.client.delete(keys.SEQUENCE)
    past.ago(2 * HOUR)
    admission.remember(ahead)
    await admission.admit()
    assert int(await repository.next_task_id()) > ahead


async def test_a_call_of_a_restored_store_does_not_begin(
    admission: Admission, managed: ManagedTasks, past: Past
) -> None:
    (task_id,) = await waiting(managed)
    assert await admitted(admission) == [task_id]
    past.ago(HOUR)
    admission.remember(now() - 10 * MINUTE)
    assert await managed.begin(task_id, 1, worker="w", admitted=True) is None
    assert await paused(admission)
    await admission.resume("*")
    assert await admitted(admission) == [task_id]
    assert await managed.begin(task_id, 1, worker="w", admitted=True)


@pytest.mark.parametrize("stranger_first", [True, False])
async def test_it_is_noticed_whoever_comes_first_and_whatever_was_submitted_since(
    admission: Admission,
    managed: ManagedTasks,
    shared_server: RealServer,
    past: Past,
    stranger_first: bool,
) -> None:
    old = await waiting(managed)
    past.ago(HOUR)
    fresh = await waiting(managed)  # a frontend was up at once
    if stranger_first:  # a worker that knows nothing
        stranger = RedisRepositoryProvider(
            RedisRepositorySettings(write_url=shared_server.url, timeout_seconds=60)
        )
        assert await admitted(await stranger.get_admission()) == [*old, *fresh]
        await stranger.close()
    admission.remember(now() - 10 * MINUTE)
    assert await admitted(admission) == []
    assert await paused(admission)
    (each,) = [state for state in await admission.states() if state.service == "sync"]
    assert (each.waiting, each.running) == (2, 0)


async def test_an_empty_store_pauses_itself(
    admission: Admission, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    await waiting(managed)
    await admission.admit()
    assert now() - admission.seen < MINUTE
    keyspace.client.flushall()
    await waiting(managed)
    assert await admitted(admission) == []
    assert "lacks everything" in (await paused(admission) or "")


async def test_a_new_store_that_nobody_saw_is_not_paused(
    admission: Admission, managed: ManagedTasks
) -> None:
    assert admission.seen == 0
    ids = await waiting(managed)
    assert await admitted(admission) == ids
    assert await paused(admission) is None


@pytest.mark.parametrize("first", [True, False])
async def test_what_came_before_the_first_look_is_not_lost(
    admission: Admission, managed: ManagedTasks, past: Past, first: bool
) -> None:
    """A frontend was up before the rest, in a new store or after a long stop."""
    if not first:
        past.ago(HOUR)
    ids = await waiting(managed, 2)
    calls = (await admission.admit(attendance=HERE)).calls
    assert [call.task_id for call in calls] == ids
    for call in calls:
        assert await managed.begin(call.task_id, 1, worker="w", admitted=True)
    await admission.admit(attendance=HERE)
    assert await paused(admission) is None


async def test_an_idle_store_is_not_older(
    admission: Admission, managed: ManagedTasks, past: Past
) -> None:
    """What is seen is the latest change, and not the time: so the backup of a store in which
    nothing has happened since may be put back."""
    await waiting(managed)
    await admission.admit()
    seen = admission.seen
    past.ago(MINUTE // 2)
    await admission.admit()
    assert admission.seen == seen


async def test_a_stop_of_a_day_is_no_restore(
    admission: Admission, managed: ManagedTasks, past: Past, keyspace: Keyspace
) -> None:
    past.ago(24 * HOUR)
    admission.remember(now() - 24 * HOUR + 4_000_000)  # it told of its life some seconds before
    ids = await waiting(managed)
    assert await admitted(admission) == ids
    assert await paused(admission) is None
    ((since, until),) = past.silences()
    assert until - int(since) > 23 * HOUR


async def test_a_clock_that_was_wrong_for_a_while_is_no_restore(
    admission: Admission, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    """It was set forward by an hour and back again: meanwhile it took that hour for a silence."""
    ids = await waiting(managed)
    wrong = now() + HOUR // 2
    keyspace.client.zadd(keys.SILENCES, {str(wrong - HOUR): wrong})
    keyspace.client.set(keys.ALIVE, wrong)
    admission.remember(wrong + 1000)
    assert await admitted(admission) == ids
    assert await paused(admission) is None
    assert int(keyspace.client.get(keys.ALIVE) or 0) == wrong


@pytest.mark.parametrize(("lag", "pauses"), [(30_000_000, False), (90_000_000, True)])
async def test_a_replica_that_lagged_a_little_goes_on(
    admission: Admission,
    managed: ManagedTasks,
    repository: RedisTaskRepository,
    past: Past,
    lag: int,
    pauses: bool,
) -> None:
    ids = await waiting(managed)
    past.ago(lag)
    admission.remember(now() + 1000)
    assert await admitted(admission) == ([] if pauses else ids)
    assert (await paused(admission) is not None) is pauses
    assert int(await repository.next_task_id()) > admission.seen - 2


async def test_changes_are_seen_whatever_they_are(
    admission: Admission, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    """A task that only ran since the backup must not run again: submissions alone are too few."""
    (task_id,) = await waiting(managed)
    await admitted(admission)
    before = admission.seen
    keyspace.client.delete(keys.SEQUENCE)
    while now() // 1000 == before // 1000:
        pass
    assert await managed.begin(task_id, 1, worker="w", admitted=True)
    await admission.admit()
    assert admission.seen > before


async def test_a_pause_of_all_is_kept_and_says_why(
    admission: Admission, managed: ManagedTasks, past: Past
) -> None:
    await waiting(managed)
    await admission.pause("*", "upgrade")
    (before,) = [state for state in await admission.states() if state.service == "*"]
    past.ago(HOUR)
    admission.remember(now() - 10 * MINUTE)
    await admission.admit(attendance=HERE)
    (after,) = [state for state in await admission.states() if state.service == "*"]
    assert (after.mode, after.since) == (ServiceMode.PAUSED, before.since)
    assert (after.reason or "").startswith("restored")


async def test_only_the_latest_silences_are_kept(
    admission: Admission, past: Past, keyspace: Keyspace
) -> None:
    keyspace.client.zadd(keys.SILENCES, {str(n): n + 1 for n in range(150)})
    keyspace.client.set(keys.ALIVE, now() - HOUR)
    await admission.admit()
    assert len(past.silences()) == 100
    assert past.silences()[-1][1] > now() - MINUTE


async def test_calls_after_the_first_write_nothing(
    admission: Admission, keyspace: Keyspace
) -> None:
    """An idle store stays idle: its file does not grow with each look."""
    await admission.admit()
    before = keyspace.dump()
    assert (await admission.admit()).calls == list[Waiting]()
    assert keyspace.dump() == before
