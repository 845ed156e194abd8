"""The command line of `dms_frontend.md`, verbatim, and all else it can do, on real processes."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import clean_environment, dms, entry, on_path
from tests.support.stack import TOKEN, Stack, eventually

# --------------------------------------------------------------------- the document's own commands
INTERACT = r"""
dms-frontend tasks list --service sync --user alice --api-base "${api_prefix}"
dms-frontend tasks status --service sync --task-id "${task_id}" --api-base "${api_prefix}" --user alice
dms-frontend tasks users --service sync --api-base "${api_prefix}"
dms-frontend tasks submit --service sync --user alice --api-base "${api_prefix}" --param input=value --param mode=fast
dms-frontend tasks cancel --service sync --task-id "${task_id}" --api-base "${api_prefix}" --user alice
dms-frontend tasks delete --service sync --task-id "${task_id}" --api-base "${api_prefix}" --user alice
"""  # noqa: E501  (verbatim)
TOKEN_LISTING = """
token="$(printenv DMS_OPERATOR_TOKEN)"
dms-frontend tasks list --operator-token "${token}"
"""
SERVE = "dms-frontend serve --host 0.0.0.0 --port 8000"
SHOW_CONFIG = "dms-frontend show-config"
# In a network of its own, so that nobody else's port 8000 is in the way.
SERVE_SCRIPT = f"""
"{sys.executable}" - <<'EOF'
import fcntl, socket, struct
up = struct.pack("16sh14s", b"lo", 0x1 | 0x40, b"")  # IFF_UP | IFF_RUNNING
fcntl.ioctl(socket.socket(), 0x8914, up)  # SIOCSIFFLAGS
EOF
{SERVE} &
server=$!
until curl --silent --fail --output /dev/null http://localhost:8000/readyz; do
  kill -0 $server || exit 9
  sleep 0.1
done
curl --silent --fail http://localhost:8000/api/v1/help > /dev/null || exit 8
kill -TERM $server
wait $server
"""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A stack without a worker: what is submitted waits."""
    with Stack(tmp_path_factory.mktemp("quiet"), without=("worker",)) as stack:
        yield stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A whole stack."""
    with Stack(tmp_path_factory.mktemp("whole")) as stack:
        yield stack


def bash(script: str, tmp_path: Path, *prefix: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a block of the document; the first command that fails ends it."""
    return subprocess.run(
        [*prefix, "bash", "-e", "-c", script],
        env=clean_environment(PATH=on_path(tmp_path / "bin"), **env),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_documents_commands(quiet: Stack, tmp_path: Path) -> None:
    task_id = quiet.submit("sync", "alice", input="value")
    done = bash(INTERACT, tmp_path, api_prefix=quiet.api_base, task_id=task_id)
    assert done.returncode == 0, done.stderr
    table, rest = done.stdout.split("Task  ", 1)
    assert table.startswith("TASK ID")
    assert task_id in table
    assert rest.startswith(f"        {task_id}") or task_id in rest.splitlines()[0]
    assert "\nalice\n" in rest
    assert f"{task_id} CANCELLED" in rest
    assert rest.endswith(f"{task_id} deleted\n")
    assert quiet.user_task("sync", "alice", task_id) is None


def test_the_documents_operator_token(quiet: Stack, tmp_path: Path) -> None:
    quiet.submit("sync", "bob", input="value")
    done = bash(TOKEN_LISTING, tmp_path, DMS_API_BASE=quiet.api_base, DMS_OPERATOR_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert "bob" in done.stdout


def test_show_config(tmp_path: Path) -> None:
    done = bash(SHOW_CONFIG, tmp_path, DMS_TIMEZONE="UTC")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "DMS_REDIS_WRITE_URL=redis://haproxy-redis.dms-redis.svc.cluster.local:6379/0" in lines
    assert "DMS_CLI_DEFAULT_HOST=0.0.0.0" in lines
    assert "DMS_TIMEZONE=UTC" in lines


@pytest.mark.root
def test_serve_on_port_8000(quiet: Stack, tmp_path: Path) -> None:
    """Redis is reached by its unix socket, which works from another network as well."""
    environment = {k: v for k, v in quiet.environment.items() if k.startswith("DMS_")}
    done = bash(SERVE_SCRIPT, tmp_path, "unshare", "--net", **environment)
    # A process that a signal ends after its clean stop says so: 128 + 15.
    assert done.returncode in {0, 128 + signal.SIGTERM}, done.stdout + done.stderr
    assert "frontend.start" in done.stdout


def test_the_console_scripts_are_these() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"dms-frontend": "cli.entry:main", "dms": "cli.entry:main"}


# ------------------------------------------------------------------------------ the rest, for real
class Cli:
    """The commands of `tasks` against a stack, for user alice and service sync."""

    def __init__(self, stack: Stack) -> None:
        self._env = clean_environment(DMS_API_BASE=stack.api_base, NO_COLOR="1")

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return dms("tasks", *arguments, env={**self._env, **env})

    def mine(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command with alice's scope."""
        return self(command, "--service", "sync", "--user", "alice", *arguments)

    def start(
        self, command: str, *arguments: str, stderr: int = subprocess.PIPE, **env: str
    ) -> subprocess.Popen[str]:
        """The same, left running."""
        scope = ["--service", "sync", "--user", "alice"]
        return subprocess.Popen(
            entry("tasks", command, *scope, *arguments),
            env={**self._env, **env},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


@pytest.fixture
def cli(stack: Stack) -> Cli:
    """The command line against the whole stack."""
    return Cli(stack)


@pytest.fixture
def tree(stack: Stack, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Parameters that move a small tree of this test's own."""
    folder = stack.roots[0] / request.node.name
    source = folder / "원본"
    source.mkdir(parents=True)
    for number in range(5):
        (source / f"파일-{number}.txt").write_text(f"{number}\n" * 100)
    return f"src={source}", f"dst={folder / 'copy'}"


def params(*pairs: str) -> list[str]:
    """`--param` for each pair."""
    return [text for pair in pairs for text in ("--param", pair)]


def slow(stack: Stack, name: str) -> list[str]:
    """Parameters of a move that takes far longer than any test."""
    folder = stack.roots[0] / name
    folder.mkdir(exist_ok=True)
    (folder / "big").write_bytes(os.urandom(4 * 1024 * 1024))
    return params(f"src={folder / 'big'}", f"dst={folder / 'moved'}", "bandwidth=1024")


def test_submit_and_wait_moves_a_tree_and_tells_how(cli: Cli, tree: tuple[str, str]) -> None:
    done = cli.mine("submit", *params(*tree), "--wait")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" COMPLETED\n")
    assert "accepted" in done.stderr
    source, copy = (Path(pair.partition("=")[2]) for pair in tree)
    assert sorted(p.name for p in copy.iterdir()) == sorted(p.name for p in source.iterdir())


def test_submit_prints_the_id_alone(cli: Cli, tree: tuple[str, str]) -> None:
    done = cli.mine("submit", *params(*tree))
    task_id = done.stdout.strip()
    assert task_id.isdigit()
    assert f"--task-id {task_id}" in done.stderr
    waited = cli.mine("wait", "--task-id", task_id, "-o", "json")
    assert waited.returncode == 0
    assert json.loads(waited.stdout)["status"] == "COMPLETED"
    assert waited.stderr == ""


def test_parameters_that_do_not_fit_fail_with_the_reason(cli: Cli) -> None:
    done = cli.mine("submit", *params("input=value"), "--wait")
    assert done.returncode == 10
    assert done.stdout.endswith(" FAILED\n")
    assert "src" in done.stderr


def test_strict_refuses_them_at_once(cli: Cli) -> None:
    done = cli.mine("submit", *params("input=value"), "--strict")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "input" in done.stderr


def test_a_key_makes_one_task(cli: Cli, tree: tuple[str, str]) -> None:
    first, second = (
        cli.mine("submit", *params(*tree), "--idempotency-key", "k-1", "-o", "json")
        for _ in range(2)
    )
    assert json.loads(first.stdout)["task_id"] == json.loads(second.stdout)["task_id"]
    other = cli.mine("submit", *params("input=other"), "--idempotency-key", "k-1")
    assert other.returncode == 1
    assert "key" in other.stderr


def test_cancel_while_somebody_waits(cli: Cli, stack: Stack) -> None:
    task_id = cli.mine("submit", *slow(stack, "cancel")).stdout.strip()
    waiting = cli.start("wait", "--task-id", task_id)
    try:
        stack.wait(task_id, "RUNNING")
        assert cli.mine("cancel", "--task-id", task_id).returncode == 0
        out, err = waiting.communicate(timeout=100)
    finally:
        waiting.kill()
    assert waiting.returncode == 11, err
    assert out == f"{task_id} CANCELLED\n"


def test_time_out_and_interrupt_leave_the_task_alone(cli: Cli, stack: Stack) -> None:
    task_id = cli.mine("submit", *slow(stack, "timeout")).stdout.strip()
    timed = cli.mine("wait", "--task-id", task_id, "--timeout", "0.2")
    assert timed.returncode == 124
    assert "goes on" in timed.stderr
    stack.wait(task_id, "RUNNING")
    for command in (["wait"], ["logs", "-f"]):
        watching = cli.start(*command, "--task-id", task_id)
        try:
            stream = watching.stdout if command[0] == "logs" else watching.stderr
            assert stream is not None
            assert stream.readline()
            watching.send_signal(signal.SIGINT)
            _, err = watching.communicate(timeout=100)
        finally:
            watching.kill()
        assert watching.returncode == 130
        assert "the task goes on" in err
        assert "Traceback" not in err
    assert cli.mine("delete", "--task-id", task_id).returncode == 0
    eventually(lambda: stack.task(task_id) is None, what="the task is gone")


def test_logs_are_whole_paged_and_followed(cli: Cli, stack: Stack, tree: tuple[str, str]) -> None:
    task_id = cli.mine("submit", *params(*tree)).stdout.strip()
    followed = cli.mine("logs", "-f", "--task-id", task_id)
    assert followed.returncode == 0, followed.stderr
    lines = followed.stdout.splitlines()
    assert "Dispatching to scheduler" in lines[0]
    assert "Completed" in lines[-1]
    assert cli.mine("logs", "--task-id", task_id).stdout == followed.stdout
    tail = cli.mine("logs", "--task-id", task_id, "--tail", "1")
    assert tail.stdout.splitlines() == lines[-1:]
    found: dict[str, Any] = json.loads(cli.mine("logs", "--task-id", task_id, "-o", "json").stdout)
    assert found == {"lines": lines, "offset": 0, "total": len(lines)}
    each = cli.mine("logs", "--task-id", task_id, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in each] == lines


def test_retry_is_a_new_task(cli: Cli) -> None:
    old = cli.mine("submit", *params("input=value"), "--wait").stdout.split()[0]
    done = cli.mine("retry", "--task-id", old, "--wait", "-o", "json")
    assert done.returncode == 10
    assert json.loads(done.stdout)["retry_of"] == old
    missing = cli.mine("retry", "--task-id", "1")
    assert missing.returncode == 3


def test_status_for_people_and_programs(cli: Cli) -> None:
    evil = "\x1b[2J" + "한국어"
    task_id = cli.mine("submit", *params(f"note={evil}"), "--wait").stdout.split()[0]
    shown = cli.mine("status", "--task-id", task_id).stdout
    assert "\x1b" not in shown
    assert "한국어" in shown
    assert "FAILED" in shown
    task = json.loads(cli.mine("status", "--task-id", task_id, "-o", "json").stdout)
    assert task["parameters"] == {"note": evil}


def test_pages(quiet: Stack) -> None:
    cli = Cli(quiet)
    ids = [quiet.submit("copy", "many", number=n) for n in range(5)]
    scope = ("--service", "copy", "--user", "many")
    page = cli("list", *scope, "--limit", "2", "-o", "json")
    found = json.loads(page.stdout)
    assert [task["task_id"] for task in found["tasks"]] == ids[:-3:-1]
    rest = cli("list", *scope, "--limit", "2", "--cursor", found["next_cursor"], "-o", "jsonl")
    assert [json.loads(line)["task_id"] for line in rest.stdout.splitlines()] == ids[2:0:-1]
    everything = cli("list", *scope, "--limit", "2", "--all", "-o", "json")
    assert [task["task_id"] for task in json.loads(everything.stdout)["tasks"]] == ids[::-1]
    table = cli("list", *scope, "--limit", "2")
    assert "2 of 5 tasks" in table.stderr
    assert cli("list", *scope, "--status", "completed", "-o", "jsonl").stdout == ""
    assert len(cli("list", *scope, "--since", "1h", "-o", "jsonl").stdout.splitlines()) == 5
    assert cli("list", *scope, "--status", "nonsense").returncode == 1


def test_operators(quiet: Stack) -> None:
    cli = Cli(quiet)
    task_id = quiet.submit("sync", "carol")
    for command in (["list"], ["list", "--service", "sync"]):
        assert task_id in cli(*command, "--operator-token", TOKEN).stdout
        for wrong in ({}, {"DMS_OPERATOR_TOKEN": "wrong"}):
            done = cli(*command, **wrong)
            assert done.returncode == 4
            assert "--operator-token" in done.stderr
    assert cli("cancel", "--task-id", task_id, DMS_OPERATOR_TOKEN=TOKEN).returncode == 0
    deleted = cli("delete", "--task-id", task_id, DMS_OPERATOR_TOKEN=TOKEN)
    assert deleted.stdout == f"{task_id} deleted\n"
    assert cli("delete", "--task-id", task_id, DMS_OPERATOR_TOKEN=TOKEN).returncode == 3


def test_anothers_task_is_a_missing_one(quiet: Stack) -> None:
    cli = Cli(quiet)
    task_id = quiet.submit("sync", "carol")
    for command in ("status", "cancel", "delete", "wait", "logs", "retry"):
        done = cli.mine(command, "--task-id", task_id)
        assert done.returncode == 3, command
        missing = cli.mine(command, "--task-id", "1")
        assert done.stderr.replace(task_id, "1") == missing.stderr


def test_a_bar_on_a_terminal(cli: Cli, stack: Stack) -> None:
    """On a real pseudo-terminal: a bar that moves, numbers, and a screen left whole."""
    folder = stack.roots[0] / "bar"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(96 * 1024))
    arguments = params(f"src={folder / 'big'}", f"dst={folder / 'moved'}", "bandwidth=32768")
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    process = cli.start("submit", *arguments, "--wait", stderr=terminal, TERM="xterm-256color")
    os.close(terminal)
    shown = b"".join(iter(lambda: _read(screen), b"")).decode()
    os.close(screen)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, shown
    assert out.endswith(" COMPLETED\n")
    assert "RUNNING" in shown
    assert "KiB" in shown
    assert "\x1b[?25l" in shown, "the cursor is hidden while the bar moves"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "and is shown again"
    assert "\x1b[3" not in shown, "NO_COLOR is honoured"


def _read(screen: int) -> bytes:
    """What the terminal shows next; nothing when its last user has gone (Linux says EIO)."""
    try:
        return os.read(screen, 65536)
    except OSError:
        return b""


def test_a_reader_that_leaves_early_is_no_error(quiet: Stack, tmp_path: Path) -> None:
    for number in range(3):
        quiet.submit("copy", "pipe", number=number)
    script = "dms-frontend tasks list --service copy --user pipe -o jsonl | true"
    done = bash(script, tmp_path, DMS_API_BASE=quiet.api_base)
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr.lower()
