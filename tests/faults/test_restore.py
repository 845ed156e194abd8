"""Yesterday's backup put back: what has run since must not run again unseen."""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cli.embedded import EmbeddedServer
from task_state import keys
from tests.support.cli import clean_environment, dms
from tests.support.stack import SERVER, Stack, eventually
from tests.support.up import Up

pytestmark = pytest.mark.timeout(400)

_DAY_US = 86_400_000_000
_ONE_SLOT = {
    "DMS_WORKER_CONCURRENCY": "1",
    "DMS_TASK_MODULES": "tests.support.handlers",
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
}


def back_up(data_dir: Path, to: Path) -> None:
    """What an operator copies."""
    shutil.copytree(data_dir / "appendonlydir", to / "appendonlydir")


def put_back(backup: Path, data_dir: Path, *, age_us: int) -> None:
    """Restore the files; the server that wrote them was last there so long ago."""
    shutil.rmtree(data_dir / "appendonlydir")
    shutil.copytree(backup / "appendonlydir", data_dir / "appendonlydir")
    with _served(data_dir) as redis:
        redis.delete(keys.SILENCES)
        redis.set(keys.ALIVE, time.time_ns() // 1000 - age_us)


@contextlib.contextmanager
def _served(data_dir: Path) -> Generator["Redis"]:
    """The server of that folder alone, for the length of a block."""
    server = EmbeddedServer.of(data_dir)
    with subprocess.Popen(server.command(), cwd=data_dir, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(server.answers, what="the server answers")
            with Redis.from_url(server.url) as redis:
                yield redis
        finally:
            process.terminate()
            process.wait(60)


class Operator:
    """The command line with an operator's token."""

    def __init__(self, api: str, token: str) -> None:
        self._env = clean_environment(DMS_API_BASE=api, DMS_OPERATOR_TOKEN=token)

    def say(self, *arguments: str) -> str:
        done = dms(*arguments, env=self._env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def states(self) -> dict[str, dict[str, Any]]:
        """The services by name."""
        found = json.loads(self.say("services", "list", "-o", "json"))
        return {state["service"]: state for state in found["services"]}

    def everything_is_paused(self) -> bool:
        state = self.states().get("*", {"mode": "", "reason": ""})
        return state["mode"] == "PAUSED" and state["reason"].startswith("restored, or lost data")


def doctor(*options: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """It passes; its checks by name."""
    done = dms("doctor", "-o", "json", *options, env=env)
    assert done.returncode == 0, done.stdout
    return {check["check"]: check for check in json.loads(done.stdout)["checks"]}


def test_up_starts_nothing_of_a_backup_until_it_is_resumed(tmp_path: Path) -> None:
    backup = tmp_path / "backup"

    def operator(up: Up) -> Operator:
        return Operator(up.api, (up.data_dir / "operator-token").read_text().strip())

    with Up(tmp_path, env=_ONE_SLOT) as up:
        up.ready()
        source, mirror = up.root / "from", up.root / "to"
        source.mkdir()
        (source / "file").write_text("yesterday's")
        operator(up).say("services", "pause", "--service", "sync")
        old = up.submit(src=str(source), dst=str(mirror), delete=True)
        up.interrupt()
        assert up.ends() == 0
        back_up(up.data_dir, backup)
    with Up(tmp_path, env=_ONE_SLOT) as up:
        up.ready()
        assert "everything is paused" not in up.text(), "an ordinary start"
        operator(up).say("services", "resume", "--service", "sync")
        up.wait(old, "COMPLETED")
        new = up.submit(src=str(source), dst=str(up.root / "other"))
        up.wait(new, "COMPLETED")
        up.interrupt()
        assert up.ends() == 0
    (mirror / "today's").write_text("must not be deleted unseen")
    put_back(backup, up.data_dir, age_us=_DAY_US)
    with _served(up.data_dir) as redis:
        redis.hdel(keys.MODES, "sync")  # the pause that kept it waiting is no part of the story

    with Up(tmp_path, env=_ONE_SLOT) as up:
        up.ready()
        up.says("everything is paused: restored, or lost data: it lacks 14")
        command = operator(up)
        assert command.everything_is_paused()
        later = up.submit(src=str(source), dst=str(up.root / "later"))
        assert int(later) > int(new), "no id is issued a second time"
        eventually(lambda: command.states()["sync"]["waiting"] == 2, what="both wait")
        checks = doctor("--data-dir", str(up.data_dir), "--repair")
        assert checks["paused"]["status"] == "warning"
        assert checks["workers"]["status"] == "ok"
        assert up.task(old)["status"] in {"PENDING", "DISPATCHING"}
        assert (mirror / "today's").exists()
        command.say("tasks", "cancel", "--service", "sync", "--user", "alice", "--task-id", old)
        command.say("services", "resume", "--all")
        up.wait(later, "COMPLETED")
        assert up.task(old)["status"] == "CANCELLED"
        up.interrupt()
        assert up.ends() == 0
    with Up(tmp_path, env=_ONE_SLOT) as up:
        up.ready()
        assert "everything is paused" not in up.text(), "it was told once"
        assert (mirror / "today's").exists()


@pytest.mark.parametrize("memory", ["own", "witness"])
def test_processes_that_saw_more_start_nothing(tmp_path: Path, memory: str) -> None:
    """The server alone is replaced below a scheduler and a worker that live on, and know; or all
    are started anew, and a witness file knows."""
    backup, witness = tmp_path / "backup", tmp_path / "kept" / "witness"
    witness.parent.mkdir()
    file = str(witness) if memory == "witness" else ""
    with Stack(tmp_path, env={**_ONE_SLOT, "DMS_WITNESS_FILE": file}) as stack:
        command = Operator(stack.api_base, stack.environment["DMS_OPERATOR_TOKEN"])
        go = tmp_path / "go"
        folders = [tmp_path / name for name in ("first", "second")]
        ids: list[str] = []
        for each in folders:
            each.mkdir()
            ids.append(stack.submit("t.until-file", "alice", file=str(go), folder=str(each)))
        stack.wait(ids[0], "RUNNING")
        eventually(lambda: command.states()["t.until-file"]["waiting"] == 1, what="one waits")
        back_up(stack.plan.data_dir, backup)
        go.touch()
        for task_id in ids:
            stack.wait(task_id, "COMPLETED")
        for each in folders:
            shutil.rmtree(each)
        others = [] if memory == "own" else ["worker", "scheduler"]
        for name in [*others, SERVER]:
            stack.stop(name)
        put_back(backup, stack.plan.data_dir, age_us=_DAY_US)
        for name in [SERVER, *others]:
            stack.start(name)
        eventually(command.everything_is_paused, what="everything is paused")
        # What ran at the time of the backup is taken back, and waits like the other.
        eventually(lambda: command.states()["t.until-file"]["waiting"] == 2, what="both wait")
        checks = doctor(env=stack.environment)
        assert checks["paused"]["status"] == "warning"
        assert checks["workers"]["status"] == "ok"
        statuses = {(stack.task(task_id) or {})["status"] for task_id in ids}
        assert statuses <= {"PENDING", "DISPATCHING"}
        assert not any(each.exists() for each in folders)
        for each in folders:
            each.mkdir()
        command.say("services", "resume", "--all")
        for task_id in ids:
            stack.wait(task_id, "COMPLETED")
        assert not command.everything_is_paused()
