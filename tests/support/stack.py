"""A whole DMS of real processes for tests: Valkey, frontend, scheduler, workers on loopback.

Built of the same pieces as `dms-frontend up` (`cli.up`), but nothing restarts what a test killed.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from cli.embedded import EmbeddedServer
from cli.up.locks import hold_server
from cli.up.part import Part, describe_exit
from cli.up.plan import (
    FRONTEND,
    SCHEDULER,
    SERVER,
    Plan,
    Reservation,
    parts_environment,
    private_folder,
)
from cli.up.ready import probe

T = TypeVar("T")

TERMINAL = ("COMPLETED", "FAILED", "CANCELLED")
TOKEN = "stack-operator-token"
# Long enough for a machine whose two cores are busy with other tests.
START_SECONDS = 60.0
STOP_SECONDS = 45.0

QUICK = {
    "DMS_LEASE_SECONDS": "4",
    "DMS_HEARTBEAT_SECONDS": "1",
    "DMS_DRAIN_SECONDS": "1",
    "DMS_TERM_SECONDS": "2",
    "DMS_CHILD_POOL_SIZE": "1",
    "DMS_LOG_LEVEL": "INFO",
}
"""Short leases and drains, so that a test of a dead worker takes seconds, and one process in store
for the next task; `env` overrides them."""


def eventually(look: Callable[[], T], seconds: float = 60.0, what: str = "") -> T:
    """Look until the answer is true, and return it; AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or look}"
        time.sleep(0.05)
    return found


class Stack:
    """`with Stack(tmp_path, roots=[tmp_path / "data"]) as stack: ...`

    Parts: "server", "frontend", "scheduler", "worker", "worker-2" ... Those named in `without`
    are not started at first; `start(name)` does it. Paths of roots are made when missing.
    """

    def __init__(
        self,
        tmp_path: Path,
        roots: Sequence[Path] | None = None,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.roots = [tmp_path / "data"] if roots is None else list(roots)
        for root in self.roots:
            root.mkdir(parents=True, exist_ok=True)
        self._without = without
        self._parts: dict[str, Part] = {}
        self._owners: dict[str, tuple[str, str]] = {}
        self._ports = [Reservation(0), Reservation(0)]
        self.plan = self._plan(private_folder(tmp_path / "dms"), workers, env or {})
        self._lifeline = os.pipe()
        self.client = httpx2.Client(base_url=self.plan.address, timeout=30.0, trust_env=False)

    def _plan(self, data_dir: Path, workers: int, env: Mapping[str, str]) -> Plan:
        server = EmbeddedServer.of(data_dir)
        port, scheduler_port = (reservation.port for reservation in self._ports)
        environment = parts_environment(
            server,
            port=port,
            scheduler_port=scheduler_port,
            roots=self.roots,
            token=TOKEN,
            base={**os.environ, **QUICK},
        )
        log_dir = data_dir / "logs"
        log_dir.mkdir(exist_ok=True)
        return Plan(
            data_dir=data_dir,
            log_dir=log_dir,
            roots=self.roots,
            port=port,
            scheduler_port=scheduler_port,
            workers=workers,
            server=server,
            environment={**environment, **env},
        )

    def __enter__(self) -> Self:
        try:
            if SERVER not in self._without:
                self.start(SERVER)
            others = (SCHEDULER, FRONTEND, *self.plan.worker_names)
            wanted = [name for name in others if name not in self._without]
            for name in wanted:
                self.start(name, wait_ready=False)
            for name in wanted:
                self._wait_ready(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._print_logs()
        self.close()

    # ------------------------------------------------------------------------------------ processes
    @property
    def redis_url(self) -> str:
        """The server's address: a unix socket."""
        return self.plan.server.url

    @property
    def environment(self) -> dict[str, str]:
        """What the parts run with; use it for a CLI call against this stack as well."""
        return {**self.plan.environment, "DMS_API_BASE": self.api_base}

    def start(self, name: str, *, wait_ready: bool = True) -> None:
        """Start a part that is not running, and wait until it can work."""
        assert name not in self._parts or self._parts[name].poll() is not None, f"{name} runs"
        if name == SERVER:
            self._start_server()
        else:
            self._parts[name] = Part(self.plan.part(name, self._lifeline[1]))
        if wait_ready:
            self._wait_ready(name)

    def _start_server(self) -> None:
        lock = hold_server(self.plan.data_dir, START_SECONDS, time.sleep)
        try:
            self._parts[SERVER] = Part(self.plan.server_part(self._lifeline[0], lock))
        finally:
            os.close(lock)

    def _wait_ready(self, name: str) -> None:
        part, ready = self._parts[name], probe(self.plan, name)

        def look() -> bool:
            code = part.poll()
            assert code is None, f"{name}: {describe_exit(code or 0)}\n{part.log_text()}"
            return ready()

        try:
            eventually(look, START_SECONDS, f"{name} ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{part.log_text()}") from None

    def pid(self, name: str) -> int:
        """The process id of a part."""
        return self._parts[name].pid

    def alive(self, name: str) -> bool:
        """Whether the part runs."""
        return name in self._parts and self._parts[name].poll() is None

    def kill(self, name: str, sig: int = signal.SIGKILL, *, wait: bool | None = None) -> int | None:
        """Send a signal; SIGKILL, SIGTERM and SIGINT wait for the end and return the exit code."""
        part = self._parts[name]
        part.send(sig)
        ends = sig in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}
        if not (ends if wait is None else wait):
            return None
        assert part.wait(STOP_SECONDS), f"{name} survived signal {sig}\n{part.log_text()}"
        return part.poll()

    def stop(self, name: str) -> int | None:
        """End a part gracefully; returns its exit code."""
        return self.kill(name, signal.SIGTERM)

    def logs(self, name: str) -> str:
        """Everything that a part has logged, over all its starts."""
        path = self.plan.log_dir / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End every part by its process id: all at once, but the server after the others."""
        self.client.close()
        others = [part for name, part in self._parts.items() if name != SERVER]
        for part in others:
            part.send(signal.SIGCONT)
            part.send(signal.SIGTERM)
        for part in others:
            if not part.wait(10.0):
                part.kill_group()
        if SERVER in self._parts:
            self._parts[SERVER].kill_group()
        self.plan.server.socket.unlink(missing_ok=True)  # SIGKILL leaves it
        self.plan.server.tidy()
        for reservation in self._ports:
            reservation.close()
        for end in self._lifeline:
            with contextlib.suppress(OSError):
                os.close(end)

    def _print_logs(self) -> None:
        for name in self._parts:
            print(f"----- {name}\n{self.logs(name)[-6000:]}")

    # ------------------------------------------------------------------------------------------ API
    @property
    def api_base(self) -> str:
        """The API's root, prefix included."""
        return f"{self.plan.address}/api/v1"

    @property
    def operator(self) -> dict[str, str]:
        """The header of an operator."""
        return {"X-Operator-Token": TOKEN}

    def submit(self, service: str, user: str, **params: Any) -> str:
        """Submit a task by the API; its id. Parameters go as JSON, so they keep their types."""
        answer = self.client.post(
            f"/api/v1/services/{service}/users/{user}/tasks", json={"parameters": params}
        )
        assert answer.status_code == 202, f"{answer.status_code} {answer.text}"
        task_id = str(answer.json()["task_id"])
        self._owners[task_id] = (service, user)
        return task_id

    def task(self, task_id: str) -> dict[str, Any] | None:
        """The whole record of a task, by whomever it was submitted; None if it is gone."""
        owner = self._owners.get(task_id) or self._find_owner(task_id)
        return self.user_task(*owner, task_id) if owner else None

    def _find_owner(self, task_id: str) -> tuple[str, str] | None:
        query: dict[str, Any] = {"limit": 200}
        while True:
            answer = self.client.get("/api/v1/admin/tasks", params=query, headers=self.operator)
            assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
            page = answer.json()
            for item in page["tasks"]:
                self._owners[item["task_id"]] = (item["service"], item["user_id"])
            if task_id in self._owners or not page["next_cursor"]:
                return self._owners.get(task_id)
            query["cursor"] = page["next_cursor"]

    def user_task(self, service: str, user: str, task_id: str) -> dict[str, Any] | None:
        """The whole record as its owner reads it; None if it is gone."""
        answer = self.client.get(
            f"/api/v1/services/{service}/tasks/{task_id}", params={"user_id": user}
        )
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        task: dict[str, Any] = answer.json()["task"]
        return task

    def wait(self, task_id: str, *states: str, timeout: float = 60.0) -> dict[str, Any]:
        """Wait until the task is in one of these states (any terminal one by default)."""
        wanted = states or TERMINAL
        last: dict[str, Any] | None = None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                last = self.task(task_id)
                if last is not None and last["status"] in wanted:
                    return last
            time.sleep(0.05)
        raise AssertionError(f"task {task_id} not {wanted} within {timeout:g} s; last: {last}")
