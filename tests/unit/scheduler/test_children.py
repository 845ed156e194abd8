"""Child processes, really started: jobs, limits, ends. No Redis is needed for any of it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dms_scheduler.children import Child, ChildDied, ChildError, ChildPool, ChildSettings
from dms_scheduler.handler import TaskView
from dms_scheduler.jobs import ChildJob
from dms_scheduler.report import Block

SETTINGS = ChildSettings(modules=("tests.support.handlers",))
LATER = 1e12
ROOT = Path(__file__).resolve().parents[3]


class Words:
    """Everything that a job said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.values: list[dict[str, Any]] = []
        self.saved: list[Any] = []
        self.reported: list[Block] = []
        self.written = b""
        self.heard = asyncio.Event()

    def log(self, message: str) -> None:
        self.lines.append(message)
        self.heard.set()

    def progress(self, values: dict[str, Any] | None, *, advanced: bool) -> None:
        self.values.append({**(values or {}), "advanced": advanced})
        self.heard.set()

    def checkpoint(self, value: Any) -> None:
        self.saved.append(value)
        self.heard.set()

    def report(self, block: Block) -> None:
        self.reported.append(block)
        self.heard.set()

    def output(self, data: bytes) -> None:
        self.written += data

    async def room(self) -> None:
        return


def view(service: str, parameters: dict[str, Any] | None = None, epoch: int = 1) -> TaskView:
    """A task for a handler of tests.support.handlers."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return TaskView(
        id="task-1", service=service, user_id="hong", parameters=parameters or {},
        created_at=moment, updated_at=moment, started_at=moment, attempts=1, max_attempts=3,
        epoch=epoch, description=None,
    )  # fmt: skip


def test_a_child_does_not_load_what_its_worker_alone_needs() -> None:
    """Each task may cost such a start, and each child this memory."""
    program = "import sys, dms_scheduler.children.child as _; sys.exit('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == 0


@pytest.fixture
async def child() -> AsyncGenerator[Child]:
    started = await Child.start(SETTINGS)
    yield started
    await started.kill()


async def file_appears(path: Path) -> str:
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.01)
    return path.read_text()


def gone(pid: int) -> bool:
    """Whether no such process is left, zombies aside."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_one_child_runs_several_jobs(child: Child) -> None:
    words = Words()
    first = await child.run(view("t.add", {"first": "1"}), LATER, words)
    second = await child.run(view("t.add-async-child", {"first": 5, "second": 6}), LATER, words)
    assert (first.kind, first.data["sum"], second.data["sum"]) == ("success", 3, 11)
    assert first.data["pid"] == second.data["pid"] == child.pid
    assert not first.worn
    assert child.usable
    assert words.lines == [f"adding in process {child.pid}"]
    assert words.values == [{"phase": "add", "done": 1, "advanced": True}]


async def test_parameters_that_do_not_fit_are_told_without_their_values(child: Child) -> None:
    wrong = {"first": "secret-value", "third": 1}
    outcome = await child.run(view("t.add", wrong), LATER, Words())
    assert (outcome.kind, outcome.retryable) == ("invalid", False)
    assert "first" in (outcome.error or "")
    assert "third" in (outcome.error or "")
    assert "secret-value" not in (outcome.error or "")


async def test_an_exception_is_a_failure_with_the_handlers_traceback(child: Child) -> None:
    outcome = await child.run(view("t.fail", {"password": "p"}), LATER, Words())
    assert outcome.kind == "failure"
    assert outcome.error == "ValueError: the password p was wrong"
    assert "in fail" in (outcome.traceback or "")
    assert "dms_scheduler/handler.py" not in (outcome.traceback or "")
    assert outcome.worn


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("t.die", "killed by signal 9 SIGKILL (out of memory?)"),
        ("t.leave", "left with exit code 7"),
    ],
)
async def test_a_death_in_the_middle_says_how(child: Child, service: str, expected: str) -> None:
    with pytest.raises(ChildDied) as caught:
        await child.run(view(service), LATER, Words())
    assert expected in str(caught.value)
    assert not child.usable


async def test_too_much_memory_is_a_failure_of_the_child_alone() -> None:
    settings = ChildSettings(modules=SETTINGS.modules, memory_bytes=256 * 1024 * 1024)
    child = await Child.start(settings)
    try:
        outcome = await child.run(view("t.memory"), LATER, Words())
    finally:
        await child.kill()
    assert outcome.kind == "failure"
    assert "DMS_CHILD_MEMORY_BYTES" in (outcome.error or "")


async def test_a_polite_handler_cleans_up_when_it_is_stopped(child: Child, tmp_path: Path) -> None:
    words = Words()
    job = asyncio.create_task(child.run(view("t.polite", {"folder": str(tmp_path)}), LATER, words))
    await file_appears(tmp_path / "started.1")
    child.stop("the task was cancelled")
    outcome = await job
    assert (outcome.kind, outcome.error) == ("cancelled", "the task was cancelled")
    assert (tmp_path / "cleaned.1").exists()
    assert not child.usable


async def test_a_stubborn_handler_is_killed_with_all_it_started(
    child: Child, tmp_path: Path
) -> None:
    work = child.run(view("t.stubborn", {"folder": str(tmp_path)}), LATER, Words())
    job = asyncio.create_task(work)
    grandchild = int(await file_appears(tmp_path / "grandchild.1"))
    child.stop("enough")
    assert not (await asyncio.wait({job}, timeout=0.3))[0]
    await child.kill()
    assert gone(child.pid)
    assert gone(grandchild)
    with pytest.raises(ChildDied):
        await job


async def test_the_lease_stops_a_handler_that_hears_nothing(child: Child, tmp_path: Path) -> None:
    parameters = {"file": str(tmp_path / "never"), "folder": str(tmp_path)}
    soon = time.monotonic() + 0.2
    outcome = await child.run(view("t.until-file", parameters), soon, Words())
    assert outcome.kind == "lease_lost"


async def test_a_deadline_moved_on_lets_it_work(child: Child, tmp_path: Path) -> None:
    wanted = tmp_path / "go"
    parameters = {"file": str(wanted), "folder": str(tmp_path)}
    near = time.monotonic() + 0.5
    job = asyncio.create_task(child.run(view("t.until-file", parameters), near, Words()))
    await file_appears(tmp_path / "started.1")
    child.deadline(LATER)
    while time.monotonic() < near:
        await asyncio.sleep(0.02)
    wanted.touch()
    assert (await job).kind == "success"


async def test_what_a_job_is_told_at_once_arrives_after_its_start(
    child: Child, tmp_path: Path
) -> None:
    parameters = {"file": str(tmp_path / "go"), "folder": str(tmp_path)}
    near = time.monotonic() + 0.5
    job = ChildJob(child, view("t.until-file", parameters), near, Words())
    job.deadline(LATER)
    await file_appears(tmp_path / "started.1")
    while time.monotonic() < near:
        await asyncio.sleep(0.02)
    (tmp_path / "go").touch()
    assert (await job.task).kind == "success"


async def test_output_is_complete_when_the_job_ends(child: Child) -> None:
    words = Words()
    outcome = await child.run(view("t.print", {"bytes": "3000000"}), LATER, words)
    assert outcome.data == 3_000_000
    assert len(words.written) == 3_000_000


async def test_any_bytes_get_through(child: Child) -> None:
    words = Words()
    outcome = await child.run(view("t.odd"), LATER, words)
    assert outcome.data == {"name": "\\udcff\\udcfe", "korean": "데이터"}
    assert words.lines == ["파일 \udcff\udcfe"]
    assert words.written == "출력 ".encode() + b"\xff\n"


@pytest.mark.parametrize("how", ["return", "exit", "raise"])
async def test_a_fork_of_the_handler_answers_nothing(child: Child, how: str) -> None:
    outcome = await child.run(view("t.fork", {"how": how}), LATER, Words())
    assert (outcome.kind, outcome.data) == ("success", "the answer")


async def test_closed_streams_are_no_failure(child: Child) -> None:
    outcome = await child.run(view("t.close-streams"), LATER, Words())
    assert (outcome.kind, outcome.data) == ("success", "closed")


async def test_a_child_that_left_something_behind_is_not_used_again(child: Child) -> None:
    outcome = await child.run(view("t.litter"), LATER, Words())
    assert (outcome.kind, outcome.worn) == ("success", True)


BUSY_WORKER = """
import asyncio, sys
from dms_scheduler.children import Child
from tests.unit.scheduler.test_children import LATER, SETTINGS, Words, view
async def main():
    child = await Child.start(SETTINGS)
    await child.run(view("t.deaf", {"folder": sys.argv[1]}), LATER, Words())
asyncio.run(main())
"""


async def test_a_busy_child_dies_with_its_worker(tmp_path: Path) -> None:
    """The worker here is a process of its own, killed without a chance to tell its child."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BUSY_WORKER,
        str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        pid = int(await file_appears(tmp_path / "started.1"))
    finally:
        process.kill()
        await process.wait()
    async with asyncio.timeout(20):
        while not gone(pid):
            await asyncio.sleep(0.01)


async def test_a_module_that_does_not_load_is_named() -> None:
    with pytest.raises(ChildError, match="no_such_module_of_ours") as caught:
        await Child.start(ChildSettings(modules=("no_such_module_of_ours",)))
    assert "DMS_TASK_MODULES" in str(caught.value)


async def test_the_operator_token_stays_with_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DMS_OPERATOR_TOKEN", "canary")
    child = await Child.start(ChildSettings(modules=SETTINGS.modules, data_roots=("/a", "/b")))
    try:
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
    finally:
        await child.kill()
    assert b"canary" not in environment
    assert b"DMS_DATA_ROOTS=/a:/b" in environment


class TestPool:
    async def test_a_clean_child_is_used_again_and_a_worn_one_is_not(self) -> None:
        pool = ChildPool(SETTINGS, 1)
        await pool.start()
        try:
            first = await pool.acquire()
            await first.run(view("t.add", {"first": 1}), LATER, Words())
            pool.give_back(first, worn=False)
            second = await pool.acquire()
            assert second is first
            pool.give_back(second, worn=True)
            third = await pool.acquire()
            assert third is not first
        finally:
            await pool.close()
        assert gone(first.pid)
        assert gone(third.pid)

    async def test_a_child_that_died_idle_is_replaced(self) -> None:
        pool = ChildPool(SETTINGS, 1)
        await pool.start()
        try:
            first = await pool.acquire()
            pool.give_back(first, worn=False)
            os.kill(first.pid, signal.SIGKILL)
            async with asyncio.timeout(20):
                while first.usable:
                    await asyncio.sleep(0.01)
            second = await pool.acquire()
            outcome = await second.run(view("t.add", {"first": 1}), LATER, Words())
        finally:
            await pool.close()
        assert outcome.kind == "success"

    async def test_as_many_as_are_needed_run_at_once(self, tmp_path: Path) -> None:
        pool = ChildPool(SETTINGS, 1)
        await pool.start()
        try:
            children = [await pool.acquire() for _ in range(3)]
            assert len({child.pid for child in children}) == 3
        finally:
            await pool.close()
        assert all(gone(child.pid) for child in children)


async def test_worn_children_are_replaced_by_no_more_than_the_pool_keeps() -> None:
    """Each of them asks for a new one while others are still starting."""
    pool = ChildPool(SETTINGS, 1)
    await pool.start()

    async def wear_out() -> None:
        for _ in range(2):
            pool.give_back(await pool.acquire(), worn=True)

    try:
        await asyncio.gather(*(wear_out() for _ in range(4)))
        async with asyncio.timeout(60):
            while pool._tasks:
                await asyncio.sleep(0.01)
        assert len(pool._idle) == len(pool._children) == 1
    finally:
        await pool.close()


async def test_a_child_that_dies_has_said_its_checkpoints(child: Child) -> None:
    words = Words()
    with pytest.raises(ChildDied):
        await child.run(view("e.resume", {"then": "die"}), LATER, words)
    assert len(words.saved) == 100
    assert words.saved[-1] == {"done": 100, "이름": [1]}


async def test_a_child_reads_the_checkpoint_of_the_attempt_before(child: Child) -> None:
    words = Words()
    again = view("e.resume", epoch=2).model_copy(update={"checkpoint": {"done": 3}})
    outcome = await child.run(again, LATER, words)
    assert outcome.data == {"resumed": {"done": 3}, "epoch": 2}
    outcome = await child.run(view("e.resume", epoch=2), LATER, words)
    assert outcome.data["resumed"] is None, "the next task has none of it"
    assert words.saved == []


async def test_what_a_killed_child_said_is_heard_even_if_nobody_listened_yet(
    child: Child, tmp_path: Path
) -> None:
    """The store is away, so lines wait, and so does all that came after them in the channel."""
    words, gate, said = Words(), asyncio.Event(), tmp_path / "said.1"

    async def room() -> None:
        await gate.wait()

    words.room = room
    job = asyncio.create_task(
        child.run(view("e.save-without-end", {"folder": str(tmp_path)}), LATER, words)
    )
    async with asyncio.timeout(60):
        while not said.exists() or int(said.read_text()) < 10:
            await asyncio.sleep(0.01)
    await child.kill()
    assert words.saved == []
    gate.set()
    with pytest.raises(ChildDied):
        await job
    assert len(words.saved) >= int(said.read_text())
    assert [number for number, _ in words.saved] == list(range(1, len(words.saved) + 1))


@pytest.mark.parametrize("killer", ["its worker", "somebody else"])
async def test_a_process_that_left_the_group_does_not_keep_the_run_waiting(
    child: Child, tmp_path: Path, killer: str
) -> None:
    """It holds the child's side of the channel, in a session of its own."""
    words, escaped = Words(), tmp_path / "escaped.1"
    job = asyncio.create_task(child.run(view("e.escape", {"folder": str(tmp_path)}), LATER, words))
    pid = int(await file_appears(escaped))
    if killer == "its worker":
        await child.kill()
    else:
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildDied):
        await job
    assert gone(pid)
    assert words.saved == ["before the escape"]
