"""The retention loop: what is due goes, after it was archived, by one process at a time."""

import asyncio
import json
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core.metrics import Metrics
from dms_scheduler.archive import Archive, ArchiveError
from dms_scheduler.main import SchedulerService
from dms_scheduler.retention import Pace, RetentionLoop
from task_state import TaskRecord, TaskStatus, keys
from task_state.export import ExportForm
from task_state.redis import RedisRepositoryProvider
from task_state.repository import RedisTaskRepository
from task_state.retention import Retention, Seen
from task_state.retention_policy import RetentionPolicy
from task_state.timezone import now
from tests.contract.servers import RealServer
from tests.contract.store import Keyspace
from tests.support.frontend import logging_restored, make_settings

COMPLETED, FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED
QUICK = Pace(period_seconds=0.01, pause_seconds=0.0, step=7)


def ended(task_id: str, days: float, **values: Any) -> TaskRecord:
    """A record that ended so many days ago."""
    end = now() - timedelta(days=days)
    options: dict[str, Any] = {
        "service": "sync",
        "user_id": "alice",
        "status": COMPLETED,
        "created_at": end,
    }
    options["created_at"] = end
    return TaskRecord(task_id=task_id, completed_at=end, **{**options, **values})


def loop(
    provider: RedisRepositoryProvider, *rules: str, archive: Archive | None = None
) -> RetentionLoop:
    return RetentionLoop(provider, RetentionPolicy.parse(rules), archive, QUICK)


async def left(repository: RedisTaskRepository) -> set[str]:
    return {task.task_id for task in await repository.list_all()}


async def test_each_task_goes_at_the_age_of_its_rule(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    for task in (
        ended("sync-old", 8),
        ended("sync-new", 6),
        ended("sync-failed-old", 61, status=FAILED),
        ended("sync-failed-new", 59, status=FAILED),
        ended("copy-old", 31, service="copy"),
        ended("copy-new", 29, service="copy"),
        ended("cancelled", 1000, status=TaskStatus.CANCELLED),
        ended("late", 1, created_at=now() - timedelta(days=100)),
        TaskRecord(
            task_id="waits", service="sync", user_id="a", created_at=now() - timedelta(days=99)
        ),
    ):
        await repository.save(task)
    rules = ("COMPLETED=30d", "FAILED=60d", "sync:COMPLETED=7d")
    assert await loop(provider, *rules).round() == 3
    assert await left(repository) == {
        "sync-new", "sync-failed-new", "copy-new", "cancelled", "late", "waits"
    }  # fmt: skip
    assert await loop(provider, *rules).round() == 0
    assert ("deleted", "copy-old", "COMPLETED") in keyspace.changes()
    for task_id in await left(repository):
        await repository.delete(task_id)
    assert keyspace.leaks() == set()


async def test_a_round_removes_more_than_one_step_takes(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository
) -> None:
    for number in range(50):
        await repository.save(ended(f"t{number}", 8 + number))
    assert await loop(provider, "*=7d").round() == 50
    assert await left(repository) == set()


async def test_one_process_at_a_time_has_the_turn(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository
) -> None:
    await repository.save(ended("old", 8))
    retention = await provider.get_retention()
    assert await retention.take_turn("another", 60)
    first = loop(provider, "*=7d")
    assert await first.round() == 0
    assert await left(repository) == {"old"}
    await retention.give_turn("another")
    assert await first.round() == 1
    assert await retention.take_turn("another", 60), "the turn was given up at the end of the round"


async def test_an_old_turn_ends_by_itself(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository, keyspace: Keyspace
) -> None:
    retention = await provider.get_retention()
    assert await retention.take_turn("dead", 60)
    life = keyspace.client.pttl(keys.PREFIX + "retention:turn")
    assert 0 < life <= 60_000


# ------------------------------------------------------------------------------------- the archive
def lines(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.iterdir()
    text = file.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


async def test_what_goes_is_in_the_archive_before(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository, tmp_path: Path
) -> None:
    await repository.save(ended("first", 8, parameters={"경로": "/데이터"}, logs=["t,줄"] * 700))
    await repository.save(ended("fresh", 1))
    archiving = loop(provider, "*=7d", archive=Archive(tmp_path))
    assert await archiving.round() == 1
    await repository.save(ended("second", 9))
    assert await archiving.round() == 1
    first, second = lines(tmp_path)
    assert (first["task_id"], second["task_id"]) == ("first", "second")
    assert len(first["logs"]) == 700
    assert TaskRecord.model_validate(first).parameters == {"경로": "/데이터"}
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert await left(repository) == {"fresh"}


async def test_the_deletion_follows_the_fsync(
    provider: RedisRepositoryProvider,
    repository: RedisTaskRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await repository.save(ended("old", 8))
    events: list[str] = []
    fsync, prune = os.fsync, Retention.prune

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    async def pruned(self: Retention, tasks: Any, **options: Any) -> Any:
        events.append("prune")
        return await prune(self, tasks, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Retention, "prune", pruned)
    await loop(provider, "*=7d", archive=Archive(tmp_path)).round()
    assert events == ["folder", "file", "prune"]


async def test_without_a_place_in_the_archive_nothing_is_removed(
    provider: RedisRepositoryProvider,
    repository: RedisTaskRepository,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await repository.save(ended("old", 8))
    tried: list[int] = []

    class Counting(Archive):
        async def add(self, retention: Retention, tasks: list[TaskRecord]) -> list[Seen]:
            tried.append(len(tasks))
            return await super().add(retention, tasks)

    waiting = loop(provider, "*=7d", archive=Counting(tmp_path / "missing"))
    with pytest.raises(ArchiveError, match="nothing is removed"):
        await waiting.round()
    running = asyncio.create_task(waiting.run())
    try:
        async with asyncio.timeout(30):
            while len(tried) < 5:
                await asyncio.sleep(0.01)
        told = [each.message for each in caplog.records if each.name == "dms_scheduler.retention"]
        assert told == ["Retention waits"], "said once"
        assert await left(repository) == {"old"}
        (tmp_path / "missing").mkdir()
        async with asyncio.timeout(30):
            while await left(repository):
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert running.cancelled()


async def test_a_full_disk_leaves_whole_lines(
    provider: RedisRepositoryProvider,
    repository: RedisTaskRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archiving = loop(provider, "*=7d", archive=Archive(tmp_path))
    await repository.save(ended("before", 8))
    assert await archiving.round() == 1
    await repository.save(ended("big", 8, logs=["t,x" * 100] * 100))
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 1000:
            return write(descriptor, bytes(data)[:1000])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(ArchiveError, match="No space left"):
            await archiving.round()
    assert [line["task_id"] for line in lines(tmp_path)] == ["before"]
    assert await left(repository) == {"big"}
    assert await archiving.round() == 1
    assert [line["task_id"] for line in lines(tmp_path)] == ["before", "big"]


async def test_a_line_that_a_crash_cut_off_is_taken_away(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository, tmp_path: Path
) -> None:
    archiving = loop(provider, "*=7d", archive=Archive(tmp_path))
    await repository.save(ended("one", 8))
    await archiving.round()
    (file,) = tmp_path.iterdir()
    with file.open("ab") as torn:
        torn.write(b'{"task_id":"torn","logs":["' + b"x" * 100_000)
    await repository.save(ended("two", 8))
    await archiving.round()
    assert [line["task_id"] for line in lines(tmp_path)] == ["one", "two"]


async def test_a_second_writer_of_one_file_waits(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository, tmp_path: Path
) -> None:
    await repository.save(ended("old", 8))
    archive = Archive(tmp_path)
    with archive._opened(), pytest.raises(ArchiveError):
        await loop(provider, "*=7d", archive=Archive(tmp_path)).round()
    assert await left(repository) == {"old"}


async def test_a_task_that_changes_after_it_was_archived_stays(
    provider: RedisRepositoryProvider,
    repository: RedisTaskRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await repository.save(ended("old", 8, logs=["t,a"]))
    prune = Retention.prune

    async def late(self: Retention, tasks: Any, **options: Any) -> Any:
        await repository.append_log("old", "late")
        return await prune(self, tasks, **options)

    archiving = loop(provider, "*=7d", archive=Archive(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(Retention, "prune", late)
        assert await archiving.round() == 0
    assert await left(repository) == {"old"}
    assert await archiving.round() == 1
    # The last line of a task is the one that counts.
    assert [len(line["logs"]) for line in lines(tmp_path)] == [1, 2]


async def test_an_export_says_how_much_is_in_it(
    provider: RedisRepositoryProvider, repository: RedisTaskRepository
) -> None:
    task = ended("x", 1, logs=["t,a", "t,b"])
    await repository.save(task)
    await repository.update_result("x", launcher_output="출력")
    kept = await repository.get("x")
    assert kept
    retention = await provider.get_retention()
    for form in (ExportForm.JSONL, ExportForm.FLAT):
        export = retention.export("x", form)
        whole = b"".join([chunk async for chunk in export.chunks()])
        assert whole.count(b"\n") == 1
        assert export.seen == Seen("x", kept.revision, 2, len("출력".encode()), kept.updated_at)
    gone = retention.export("gone", ExportForm.JSONL)
    assert [chunk async for chunk in gone.chunks()] == []
    assert gone.seen is None


@pytest.mark.parametrize("moment", ["before it is read", "while its log is read"])
async def test_a_task_that_goes_meanwhile_leaves_no_line(
    provider: RedisRepositoryProvider,
    repository: RedisTaskRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """Else a line without its log would be the last that the archive has of it."""
    for name in ("a", "b", "c"):
        await repository.save(ended(name, 8, logs=["t,x"] * 600))
    get, get_logs = RedisTaskRepository.get, RedisTaskRepository.get_logs

    async def late_get(self: RedisTaskRepository, task_id: str) -> TaskRecord | None:
        if moment == "before it is read" and task_id == "b":
            await self.delete("b")
        return await get(self, task_id)

    async def late_logs(self: RedisTaskRepository, task_id: str, **options: Any) -> Any:
        if task_id == "b" and options["offset"]:
            await self.delete("b")
        return await get_logs(self, task_id, **options)

    archiving = loop(provider, "*=7d", archive=Archive(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(RedisTaskRepository, "get", late_get)
        patched.setattr(RedisTaskRepository, "get_logs", late_logs)
        assert await archiving.round() == 2
    assert sorted((line["task_id"], len(line["logs"])) for line in lines(tmp_path)) == [
        ("a", 600), ("c", 600)
    ]  # fmt: skip
    assert await left(repository) == set()


# ----------------------------------------------------------------------------------- the scheduler
async def test_the_scheduler_service_applies_the_policy(
    shared_server: RealServer,
    provider: RedisRepositoryProvider,
    repository: RedisTaskRepository,
    tmp_path: Path,
) -> None:
    await repository.save(ended("old", 8))
    await repository.save(ended("new", 1))
    settings = make_settings(shared_server.url, retention="*=7d", archive_dir=tmp_path)
    with logging_restored():
        async with SchedulerService(settings, Metrics()).running(), asyncio.timeout(60):
            while await left(repository) != {"new"}:
                await asyncio.sleep(0.01)
    assert [line["task_id"] for line in lines(tmp_path)] == ["old"]
