"""`dms-frontend up` under test: the real command in a process group of its own."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil

from tests.support.cli import clean_environment, entry
from tests.support.stack import QUICK, eventually

_STARTED = re.compile(r"^  processes  (.*)$", re.MULTILINE)
_API = re.compile(r"^  API        (\S+)", re.MULTILINE)
_AGAIN = re.compile(r"^(\S+) runs again: process (\d+)$", re.MULTILINE)
_SECONDS = 110.0


class Up:
    """`with Up(tmp_path) as up:` runs it on the root `tmp_path/data`; nothing survives the block.

    `command` replaces the command line; it must name the data directory `tmp_path/own` and port 0.
    """

    def __init__(
        self,
        tmp_path: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.root = tmp_path / "data"
        self.root.mkdir(exist_ok=True)
        self.data_dir = tmp_path / "own"
        self.out = tmp_path / "up.out"
        own = ["--data-dir", str(self.data_dir), "--port", "0", *arguments]
        self._command = command or entry("up", *own)
        self._env = clean_environment(**{**QUICK, **(env or {})})
        self._seen: set[psutil.Process] = set()
        # Kept: to make a client takes longer than to ask.
        self._client = httpx2.Client(timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.root,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        self.family()
        if error is not None:
            print(self.text())
            for log in sorted((self.data_dir / "logs").glob("*.log")):
                print(f"----- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
        for process in (
            [*self._seen, psutil.Process(self.process.pid)] if self.runs() else self._seen
        ):
            if lives(process):
                process.kill()
        self.process.wait()

    def text(self) -> str:
        """What it has said so far."""
        return self.out.read_text(errors="replace")

    def runs(self) -> bool:
        """Whether the supervisor itself lives."""
        return self.process.poll() is None

    def ready(self) -> Self:
        """Wait until it says that it is up."""

        def look() -> bool:
            assert self.runs(), f"up ended:\n{self.text()}"
            return "Ctrl-C stops it" in self.text()

        eventually(look, _SECONDS, "up is up")
        self.family()
        return self

    def says(self, words: str) -> None:
        """Wait until it has said so."""
        eventually(lambda: words in self.text(), _SECONDS, f"up says {words!r}:\n{self.text()}")

    def pid(self, name: str) -> int:
        """The process id of a part, the newest one."""
        started = _STARTED.search(self.text())
        assert started, self.text()
        pids = dict(pair.split() for pair in started[1].split(", "))
        pids.update(_AGAIN.findall(self.text()))
        return int(pids[name])

    def restarts(self, name: str) -> int:
        """How often a part was started again."""
        return sum(found == name for found, _ in _AGAIN.findall(self.text()))

    def family(self) -> set[psutil.Process]:
        """All processes that it ever had, as far as they were seen."""
        if self.runs():
            self._seen.update(psutil.Process(self.process.pid).children(recursive=True))
        for process in psutil.process_iter():
            try:
                if process.pid != self.process.pid and str(self.data_dir) in process.cmdline():
                    self._seen.add(process)  # the keeper is nobody's child
            except psutil.Error:
                continue
        return self._seen

    def ends(self) -> int:
        """Wait for its end; the exit code. None of its processes may be left."""
        code = self.process.wait(_SECONDS)
        eventually(
            lambda: not any(lives(process) for process in self._seen),
            _SECONDS,
            "no process is left",
        )
        return code

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the whole group."""
        self.family()
        os.killpg(self.process.pid, signal.SIGINT)

    @property
    def api(self) -> str:
        """The API's root."""
        found = _API.search(self.text())
        assert found, self.text()
        return found[1]

    def submit(self, **params: Any) -> str:
        """Submit a sync for alice; its id."""
        url = f"{self.api}/services/sync/users/alice/tasks"
        answer = self._client.post(url, json={"parameters": params})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        """A task of alice; an empty one while nothing answers."""
        url = f"{self.api}/services/sync/tasks/{task_id}?user_id=alice"
        try:
            answer = self._client.get(url)
        except httpx2.TransportError:
            return {"status": None}
        if answer.status_code in {500, 502, 503}:
            assert answer.status_code == 503, answer.text
            return {"status": None}
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["task"]
        return found

    def wait(self, task_id: str, *states: str) -> dict[str, Any]:
        """Wait until the task is in one of these states."""

        def look() -> dict[str, Any] | None:
            assert self.runs(), f"up ended:\n{self.text()}"
            task = self.task(task_id)
            return task if task["status"] in states else None

        found = eventually(look, _SECONDS, f"{task_id} is {states}")
        assert found is not None
        return found


def lives(process: psutil.Process) -> bool:
    """Whether it still does something: a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
