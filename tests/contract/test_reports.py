"""What a task has beside its record: its report, its series, and what was adjusted about it."""

import gzip
import json
from base64 import b64decode
from collections.abc import Iterator

import pytest

from task_state import (
    FencedError,
    InvalidRequestError,
    TaskEndedError,
    TaskNotFoundError,
    TaskRecord,
    TaskReport,
    TaskStatus,
    _scripts,
    keys,
)
from task_state.export import ExportForm
from task_state.managed import ManagedTasks, ReportState
from task_state.redis import RedisRepositoryProvider
from task_state.reports import Reports
from task_state.repository import RedisTaskRepository
from tests.contract.store import Keyspace, record
from tests.contract.test_managed_tasks import begin, loaded, running, submit

BIG = 1 << 50


@pytest.fixture
async def reports(provider: RedisRepositoryProvider) -> Reports:
    return await provider.get_reports()


@pytest.fixture
def small_report() -> Iterator[None]:
    """Scripts with room for 100 bytes of a report, and a reserve of 100."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_scripts, "REPORT_BYTES", 100)
        _scripts.script.cache_clear()
        yield
    _scripts.script.cache_clear()


async def whole(reports: Reports, task_id: str) -> bytes:
    return b"".join([piece async for piece in reports.pieces(task_id)])


# ---------------------------------------------------------------------------------------- report
async def test_blocks_stand_one_behind_the_other_and_are_counted(
    managed: ManagedTasks, repository: RedisTaskRepository, reports: Reports
) -> None:
    task_id = await running(managed)
    assert await whole(reports, task_id) == b""
    assert (await loaded(repository, task_id)).report is None
    first, second = gzip.compress(b'{"a":1}\n{"a":2}\n'), gzip.compress(b'{"a":3}\n' * 70_000)
    state = await managed.append_report(task_id, 1, first, 2, before=0)
    assert state == ReportState(lines=2, omitted=0, full=False)
    await managed.append_report(task_id, 1, second, 70_000, before=2)
    await managed.append_report(task_id, 1, b"", 5, before=70_002)
    assert await whole(reports, task_id) == first + second
    facts = TaskReport(lines=70_002, omitted=5)
    assert (await loaded(repository, task_id)).report == facts
    assert [task.report for task in await repository.list_all()] == [facts]
    assert await reports.facts(task_id) == facts
    assert await reports.facts("missing") is None


async def test_a_repeated_block_changes_nothing(managed: ManagedTasks, reports: Reports) -> None:
    task_id = await running(managed)
    for _ in range(3):
        state = await managed.append_report(task_id, 1, b"one", 2, before=0)
        assert state == ReportState(lines=2, omitted=0, full=False)
    for _ in range(3):
        state = await managed.append_report(task_id, 1, b"", 4, before=2)
        assert state == ReportState(lines=2, omitted=4, full=False)
    assert await whole(reports, task_id) == b"one"


async def test_an_older_attempt_adds_nothing(managed: ManagedTasks, reports: Reports) -> None:
    task_id = await running(managed)
    await managed.append_report(task_id, 1, b"one", 1, before=0)
    await managed.retry(task_id, 1)
    attempt = await begin(managed, task_id, 2)
    assert attempt.task.report == TaskReport(lines=1)
    for wrong in (task_id, "missing"):
        with pytest.raises(FencedError):
            await managed.append_report(wrong, 1, b"stale", 1, before=1)
    await managed.append_report(task_id, 2, b"two", 1, before=1)
    assert await whole(reports, task_id) == b"onetwo"


@pytest.mark.usefixtures("small_report")
async def test_a_full_report_takes_failures_into_its_reserve(
    managed: ManagedTasks, reports: Reports
) -> None:
    task_id = await running(managed)
    before, steps = 0, [
        (b"x" * 90, 3, False, ReportState(3, 0, full=False)),
        (b"x" * 11, 5, False, ReportState(3, 5, full=True)),
        (b"f" * 60, 2, True, ReportState(5, 5, full=True)),
        (b"x" * 1, 1, False, ReportState(5, 6, full=True)),
        (b"f" * 50, 2, True, ReportState(7, 6, full=True)),
        (b"f" * 1, 4, True, ReportState(7, 10, full=True)),
    ]  # fmt: skip
    for block, lines, failed, expected in steps:
        state = await managed.append_report(task_id, 1, block, lines, failed=failed, before=before)
        assert state == expected
        before += lines
    assert await whole(reports, task_id) == b"x" * 90 + b"f" * 110


async def test_the_real_limits_are_16_mib_each(managed: ManagedTasks, reports: Reports) -> None:
    task_id = await running(managed)
    half = b"x" * (8 * 2**20)
    full = [
        (await managed.append_report(task_id, 1, half, 1, failed=n > 1, before=n)).omitted
        for n in range(5)
    ]
    assert full == [0, 0, 0, 0, 1]
    assert len(await whole(reports, task_id)) == 32 * 2**20


async def test_a_report_outlives_the_end_and_goes_with_its_task(
    managed: ManagedTasks, repository: RedisTaskRepository, reports: Reports, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    await managed.append_report(task_id, 1, b"one", 1, before=0)
    await managed.heartbeat(task_id, 1, series=b'{"points":[]}')
    names = (keys.report(task_id), keys.series(task_id))
    assert [keyspace.client.pttl(name) for name in names] == [-1, -1]
    await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    assert all(keyspace.client.pttl(name) > 0 for name in names)
    ended = await loaded(repository, task_id)
    assert ended.report == TaskReport(lines=1)
    await repository.append_log(task_id, "one more line")
    await managed.append_report(task_id, 1, b"late", 1, before=1)
    assert (await loaded(repository, task_id)).report == TaskReport(lines=2)
    assert await whole(reports, task_id) == b"onelate"
    await managed.cancel(task_id, delete=True)
    assert not any(keyspace.client.exists(name) for name in names)


async def test_a_report_of_an_ended_task_that_comes_late_expires_too(
    managed: ManagedTasks, keyspace: Keyspace
) -> None:
    task_id = await running(managed)
    await managed.finish(task_id, 1, TaskStatus.FAILED)
    await managed.append_report(task_id, 1, b"late", 1, before=0)
    assert keyspace.client.pttl(keys.report(task_id)) > 0


async def test_saving_a_record_leaves_all_that_as_it_is(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    await managed.append_report(task_id, 1, b"one", 1, before=0)
    await managed.adjust(task_id, "bandwidth", 7, log_entry="slower")
    shown = await loaded(repository, task_id)
    shown.report, shown.adjust, shown.description = None, {"bandwidth": 9}, "described"
    await repository.save(shown)
    again = await loaded(repository, task_id)
    assert (again.description, again.report) == ("described", TaskReport(lines=1))
    assert again.adjust == {"bandwidth": 7}


# ---------------------------------------------------------------------------------------- series
async def test_the_newest_series_counts(managed: ManagedTasks, reports: Reports) -> None:
    task_id = await running(managed)
    assert await reports.series(task_id) is None
    await managed.heartbeat(task_id, 1, series=b'{"points":[[1,2,3]]}')
    await managed.heartbeat(task_id, 1, series=json.dumps({"points": [[1, 2, 4]]}).encode())
    await managed.heartbeat(task_id, 1, progress={"bytes": 5})
    assert await reports.series(task_id) == {"points": [[1, 2, 4]]}


# ---------------------------------------------------------------------------------------- adjust
async def test_a_worker_learns_what_was_adjusted_and_the_next_one_too(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    before = await loaded(repository, task_id)
    assert (await managed.heartbeat(task_id, 1)).adjusted == {}
    told = await managed.adjust(task_id, "bandwidth", BIG, log_entry="faster")
    assert told == {"bandwidth": BIG}
    assert (await managed.heartbeat(task_id, 1)).adjusted == {"bandwidth": BIG}
    after = await loaded(repository, task_id)
    assert (after.adjust, after.revision) == ({"bandwidth": BIG}, before.revision)
    assert after.logs[-1].endswith(",faster")
    await managed.adjust(task_id, "label", '인용 "x"', log_entry="more")
    await managed.retry(task_id, 1)
    both = {"bandwidth": BIG, "label": '인용 "x"'}
    assert (await begin(managed, task_id, 2)).task.adjust == both
    await managed.adjust(task_id, "label", None, log_entry="less")
    assert await managed.adjust(task_id, "bandwidth", None, log_entry="less") == {}
    assert (await managed.heartbeat(task_id, 2)).adjusted == {}
    assert (await loaded(repository, task_id)).adjust is None


async def test_a_waiting_task_can_be_adjusted(managed: ManagedTasks) -> None:
    task_id = await submit(managed)
    await managed.adjust(task_id, "bandwidth", 0, log_entry="no limit")
    assert (await begin(managed, task_id, 1)).task.adjust == {"bandwidth": 0}


async def test_what_has_ended_or_belongs_to_somebody_else_is_not_adjusted(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    for owner in ({"service": "other"}, {"user_id": "other"}):
        with pytest.raises(TaskNotFoundError):
            await managed.adjust(task_id, "bandwidth", 1, **owner, log_entry="x")
    with pytest.raises(TaskNotFoundError):
        await managed.adjust("missing", "bandwidth", 1, log_entry="x")
    await repository.save(record())
    with pytest.raises(InvalidRequestError):
        await managed.adjust("external-1", "bandwidth", 1, log_entry="x")
    await managed.cancel(task_id)
    for status in (TaskStatus.CANCEL_REQUESTED, TaskStatus.CANCELLED):
        with pytest.raises(TaskEndedError, match=status):
            await managed.adjust(task_id, "bandwidth", 1, log_entry="x")
        if not (await loaded(repository, task_id)).status.is_terminal:
            await managed.finish(task_id, 1, TaskStatus.CANCELLED)
    assert (await loaded(repository, task_id)).adjust is None


# ---------------------------------------------------------------------------------------- export
@pytest.mark.parametrize("size", [0, 1, 65_536, 200_000])
async def test_an_export_has_the_report_as_it_is_stored(
    managed: ManagedTasks, provider: RedisRepositoryProvider, size: int
) -> None:
    task_id = await running(managed)
    block = bytes(number % 251 for number in range(size))
    if size:
        await managed.append_report(task_id, 1, block, 3, before=0)
    await managed.finish(task_id, 1, TaskStatus.COMPLETED)
    export = (await provider.get_retention()).export(task_id, ExportForm.JSONL)
    line = b"".join([chunk async for chunk in export.chunks()])
    found = json.loads(line)["report"]
    if size:
        assert b64decode(found.pop("gzip"), validate=True) == block
        assert found == {"lines": 3, "omitted": 0}
    else:
        assert found is None
    facts = TaskReport(lines=3) if size else None
    assert TaskRecord.model_validate_json(line).report == facts
