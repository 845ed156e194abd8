"""The console script as people meet it: help, usage errors, what is missing, completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.up.plan import Reservation
from tests.support.cli import clean_environment
from tests.support.cli import dms as run


def dms(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings alone."""
    return run(*arguments, env=clean_environment(**environment))


@pytest.mark.parametrize(
    "group",
    [
        *("", "tasks", "up", "serve", "scheduler", "worker", "show-config", "services"),
        *("tasks list", "tasks search", "tasks counts", "tasks wait", "services drain"),
    ],
)
def test_help(group: str) -> None:
    done = dms(*group.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: dms-frontend")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tasks", "status"], "Missing option '--service'"),
        (["tasks", "submit", "--service", "s", "--user", "u", "--param", "x"], "name=value"),
        (["tasks", "list", "--user", "u"], "add --service"),
        (["tasks", "cancel", "--task-id", "7", "--user", "u"], "belong together"),
        (["tasks", "list", "--api-base", "nonsense"], "not the address of an API"),
        (["tasks", "list", "--since", "yesterday"], "neither an age"),
        (["tasks", "list", "-o", "xml"], "'wide'"),
        (["tasks", "search", "--updated-before", "9" * 30 + "d"], "before the year 1"),
        (["tasks", "search", "--sort", "name"], "updated_at"),
        (["tasks", "search", "--user", "a/b", "--service", "s"], "is not a name"),
        (["services", "pause"], "--service NAME or --all"),
        (["services", "drain", "--service", "s", "--all"], "--service NAME or --all"),
        (["services", "show"], "Missing option '--service'"),
        (["serve", "--port", "99999"], "65535"),
        (["nonsense"], "No such command"),
    ],
)
def test_usage_errors_exit_with_2_and_say_what(arguments: list[str], words: str) -> None:
    done = dms(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_there_exits_with_5() -> None:
    reserved = Reservation(0)
    base = f"http://127.0.0.1:{reserved.port}/api/v1"
    done = dms("tasks", "users", "--service", "sync", DMS_API_BASE=base)
    reserved.close()
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 2
    assert "dms-frontend up" in done.stderr


def test_a_bad_setting_is_named() -> None:
    done = dms("show-config", DMS_EVENT_WORKER_COUNT="many")
    assert done.returncode == 1
    assert "DMS_EVENT_WORKER_COUNT" in done.stderr
    assert "Traceback" not in done.stderr


def test_show_config_masks_secrets() -> None:
    secrets = {
        "DMS_OPERATOR_TOKEN": "canary-token",
        "DMS_REDIS_WRITE_URL": "redis://u:canary-password@127.0.0.1:1/0",
    }
    for output in ("table", "json"):
        done = dms("show-config", "-o", output, **secrets)
        assert done.returncode == 0
        assert "DMS_API_PREFIX" in done.stdout
        assert "canary" not in done.stdout + done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """A Python that sees our packages and nothing installed: what `task_state` alone would have."""
    checkout = Path(__file__).parents[2]
    script = (
        f"import sys; sys.path.insert(0, {str(checkout)!r}); import cli.entry; cli.entry.main()"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'dms-frontend[server]'" in done.stderr


_INTERRUPTED_IMPORT = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
import cli.entry
cli.entry.main()
"""


def test_an_interrupt_at_the_very_start_is_no_traceback() -> None:
    command = [sys.executable, "-c", _INTERRUPTED_IMPORT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_full_disk_is_not_called_a_defect() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cli.entry", "show-config"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=clean_environment(),
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "defect" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_completes(shell: str) -> None:
    source = dms(_DMS_FRONTEND_COMPLETE=f"source_{shell}")
    assert source.returncode == 0
    assert "_DMS_FRONTEND_COMPLETE" in source.stdout


def test_completion_offers_the_commands() -> None:
    offered = dms(
        _DMS_FRONTEND_COMPLETE="complete_bash", COMP_WORDS="dms-frontend tasks s", COMP_CWORD="2"
    )
    assert sorted(offered.stdout.split()) == ["search", "status", "submit"]


def test_nothing_is_said_when_the_reader_has_gone() -> None:
    """As in `dms tasks report ... | head -1`, where what is left is written at the very end."""
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import cli.entry, cli.main\n"
        "cli.main.run = lambda *_: print('line') or 0\n"
        "cli.entry.main()\n"
    )
    command = [sys.executable, "-P", "-c", code]
    environment = {**clean_environment(), "PYTHONUNBUFFERED": ""}
    with open(writer, "wb") as gone:
        done = subprocess.run(
            command, env=environment, stdout=gone, stderr=subprocess.PIPE, check=False
        )
    assert done.stderr == b""
