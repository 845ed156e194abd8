"""The embedded server for real: what it keeps, what it says when its file is hurt, how it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from cli.embedded import EmbeddedServer, server_binary
from cli.errors import UpError
from cli.up.locks import hold_server
from cli.up.part import Part, PartSpec
from cli.up.plan import SERVER, Plan, private_folder
from tests.support.stack import eventually


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A data directory and its server, no other parts."""
    data_dir = private_folder(tmp_path / "dms data")
    server = EmbeddedServer.of(data_dir)
    return Plan(data_dir, data_dir, [], 0, 0, 0, server, dict(os.environ))


@contextmanager
def started(plan: Plan, *, ready: bool = True) -> Generator[Part]:
    """The server, ended by SIGKILL: what it has acknowledged must be on disk."""
    read, write = os.pipe()
    lock = hold_server(plan.data_dir, 60, time.sleep)
    part = Part(plan.server_part(read, lock))
    os.close(lock)
    try:
        if ready:
            eventually(plan.server.answers, what="the server answers")
        yield part
    finally:
        part.kill_group()
        os.close(read)
        os.close(write)


def client(plan: Plan) -> redis.Redis:
    """A connection to it."""
    return redis.Redis.from_url(plan.server.url)


def test_what_was_acknowledged_survives_sigkill(plan: Plan) -> None:
    with started(plan), client(plan) as connection:
        connection.set("이름", "값")
        found = connection.config_get("*")
        assert found["appendfsync"] == "always"
        assert found["maxmemory-policy"] == "noeviction"
        assert found["port"] == "0"
    with started(plan), client(plan) as connection:
        assert connection.get("이름") == "값".encode()
    assert plan.server.socket.parent == plan.data_dir


def _write(plan: Plan, count: int) -> None:
    with started(plan), client(plan) as connection:
        for number in range(count):
            connection.set(f"key-{number}", "x" * 50)


def _newest_file(plan: Plan) -> Path:
    return next(plan.server.manifest.parent.glob("*.incr.aof"))


def test_a_write_cut_short_is_dropped_and_told(plan: Plan) -> None:
    _write(plan, 10)
    file = _newest_file(plan)
    os.truncate(file, file.stat().st_size - 7)
    with started(plan) as part, client(plan) as connection:
        assert connection.dbsize() == 9
        assert "everything before it is there" in plan.server.warning(part.log_text())
    with started(plan) as part:
        assert plan.server.warning(part.log_text()) == ""


def test_damage_in_the_middle_is_told_with_the_repair_which_works(plan: Plan) -> None:
    _write(plan, 10)
    file = _newest_file(plan)
    hurt = file.read_bytes().replace(b"$5\r\nkey-5", b"@@\r\nkey-5", 1)
    file.write_bytes(hurt)
    with started(plan, ready=False) as part:
        assert part.wait(60)
        assert plan.server.is_damaged(part.log_text())
        error = plan.server.failure(part.log_text(), "the repair command")
    assert "damaged" in error.cause
    assert "the repair command" in error.remedy
    copy, report = plan.server.repair()
    assert "Successfully truncated" in report
    assert (copy / file.name).read_bytes() == hurt
    with started(plan), client(plan) as connection:
        assert sorted(connection.keys()) == [b"key-%d" % number for number in range(5)]


def test_nothing_to_repair(plan: Plan) -> None:
    with pytest.raises(UpError, match="no data file"):
        plan.server.repair()


def test_the_binary_is_the_wheels() -> None:
    done = subprocess.run(
        [server_binary(), "--version"], capture_output=True, text=True, check=True
    )
    assert "Valkey" in done.stdout


_HOLDER = """
import os, signal, sys, time
from cli.up.part import Part, PartSpec
from pathlib import Path
folder = Path(sys.argv[1])
read, write = os.pipe()
def spec(name, command, end, is_server=False):
    return PartSpec(name, command, dict(os.environ), folder / f"{name}.log", folder, end, is_server)
# The stand-in of a server notes when it is told to stop; the worker takes a while to go.
server = Part(spec("server", [sys.executable, "-c", sys.argv[2]], read, True))
worker = Part(spec("worker", [sys.executable, "-c", sys.argv[3]], write))
print(server.pid, worker.pid, flush=True)
time.sleep(600)
"""
_SERVER = """
import signal, sys, time
def stop(*_):
    print("server told", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True: time.sleep(600)
"""
_WORKER = """
import os, signal, sys, time
def stop(*_):
    print("worker told", flush=True)
    while not os.path.exists("go"): time.sleep(0.02)
    print("worker gone", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True: time.sleep(600)
"""


def test_when_the_supervisor_is_killed_the_server_outlives_the_worker(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path), _SERVER, _WORKER],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        server, worker = (psutil.Process(int(pid)) for pid in holder.stdout.readline().split())
        server_log, worker_log = tmp_path / "server.log", tmp_path / "worker.log"
        for log in (server_log, worker_log):
            eventually(lambda log=log: "ready" in log.read_text(), what=f"{log} ready")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    eventually(lambda: "worker told" in worker_log.read_text(), what="the worker is told")
    assert server.is_running()
    assert "server told" not in server_log.read_text()
    (tmp_path / "go").touch()
    for process in (worker, server):
        eventually(lambda p=process: not _lives(p), what=f"{process} has ended")
    assert "worker gone" in worker_log.read_text()
    assert "server told" in server_log.read_text()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_keeper_goes_with_its_server(plan: Plan) -> None:
    def keepers() -> list[psutil.Process]:
        processes = psutil.process_iter(["cmdline"])
        return [p for p in processes if str(plan.server.socket) in (p.info["cmdline"] or [])]

    with started(plan):
        assert keepers(), f"a keeper watches {SERVER}"
    eventually(lambda: not keepers(), what="no keeper is left")


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:

    read, write = os.pipe()
    part = Part(
        PartSpec(
            "x", [str(tmp_path / "missing")], dict(os.environ), tmp_path / "x.log", tmp_path, write
        )
    )
    assert part.wait(60)
    assert part.poll() == 127
    assert part.last_words().endswith("No such file or directory")
    os.close(read)
    os.close(write)
