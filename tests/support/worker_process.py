"""Real worker processes for tests, and a client's view of the tasks that they run."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dms_scheduler.admitter import Admitter
from dms_scheduler.engine import EngineClient
from task_state import TaskRecord, TaskStatus
from task_state.admission import Admission, Attendance
from task_state.managed import ManagedTasks, Waiting
from task_state.redis import RedisRepositoryProvider, RedisRepositorySettings
from task_state.repository import RedisTaskRepository

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
_RUN = (
    "import sys\n"
    "from app.core.config import load_settings\n"
    "from app.core.logging import configure_logging\n"
    "from dms_scheduler.worker import run_worker\n"
    "settings = load_settings()\n"
    "configure_logging(settings)\n"
    "sys.exit(run_worker(settings))\n"
)

SHORT = {
    "DMS_LEASE_SECONDS": "3",
    "DMS_HEARTBEAT_SECONDS": "0.5",
    "DMS_DRAIN_SECONDS": "0",
    "DMS_TERM_SECONDS": "2",
    "DMS_CANCEL_GRACE_SECONDS": "1",
}
"""Times for tests of what happens when one of them is over."""


class WorkerProcess:
    """`with WorkerProcess(url) as worker:` runs a worker; leaving kills it if it still lives."""

    def __init__(self, url: str, environment: Mapping[str, str] | None = None) -> None:
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DMS_")},
            "DMS_REDIS_WRITE_URL": url,
            "DMS_TASK_MODULES": "tests.support.handlers",
            "DMS_CHILD_POOL_SIZE": "1",
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUN],
            env=self._environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if error is not None:
            print(
                f"--- worker {self.process.pid}\n{self.log()}"
            )  # pytest shows it with the failure
        self._log.close()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.process.pid

    def log(self) -> str:
        """What it has written."""
        return Path(f"/proc/self/fd/{self._log.fileno()}").read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the worker alone."""
        os.kill(self.process.pid, number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code."""
        return self.process.wait(seconds)


class Client:
    """Submits tasks as the frontend and the scheduler service do, and watches them."""

    def __init__(self, url: str, *, timeout_seconds: float = 2.0) -> None:
        self.url = url
        self._provider = RedisRepositoryProvider(
            RedisRepositorySettings(write_url=url, timeout_seconds=timeout_seconds)
        )
        self.engine = EngineClient(url, timeout_seconds=timeout_seconds)
        self.admitter = Admitter(self._provider, self.engine)
        self.managed: ManagedTasks
        self.admission: Admission
        self.repository: RedisTaskRepository

    async def __aenter__(self) -> Self:
        self.managed = await self._provider.get_managed()
        self.repository = await self._provider.get_repository()
        self.admission = await self._provider.get_admission()
        await self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()
        await self._provider.close()

    async def submit(self, service: str, **parameters: Any) -> str:
        """Submit and accept a task, and start it if a worker has a free slot."""
        task = await self.managed.submit(service=service, user_id="hong", parameters=parameters)
        await self.accept(task.task_id)
        return task.task_id

    async def accept(self, task_id: str) -> None:
        """What the scheduler service does with `POST /task`."""
        assert isinstance(await self.managed.accept(task_id), Waiting)
        await self.admitter.round()

    async def offer_slots(self, slots: int, worker: str = "w") -> None:
        """Let a worker be there that has so many slots, and runs nothing by itself."""
        await self.admission.admit(attendance=Attendance(worker, slots, 3600.0), limit=0)

    async def cancel(self, task_id: str) -> None:
        """What the frontend and the scheduler service do together."""
        await self.managed.cancel(task_id)
        record = await self.get(task_id)
        await self.engine.cancel(task_id, record.epoch)

    async def get(self, task_id: str) -> TaskRecord:
        """The record, which must exist."""
        record = await self.repository.get(task_id)
        assert record is not None
        return record

    async def ended(self, task_id: str, seconds: float = PATIENCE) -> TaskRecord:
        """The record once it is terminal."""
        return await self.until(task_id, lambda record: record.status.is_terminal, seconds)

    async def running(self, task_id: str) -> TaskRecord:
        """The record once it is RUNNING."""
        return await self.until(task_id, lambda record: record.status is TaskStatus.RUNNING)

    async def until(
        self,
        task_id: str,
        holds: Callable[[TaskRecord], bool],
        seconds: float = PATIENCE,
    ) -> TaskRecord:
        """The record once the condition holds; a failure shows how it was instead."""
        limit = time.monotonic() + seconds
        while not holds(record := await self.get(task_id)):
            assert time.monotonic() < limit, f"not within {seconds} s: {record!r}"
            await asyncio.sleep(0.02)
        return record


async def eventually(holds: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Return once the condition holds."""
    limit = time.monotonic() + PATIENCE
    while True:
        result = holds()
        if result if isinstance(result, bool) else await result:
            return
        assert time.monotonic() < limit, f"not within {PATIENCE} s: {what}"
        await asyncio.sleep(0.02)


def messages(record: TaskRecord) -> list[str]:
    """The log lines without their times."""
    return [line.partition(",")[2] for line in record.logs]
