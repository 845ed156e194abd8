"""The sandbox: what a process in it can reach, tried by real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from dms_scheduler.movers.rclone import confine

LAUNCHER = str(Path(confine.__file__).resolve())
needs_landlock = pytest.mark.skipif(not confine.version(), reason="this kernel has no Landlock")
WRITE = confine.every_right(confine.version()) & ~confine.EXECUTE


def run(rights: Mapping[Path, int], program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of Python in the sandbox, with the system's own files to read and run."""
    opened = {os.open(path, os.O_PATH): right for path, right in rights.items()}
    for path in ("/usr", "/lib", "/lib64", "/etc", "/proc", sys.prefix, sys.base_prefix):
        if os.path.exists(path):
            opened[os.open(path, os.O_PATH)] = confine.READ | confine.EXECUTE
    pairs = ",".join(f"{fd}={right}" for fd, right in opened.items())
    level = str(confine.version())
    command = [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), level, pairs]
    try:
        return subprocess.run(
            [*command, sys.executable, "-I", "-S", "-c", program],
            pass_fds=tuple(opened),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for fd in opened:
            os.close(fd)


@needs_landlock
def test_only_what_is_allowed_can_be_read_and_written(tmp_path: Path) -> None:
    inside, outside, read_only = tmp_path / "in", tmp_path / "out", tmp_path / "ro"
    for folder in (inside, outside, read_only):
        folder.mkdir()
        (folder / "canary").write_text("canary")
    (inside / "link").symlink_to(outside)
    program = f"""
import os
def tried(what, path, *rest):
    try:
        what(path, *rest)
    except OSError as error:
        return error.errno
    return 0
top = {str(tmp_path)!r}
print([
    tried(open, top + "/in/canary", "r+"), tried(os.mkdir, top + "/in/new"),
    tried(os.rename, top + "/in/new", top + "/in/newer"),
    tried(open, top + "/ro/canary"), tried(open, top + "/ro/canary", "a"),
    tried(open, top + "/out/canary"), tried(os.listdir, top + "/out"),
    tried(open, top + "/in/link/canary"), tried(os.unlink, top + "/in/link/canary"),
    tried(os.mkdir, top + "/in/link/new"), tried(os.link, top + "/in/canary", top + "/out/l"),
    tried(os.rename, top + "/in/canary", top + "/out/canary"),
])
"""
    done = run({inside: WRITE, read_only: confine.READ}, program)
    assert done.stdout.strip() == str([0, 0, 0, 0, 13, 13, 13, 13, 13, 13, 13, 13]), done.stderr
    assert os.listdir(outside) == ["canary"]
    assert (outside / "canary").read_text() == "canary"


@needs_landlock
def test_no_other_program_can_be_started(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\ntouch ran\n")
    tool.chmod(0o755)
    done = run({tmp_path: WRITE}, f"import os\nos.execv({str(tool)!r}, ['tool'])")
    assert "Permission" in done.stderr
    assert not (tmp_path / "ran").exists()


@needs_landlock
def test_a_directory_that_is_moved_away_takes_its_rights_with_it(tmp_path: Path) -> None:
    """Rights are of what was opened, not of a name: whatever has the name now has none."""
    inside, other = tmp_path / "in", tmp_path / "other"
    inside.mkdir()
    other.mkdir()
    fd = os.open(inside, os.O_PATH)
    inside.rename(tmp_path / "moved")
    other.rename(tmp_path / "in")
    os.close(fd)
    program = f"open({str(tmp_path / 'in' / 'x')!r}, 'w')"
    assert "PermissionError" in run({tmp_path / "moved": WRITE}, program).stderr
    assert not os.listdir(tmp_path / "in")


def test_it_gives_up_ways_to_more_rights() -> None:
    done = run({}, "print([l for l in open('/proc/self/status') if 'NoNewPrivs' in l])")
    assert "NoNewPrivs:\\t1" in done.stdout


def test_a_command_that_is_not_there_says_so() -> None:
    command = [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), "0", "", "/no/such/program"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 126
    assert "could not be started" in done.stderr


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = f"""
import os, subprocess, sys
command = [sys.executable, "-I", "-S", {LAUNCHER!r}, str(os.getpid()), "0", ""]
child = subprocess.Popen([*command, sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 60
    while _alive(pid):
        assert time.monotonic() < end, "it outlives its parent"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def test_a_stranger_cannot_be_its_parent() -> None:
    command = [sys.executable, "-I", "-S", LAUNCHER, "1", "0", "", "/bin/echo", "ran"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ran" not in done.stdout
