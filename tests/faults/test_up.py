"""`dms-frontend up` and its faults: Ctrl-C, kill -9 of any part and of itself, damage."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.cli import clean_environment, dms
from tests.support.stack import eventually
from tests.support.up import Up, lives

pytestmark = pytest.mark.timeout(400)

# With 64 KiB a second it runs long enough for anything to happen in the middle, and ends in time.
_SIZE, _SPEED = 384 * 1024, 64 * 1024


# Where attempts are counted, a lease must not run out because the machine is busy.
_LONG_LEASE = {"DMS_LEASE_SECONDS": "60", "DMS_HEARTBEAT_SECONDS": "15"}


def source(up: Up) -> Path:
    """A tree whose move takes about six seconds at `_SPEED`."""
    folder = up.root / "from"
    folder.mkdir(exist_ok=True)
    for number in range(20):
        (folder / f"파일 {number}").write_bytes(os.urandom(_SIZE // 20))
    return folder


def same(left: Path, right: Path) -> bool:
    """Whether two flat folders hold the same."""
    return {p.name: p.read_bytes() for p in left.iterdir()} == {
        p.name: p.read_bytes() for p in right.iterdir()
    }


def submit_slow(up: Up, to: str = "to") -> tuple[str, Path, Path]:
    """A move that is under way when this returns: its id, its source and its destination."""
    src, dst = source(up), up.root / to
    task_id = up.submit(src=str(src), dst=str(dst), bandwidth=_SPEED)
    up.wait(task_id, "RUNNING")
    eventually(lambda: up.task(task_id).get("progress"), what="progress")
    return task_id, src, dst


def check_whole(up: Up, task_id: str, src: Path, dst: Path) -> None:
    """The move ended well, however it went."""
    task = up.wait(task_id, "COMPLETED", "FAILED")
    assert task["status"] == "COMPLETED", task["result"]
    assert same(src, dst)


def test_the_printed_command_works_and_ctrl_c_loses_nothing(tmp_path: Path) -> None:
    with Up(tmp_path, env=_LONG_LEASE) as up:
        up.ready()
        curl = re.search(r"^  (curl .*)$", up.text(), re.MULTILINE)
        assert curl
        made = subprocess.run(
            ["bash", "-c", curl[1]], capture_output=True, text=True, check=True, timeout=100
        )
        assert '"task_id"' in made.stdout
        copy = up.data_dir / "demo/to/more/안녕하세요.txt"
        eventually(copy.exists, what="the demo was moved")

        second = dms("up", "--data-dir", str(up.data_dir), "--root", str(up.root))
        assert second.returncode == 1
        assert f"process {up.process.pid}, since " in second.stderr

        task_id, src, dst = submit_slow(up)
        up.interrupt()
        assert up.ends() == 0
        assert up.text().rstrip().endswith("stopped")
        assert "Traceback" not in up.text()
        server_log = (up.data_dir / "logs/server.log").read_text()
        assert "bye bye" in server_log  # Valkey's own last words of a clean stop
    with Up(tmp_path, env=_LONG_LEASE) as again:
        again.ready()
        check_whole(again, task_id, src, dst)
        assert again.task(task_id)["attempts"] == 1, "an attempt that was given back is not counted"
        again.process.send_signal(signal.SIGTERM)
        assert again.ends() == 0


def test_a_killed_part_is_started_again_and_the_move_completes(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        up.ready()
        for part in ("worker", "scheduler", "frontend", "server"):
            task_id, src, dst = submit_slow(up, part)
            os.kill(up.pid(part), signal.SIGKILL)
            up.says(f"{part} runs again: process ")
            check_whole(up, task_id, src, dst)
            assert f"{part} (process " in up.text()
        assert up.text().count("killed by SIGKILL: starting it again in 0.5 s") == 4
        assert all(up.restarts(part) == 1 for part in ("worker", "scheduler", "frontend", "server"))
        up.interrupt()
        assert up.ends() == 0


def test_when_up_itself_is_killed_all_ends_in_order_and_the_next_goes_on(tmp_path: Path) -> None:
    with Up(tmp_path, env=_LONG_LEASE) as up:
        task_id, src, dst = submit_slow(up.ready())
        server = psutil.Process(up.pid("server"))
        worker = psutil.Process(up.pid("worker"))
        up.family()
        os.kill(up.process.pid, signal.SIGKILL)
        # The next one starts at once, and waits for the old server's last write.
        with Up(tmp_path, env=_LONG_LEASE) as following:
            following.ready()
            assert not lives(server)
            assert not lives(worker)
            worker_log = (up.data_dir / "logs/worker.log").read_text()
            assert "worker.stop" in worker_log
            up.ends()
            check_whole(following, task_id, src, dst)
            assert following.task(task_id)["attempts"] == 1, "the killed one's worker gave it back"
            following.interrupt()
            assert following.ends() == 0


def test_a_second_ctrl_c_hurries(tmp_path: Path) -> None:
    with Up(tmp_path, env={"DMS_DRAIN_SECONDS": "100000"}) as up:
        _, src, _ = submit_slow(up.ready())
        # So slow that the drain would wait for it practically for ever.
        for file in src.iterdir():
            os.truncate(file, 1024 * 1024)
        slow = up.submit(src=str(src), dst=str(up.root / "slow"), bandwidth=1024)
        up.wait(slow, "RUNNING")
        up.interrupt()
        up.says("a second Ctrl-C hurries")
        up.interrupt()
        assert up.ends() == 0


def test_ctrl_c_on_make_stops_two_workers_in_order(tmp_path: Path) -> None:
    """`make` gets the signal as well, and must neither cut the stop short nor leave anything."""
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"up:\n\t@exec {sys.executable} -P -m cli.entry up $(ARGS)\n")
    data = f"ARGS=--data-dir {tmp_path / 'own'} --port 0 --root {tmp_path / 'data'}"
    more = "--workers 2 --verbose"
    with Up(tmp_path, command=["make", "-f", str(makefile), "up", f"{data} {more}"]) as up:
        up.ready()
        assert up.pid("worker") != up.pid("worker-2")
        up.says("[worker-2] ")
        up.interrupt()
        up.ends()
        assert "stopped" in up.text()
        assert "bye bye" in (up.data_dir / "logs/server.log").read_text()


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = dms("up", "--data-dir", str(tmp_path / "own"), "--port", port)
    assert done.returncode == 1
    assert f"port {port} " in done.stderr
    assert "--port" in done.stderr


def test_a_root_that_holds_too_much_is_a_usage_error(tmp_path: Path) -> None:
    done = dms("up", "--data-dir", str(tmp_path / "own"), "--root", "/")
    assert done.returncode == 2
    assert "--root" in done.stderr


def test_a_bad_setting_ends_it_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    env = clean_environment(DMS_LEASE_SECONDS="soon")
    done = dms(
        "up",
        "--data-dir",
        str(tmp_path / "own"),
        "--root",
        str(tmp_path / "data"),
        "--port",
        "0",
        env=env,
    )
    assert done.returncode == 1
    assert "DMS_LEASE_SECONDS" in done.stderr
    assert not (tmp_path / "own/appendonlydir").exists()


def test_a_part_that_cannot_start_ends_it_with_the_reason(tmp_path: Path) -> None:
    with Up(tmp_path, env={"DMS_TASK_MODULES": "no_such_module_of_tasks"}) as up:
        assert up.process.wait(100) == 1
        assert "no_such_module_of_tasks" in up.text()
        assert "scheduler ended at its start" in up.text()
        assert "Traceback" not in up.text()
        up.ends()


def test_a_damaged_file_is_told_with_the_repair_which_works(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        task_id, *_ = submit_slow(up.ready())
        up.interrupt()
        assert up.ends() == 0
    newest = max((up.data_dir / "appendonlydir").glob("*.incr.aof"))
    content = newest.read_bytes()
    # After the task was stored, in one of its later writes.
    place = content.rindex(b"\r\n*")
    newest.write_bytes(content[:place] + b"\r\n@" + content[place + 3 :])
    with Up(tmp_path) as up:
        assert up.process.wait(100) == 1
        assert "is damaged" in up.text()
        command = re.search(r"dms-frontend (up --repair --data-dir \S+)", up.text())
        assert command
        up.ends()
    repaired = dms(*command[1].split())
    assert repaired.returncode == 0, repaired.stderr
    assert "truncated" in repaired.stdout
    with Up(tmp_path) as up:
        up.ready()
        up.wait(task_id, "COMPLETED")
        up.interrupt()
        assert up.ends() == 0
