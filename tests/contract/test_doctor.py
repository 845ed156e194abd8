"""The doctor's checks of server, engine and settings, each on the real thing that is not well."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from app.core.config import Settings
from app.core.events import DISPATCH_GROUP, TASK_EVENTS_GROUP
from app.services.repository import build_provider
from cli.doctor import server, services, store
from cli.doctor.examine import examine
from cli.doctor.report import Result, Verdict, bad, good, warn, worst
from dms_scheduler.engine import Call, EngineClient
from task_state import TaskStatus, keys
from task_state.admission import Attendance
from task_state.managed import ManagedTasks
from task_state.outbox import Outbox
from task_state.redis import RedisRepositoryProvider
from task_state.server_facts import ServerFacts
from tests.contract.servers import RealServer, running
from tests.contract.store import Keyspace
from tests.contract.test_managed_tasks import submit
from tests.support.frontend import NOWHERE, make_settings
from tests.support.scheduler_stub import SchedulerStub

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM


def named(results: list[Result]) -> dict[str, Result]:
    return {result.name: result for result in results}


# ------------------------------------------------------------------------------------- the server
async def look(settings: Settings) -> dict[str, Result]:
    provider = build_provider(settings.model_copy(update={"redis_timeout_seconds": 60.0}))
    try:
        return named(await server.check_server(provider, settings))
    finally:
        await provider.close()


async def test_a_server_with_an_append_only_file_is_well(own_server: RealServer) -> None:
    found = await look(make_settings(own_server.url))
    wrong = {name for name, result in found.items() if result.verdict is not OK}
    assert wrong == {"outbox", "rescuers", "workers"}, "nothing of DMS runs there"
    assert found["durability"].what == "append-only file, fsync always"


@pytest.mark.parametrize(
    ("option", "value", "check", "verdict"),
    [
        ("maxmemory-policy", "allkeys-lru", "eviction", PROBLEM),
        ("appendonly", "no", "durability", PROBLEM),
        ("appendfsync", "no", "durability", WARNING),
        ("maxmemory", "1mb", "memory", WARNING),
    ],
)
async def test_a_server_that_is_set_up_badly_is_told(
    own_server: RealServer, option: str, value: str, check: str, verdict: Verdict
) -> None:
    settings = make_settings(own_server.url)
    assert (await look(settings))[check].verdict is OK
    with own_server.client() as client:
        client.config_set(option, value)
    found = (await look(settings))[check]
    assert found.verdict is verdict
    assert found.remedy


async def test_replicas_that_are_waited_for_and_missing(own_server: RealServer) -> None:
    found = await look(make_settings(own_server.url, redis_wait_replicas=1))
    assert found["replicas"].verdict is PROBLEM


async def test_a_pause_of_all_is_told_with_its_reason_and_one_of_a_service_is_not(
    own_server: RealServer,
) -> None:
    settings = make_settings(own_server.url)
    own = build_provider(settings)
    admission = await own.get_admission()
    await admission.pause("sync", "disk")
    assert (await look(settings))["paused"].verdict is OK
    await admission.pause("*", "restored, or so")
    found = (await look(settings))["paused"]
    assert found.verdict is WARNING
    assert "restored, or so" in found.what
    assert "resume --all" in found.remedy
    await own.close()


async def test_a_reader_of_other_data_is_told(own_server: RealServer) -> None:
    with running("valkey") as other:
        settings = make_settings(own_server.url, redis_read_url=other.url)
        found = await look(settings)
    assert found["reader"].verdict is PROBLEM
    assert "different data" in found["reader"].what


async def test_another_layout_is_told(own_server: RealServer) -> None:
    settings = make_settings(own_server.url)
    await look(settings)
    with own_server.client() as client:
        client.set(keys.SCHEMA, keys.SCHEMA_VERSION + 1)
    assert (await look(settings))["schema"].verdict is PROBLEM


FACTS = ServerFacts(
    name="valkey", version="9.0.1", role="master", data_id="x", replicas=0, link_up=True,
    eviction="noeviction", append_only=True, fsync="always", last_write_ok=True, used_bytes=1,
    most_bytes=0, clock_ahead=0.1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("check", "facts", "verdict"),
    [
        (server._version, {"version": "7.1.9"}, PROBLEM),
        (server._version, {"version": "7.2.0"}, OK),
        (server._version, {"name": "redis", "version": "6.0.16"}, PROBLEM),
        (server._version, {"name": "redis", "version": "6.2.0"}, OK),
        (server._eviction, {"eviction": None}, WARNING),
        (server._durability, {"last_write_ok": False}, PROBLEM),
        (server._durability, {"fsync": None}, OK),
        (server._durability, {"append_only": False, "replicas": 1}, WARNING),
        (server._memory, {"used_bytes": 95, "most_bytes": 100}, WARNING),
        (server._memory, {"used_bytes": 80, "most_bytes": 100}, OK),
        (server._clock, {"clock_ahead": -3.0}, WARNING),
        (server._clock, {"clock_ahead": 1.0}, OK),
    ],
)
def test_what_the_facts_mean(check: Any, facts: dict[str, Any], verdict: Verdict) -> None:
    assert check(replace(FACTS, **facts)).verdict is verdict


async def test_a_dispatcher_that_left_its_events_behind(
    provider: RedisRepositoryProvider,
    managed: ManagedTasks,
    outbox: Outbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await outbox.ensure_group(DISPATCH_GROUP)
    await outbox.ensure_group("mine")
    await outbox.ensure_group(TASK_EVENTS_GROUP)
    await submit(managed)
    asked = await provider.get_server()
    groups = named(await server._outbox(asked))
    assert groups["outbox dispatch"].verdict is PROBLEM, "it was never read"
    assert groups["outbox mine"].verdict is WARNING
    assert "XGROUP DESTROY" in groups["outbox mine"].remedy
    assert groups["outbox events"].verdict is WARNING
    assert "scheduler" in groups["outbox events"].remedy
    await outbox.read(TASK_EVENTS_GROUP, "c", count=5, block_ms=10)
    assert named(await server._outbox(asked))["outbox events"].verdict is OK, "a relay is there"

    (event,) = await outbox.read(DISPATCH_GROUP, "c", count=5, block_ms=10)
    assert named(await server._outbox(asked))["outbox dispatch"].verdict is OK, "it is in hand"
    monkeypatch.setattr(server, "_QUIET_SECONDS", -1.0)
    assert named(await server._outbox(asked))["outbox dispatch"].verdict is PROBLEM
    await outbox.defer(DISPATCH_GROUP, event, delay_seconds=60)
    assert named(await server._outbox(asked))["outbox dispatch"].verdict is PROBLEM
    await outbox.done(DISPATCH_GROUP, (await _due(outbox, provider)))
    assert named(await server._outbox(asked))["outbox dispatch"].verdict is OK


async def _due(outbox: Outbox, provider: RedisRepositoryProvider) -> Any:
    opened = await provider._open()
    (member,) = cast("list[bytes]", await opened.writer.zrange(keys.due(DISPATCH_GROUP), 0, -1))
    await opened.writer.zadd(keys.due(DISPATCH_GROUP), {member: 1})
    (event,) = await outbox.take_due(DISPATCH_GROUP, hide_ms=1000, count=1)
    return event


async def test_workers_and_rescuers_are_counted(
    provider: RedisRepositoryProvider, managed: ManagedTasks, keyspace: Keyspace
) -> None:
    asked = await provider.get_server()
    found = named(list(await server._attendance(asked)))
    assert {name: result.verdict for name, result in found.items()} == {
        "rescuers": WARNING, "workers": WARNING
    }  # fmt: skip
    admission = await provider.get_admission()
    await admission.admit(attendance=Attendance("w1", 3, 60.0))
    await admission.admit(attendance=Attendance("w2", 4, 60.0))
    await managed.rescue()
    found = named(list(await server._attendance(asked)))
    assert found["workers"].what == "2 attend, with 7 slots"
    assert found["rescuers"].verdict is OK


# ------------------------------------------------------------------------------------- the engine
@pytest.fixture
async def engine(shared_server: RealServer, keyspace: Keyspace) -> AsyncGenerator[EngineClient]:
    made = EngineClient(shared_server.url, timeout_seconds=60)
    await made.start()
    yield made
    await made.close()


async def test_calls_that_would_do_nothing_are_withdrawn(
    provider: RedisRepositoryProvider, managed: ManagedTasks, engine: EngineClient
) -> None:
    waits, begun, ended = [await submit(managed) for _ in range(3)]
    await managed.begin(begun, 1, worker="w")
    await managed.cancel(ended)
    good_calls = [Call(waits, 1)]
    orphans = [Call("ghost", 1), Call(begun, 1), Call(ended, 1)]
    await engine.enqueue_many([*good_calls, *orphans])
    for mend in (False, True):
        jobs = named(await store.check_engine(provider, engine, mend=mend))["jobs"]
        assert jobs.count == 3
        assert jobs.repaired == (3 if mend else 0)
        assert {example.partition(":")[0] for example in jobs.examples} == {"ghost", begun, ended}
    jobs = named(await store.check_engine(provider, engine, mend=False))["jobs"]
    assert (jobs.count, jobs.verdict) == (0, OK)
    assert await engine.not_begun([*good_calls, *orphans]) == good_calls


async def test_a_worker_that_is_long_gone_is_forgotten(
    provider: RedisRepositoryProvider,
    engine: EngineClient,
    keyspace: Keyspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = named(await store.check_engine(provider, engine, mend=True))["consumers"]
    assert empty.verdict is OK, "no worker was ever there"
    stream, group = "dms-engine:stream", "docket-workers"
    raw = keyspace.client
    await engine.enqueue_many([Call("1", 1)])
    raw.xgroup_create(stream, group, id="0")
    raw.xgroup_createconsumer(stream, group, "idle")
    raw.xreadgroup(group, "holding", {stream: ">"}, count=1)
    found = named(await store.check_engine(provider, engine, mend=True))["consumers"]
    assert found.count == 0, "they were there a moment ago"
    monkeypatch.setattr(store, "_FORGOTTEN_SECONDS", -1.0)
    found = named(await store.check_engine(provider, engine, mend=True))["consumers"]
    assert (found.count, found.repaired, found.verdict) == (2, 1, WARNING)
    (left,) = await engine.consumers()
    assert (left.name, left.pending, left.alive) == ("holding", 1, False)


# ----------------------------------------------------------------------------- settings, services
def test_settings_that_are_not_well(tmp_path: Path) -> None:
    fine = make_settings(
        "redis://127.0.0.1:1/0",
        data_roots=[tmp_path],
        archive_dir=tmp_path,
        witness_file=tmp_path / "witness",
    )
    assert named(services.check_settings(fine))["witness"].verdict is OK
    assert {result.verdict for result in services.check_settings(fine)} <= {OK, WARNING}
    gone = tmp_path / "gone"
    changed: dict[str, dict[str, Any]] = {
        "token": {"operator_token": "changeme"},
        "roots": {"data_roots": [gone]},
        "archive": {"archive_dir": gone},
        "witness": {"witness_file": gone / "witness"},
        "lease": {"lease_seconds": 30.0, "heartbeat_seconds": 15.0},
    }
    expected = dict.fromkeys(changed, PROBLEM) | {"token": WARNING, "lease": WARNING}
    for name, values in changed.items():
        settings = make_settings("redis://127.0.0.1:1/0", **values)
        result = named(services.check_settings(settings))[name]
        assert result.verdict is expected[name]
        assert result.remedy


async def test_a_scheduler_that_does_not_answer(provider: RedisRepositoryProvider) -> None:
    settings = make_settings("redis://127.0.0.1:1/0", scheduler_base_url=NOWHERE)
    (found,) = await services.check_scheduler(settings, provider)
    assert (found.name, found.verdict) == ("scheduler", PROBLEM)


async def test_tasks_that_wait_for_a_definition_nobody_has(
    provider: RedisRepositoryProvider, managed: ManagedTasks, stub: SchedulerStub
) -> None:
    settings = make_settings("redis://127.0.0.1:1/0", scheduler_base_url=stub.url)
    (found,) = await services.check_scheduler(settings, provider)
    assert found.verdict is OK
    await managed.accept(await submit(managed, service="unheard-of"))
    _, found = await services.check_scheduler(settings, provider)
    assert found.verdict is WARNING
    assert "unheard-of" in found.what


# -------------------------------------------------------------------------------------- the report
def test_the_worst_verdict_counts() -> None:
    assert worst([]) is OK
    assert worst([good("a", "x"), warn("b", "x", "y")]) is WARNING
    assert worst([bad("c", "x", "y"), good("a", "x"), warn("b", "x", "y")]) is PROBLEM


def test_what_was_mended_is_well_and_examples_are_few() -> None:
    result = Result("x", "what")
    for number in range(100):
        result.add(str(number), repaired=True)
    assert (result.verdict, result.count, result.repaired) == (OK, 100, 100)
    assert result.examples == ["0", "1", "2", "3", "4"]
    result.add("left")
    assert result.verdict is PROBLEM
    assert result.plain()["status"] == "problem"


async def test_a_walk_gives_one_result_a_check(
    provider: RedisRepositoryProvider, keyspace: Keyspace, managed: ManagedTasks
) -> None:
    task_id = await submit(managed)
    keyspace.client.zadd(f"{keys.PREFIX}c:{TaskStatus.FAILED}", {"ghost": 1})
    said: list[str] = []
    results = named(await store.check_records(provider, mend=False, say=said.append))
    assert results["records"].what == "1 looked at"
    assert results["members"].verdict is PROBLEM
    assert "ghost" in results["members"].examples[0]
    assert results["counts"].verdict is WARNING, "they follow the lists, which come first"
    assert {name for name, result in results.items() if result.count} == {"members", "counts"}
    results = named(await store.check_records(provider, mend=True, say=said.append))
    assert {name for name, result in results.items() if result.count} == {"members"}
    assert results["members"].verdict is OK
    assert await managed.cancel(task_id) is TaskStatus.CANCELLED


async def test_what_the_acl_forbids_hides_nothing_else(own_server: RealServer) -> None:
    """A user of Redis as RELIABILITY wants it: no CONFIG, and here not even INFO."""
    await look(make_settings(own_server.url))
    with own_server.client() as client:
        client.zadd(f"{keys.PREFIX}c:FAILED", {"ghost": 1})
        client.execute_command("ACL", "SETUSER", "dms", "on", ">pw", "~*", "&*", "+@all", "-config")
        url = own_server.url.replace("unix://", "unix://dms:pw@")
        found = await look(make_settings(url))
        assert found["durability"].verdict is OK
        assert "unknown" in found["durability"].what
        client.execute_command("ACL", "SETUSER", "dms", "-info")
    results = named(await examine(make_settings(url), None, mend=False, say=print))
    assert results["server"].verdict is PROBLEM
    assert "INFO" in results["server"].what.upper()
    assert results["members"].verdict is PROBLEM
    assert results["jobs"].verdict is OK
