"""The limits of logs and output: where they end, the marker, and that the end is bounded."""

from collections.abc import Iterator

import pytest

from task_state import TaskResult, TaskStatus, _scripts
from task_state.managed import ManagedTasks
from task_state.repository import RedisTaskRepository
from tests.contract.store import record
from tests.contract.test_managed_tasks import running

LOG_MARK = "[log truncated here: it reached its limit]"
OUTPUT_MARK = "\n[output truncated here: it reached its limit]"
STAMP = "2026-01-01T00:00:00.000000+09:00,"


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts with limits of 10 lines and 400 bytes of log, and 100 bytes of output."""
    monkeypatch.setattr(_scripts, "LOG_LINES", 10)
    monkeypatch.setattr(_scripts, "LOG_BYTES", 400)
    monkeypatch.setattr(_scripts, "OUTPUT_BYTES", 100)
    _scripts.script.cache_clear()
    yield
    _scripts.script.cache_clear()


async def lines_of(repository: RedisTaskRepository) -> list[str]:
    page = await repository.get_logs("external-1")
    assert page.total == len(page.lines)
    return [line.partition(",")[2] for line in page.lines]


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("batch", [1, 3, 10, 50])
async def test_a_log_ends_at_its_last_line_with_one_mark(
    repository: RedisTaskRepository, batch: int
) -> None:
    await repository.save(record())
    for start in range(0, 50, batch):
        lines = [f"{STAMP}{number}" for number in range(start, start + batch)]
        await repository.append_logs("external-1", lines)
    assert await lines_of(repository) == [*(str(number) for number in range(10)), LOG_MARK]
    await repository.set_status("external-1", TaskStatus.RUNNING, log_entry="more")
    assert (await lines_of(repository))[-1] == LOG_MARK
    found = await repository.get("external-1")
    assert found is not None
    assert found.logs[-1] == STAMP + LOG_MARK
    assert found.logs_total == 11


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("batch", [1, 2, 5])
async def test_a_log_ends_at_its_last_byte_with_one_mark(
    repository: RedisTaskRepository, batch: int
) -> None:
    await repository.save(record())
    long = STAMP + "x" * (100 - len(STAMP))
    for _ in range(0, 10, batch):
        await repository.append_logs("external-1", [long] * batch)
    assert await lines_of(repository) == [*["x" * 67] * 4, LOG_MARK]
    await repository.append_log("external-1", "more")
    assert len(await lines_of(repository)) == 5


@pytest.mark.usefixtures("small_limits")
async def test_one_line_longer_than_the_limit_is_not_kept(repository: RedisTaskRepository) -> None:
    await repository.save(record())
    await repository.append_logs("external-1", [STAMP + "a", f"{STAMP}{'x' * 1000}", STAMP + "b"])
    assert await lines_of(repository) == ["a", LOG_MARK]


@pytest.mark.usefixtures("small_limits")
async def test_an_attempts_log_is_limited_too(
    managed: ManagedTasks, repository: RedisTaskRepository
) -> None:
    task_id = await running(managed)
    await managed.append_logs(task_id, 1, [f"{STAMP}{number}" for number in range(30)])
    await managed.finish(task_id, 1, TaskStatus.COMPLETED, log_entry="done")
    page = await repository.get_logs(task_id)
    assert page.total == 11
    assert page.lines[-1] == STAMP + LOG_MARK


@pytest.mark.usefixtures("small_limits")
async def test_a_replaced_record_starts_a_new_log(repository: RedisTaskRepository) -> None:
    await repository.save(record(logs=[STAMP + "x" * 1000]))
    assert await lines_of(repository) == [LOG_MARK]
    await repository.save(record(logs=[STAMP + "y"]))
    assert await lines_of(repository) == ["y"]


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
async def test_output_ends_with_one_mark(repository: RedisTaskRepository, chunk: int) -> None:
    await repository.save(record())
    for _ in range(0, 1000, chunk):
        await repository.update_result("external-1", launcher_output="x" * chunk)
    assert await repository.get_launcher_output("external-1") == "x" * 100 + OUTPUT_MARK
    await repository.save(record(result=TaskResult(launcher_output="y" * 101)))
    assert await repository.get_launcher_output("external-1") == "y" * 100 + OUTPUT_MARK


async def test_the_real_limit_of_output_is_16_mib(repository: RedisTaskRepository) -> None:
    await repository.save(record())
    chunk = "한" * (2**20)
    for _ in range(6):
        await repository.update_result("external-1", launcher_output=chunk)
    output = await repository.get_launcher_output("external-1")
    assert output.endswith(OUTPUT_MARK)
    kept = output.removesuffix(OUTPUT_MARK).rstrip("\ufffd")
    assert kept == "한" * (16 * 2**20 // 3)
