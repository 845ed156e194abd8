"""`tasks search`, `tasks list -o wide`, `tasks counts` and `services ...` on real processes."""

import json
import subprocess
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.cli import clean_environment, dms
from tests.support.stack import TOKEN, Stack, eventually


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A stack without a worker: what is submitted waits."""
    with Stack(tmp_path_factory.mktemp("quiet"), without=("worker",)) as stack:
        yield stack


class Cli:
    """Commands of an operator; `token=""` takes the token away."""

    def __init__(self, stack: Stack) -> None:
        self._env = clean_environment(DMS_API_BASE=stack.api_base, NO_COLOR="1")

    def __call__(self, *words: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        return dms(*words, env={**self._env, "DMS_OPERATOR_TOKEN": token})

    def json(self, *words: str) -> Any:
        """What the command prints for programs."""
        done = self(*words, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ids(self, *words: str, token: str = TOKEN) -> list[str]:
        """The tasks that a search finds."""
        done = self("tasks", *words, "-o", "jsonl", token=token)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["task_id"] for line in done.stdout.splitlines()]


@pytest.fixture
def cli(stack: Stack) -> Cli:
    """The command line against the stack."""
    return Cli(stack)


def test_a_search_by_everything(cli: Cli, stack: Stack) -> None:
    alice = [stack.submit("sync", "s-alice", note=f"찾을 것 {n}") for n in range(3)]
    bob = stack.submit("sync", "s-bob", note="찾을 것")
    assert cli("tasks", "cancel", "--task-id", bob).returncode == 0
    mine = ("search", "--service", "sync", "--text", "찾을 것")
    assert cli.ids("search", "--id", bob) == [bob]
    assert cli.ids("search", "--type", "sync", "--user", "s-alice", token="") == alice[::-1]
    assert cli.ids(*mine, "--status", "cancelled") == [bob]
    both = ("--status", "PENDING", "--status", "dispatching", "--status", "Cancelled")
    assert cli.ids(*mine, *both) == [bob, *alice[::-1]]
    assert cli.ids("search", "--text", "찾을 것 1") == [alice[1]]
    in_order = (*mine, "--sort", "id", "--order", "ASC")
    assert cli.ids(*in_order) == [*alice, bob]
    assert cli.ids(*in_order, "--limit", "2", "--all") == [*alice, bob]
    assert cli.ids(*in_order, "--offset", "1", "--limit", "2") == alice[1:]
    assert cli.ids(*mine, "--until", "1h") == []
    assert cli.ids("search", "--user", "s-bob", "--since", "1h", "--updated-after", "1h") == [bob]
    assert cli.ids("search", "--user", "s-bob", "--updated-before", "1h") == []


def test_a_page_says_how_to_get_the_next(cli: Cli, stack: Stack) -> None:
    made = [stack.submit("paged", "alice") for _ in range(3)]
    first = cli("tasks", "search", "--service", "paged", "--limit", "2", "-o", "wide")
    assert "2 of 3 tasks" in first.stderr
    assert "ATTEMPTS" in first.stdout
    cursor = first.stderr.split()[-1]
    assert cli.ids("search", "--service", "paged", "--limit", "2", "--cursor", cursor) == made[:1]


def test_what_makes_no_sense_is_told_with_the_options_name(cli: Cli) -> None:
    wrong = cli("tasks", "search", "--since", "1h", "--until", "2h")
    assert wrong.returncode == 1
    assert "created_" in wrong.stderr
    status = cli("tasks", "search", "--status", "nonsense")
    assert status.returncode == 1
    assert "nonsense" in status.stderr
    assert cli("tasks", "search", "--user", "bob", token="").returncode == 4
    assert cli("tasks", "search", "--text", "x" * 300).returncode == 1


def test_the_issues_own_list(cli: Cli, stack: Stack) -> None:
    task_id = stack.submit("sync", "l-alice")
    scope = ("--service", "sync", "--user", "l-alice")
    assert cli("tasks", "cancel", "--task-id", task_id, *scope).returncode == 0
    for where, token in ((scope, ""), ((), TOKEN)):
        done = cli("tasks", "list", *where, "--status", "CANCELLED", "--since", "1h", "-o", "wide")
        assert done.returncode == 0, done.stderr
        assert task_id in done.stdout
        assert "DURATION" in done.stdout
        none = cli("tasks", "list", *where, "--status", "FAILED", "--since", "1h", token=token)
        assert task_id not in none.stdout


def test_counts(cli: Cli, stack: Stack) -> None:
    for user in ("alice", "alice", "bob"):
        stack.submit("counted", user)
    found = cli.json("tasks", "counts", "--service", "counted")
    assert found["total"] == 3
    assert found["by_user"] == {"alice": 2, "bob": 1}
    shown = cli("tasks", "counts", "--service", "counted").stdout
    rows = [line.split() for line in shown.splitlines() if line]
    assert ["total", "3"] in rows
    assert rows.index(["alice", "2"]) < rows.index(["bob", "1"]), "the largest first"
    own = ("tasks", "counts", "--service", "counted", "--user", "bob")
    done = cli(*own, "-o", "json", token="")
    assert json.loads(done.stdout)["total"] == 1
    assert cli("tasks", "counts", token="").returncode == 4


def test_a_service_is_paused(cli: Cli) -> None:
    paused = cli("services", "pause", "--service", "moded", "--reason", "점검\x1b[2J", "--wait")
    assert (paused.returncode, paused.stdout) == (0, "moded PAUSED\n"), paused.stderr
    shown = cli("services", "show", "--service", "moded")
    assert "점검" in shown.stdout
    assert "\x1b" not in shown.stdout
    listed = cli.json("services", "list")["services"]
    assert {each["service"]: each["mode"] for each in listed}["moded"] == "PAUSED"
    assert "moded" in cli("services", "list").stdout
    assert cli("services", "resume", "--service", "moded").stdout == "moded ACTIVE\n"


def _waiting(stack: Stack) -> int:
    """How many tasks of `sync` wait for a worker."""
    answer = stack.client.get("/api/v1/admin/services/sync", headers=stack.operator)
    return answer.json()["waiting"]


def test_a_service_is_drained(cli: Cli, stack: Stack) -> None:
    stack.submit("sync", "d-alice")
    eventually(lambda: _waiting(stack), what="the task waits for a worker")
    drain = ("services", "drain", "--service", "sync", "--wait")
    submit = ("tasks", "submit", "--service", "sync", "--user", "d-alice")
    try:
        late = cli(*drain, "--timeout", "0.2")
        assert late.returncode == 124, "a task still waits"
        assert "has not ended" in late.stderr
        refused = cli(*submit)
        assert refused.returncode == 1
        assert "sync" in refused.stderr
        waits = ("--status", "PENDING", "--status", "DISPATCHING")
        for waiting in cli.ids("search", "--service", "sync", *waits):
            assert cli("tasks", "cancel", "--task-id", waiting).returncode == 0
        done = cli(*drain, "--timeout", "60")
        assert (done.returncode, done.stdout) == (0, "sync DRAINING\n"), done.stderr
    finally:
        assert cli("services", "resume", "--service", "sync").stdout == "sync ACTIVE\n"
    assert cli(*submit).returncode == 0


def test_all_services_at_once(cli: Cli) -> None:
    try:
        assert cli("services", "pause", "--all", "--wait").stdout == "* PAUSED\n"
        modes = {each["service"]: each["mode"] for each in cli.json("services", "list")["services"]}
        assert modes["*"] == "PAUSED"
    finally:
        assert cli("services", "resume", "--all").stdout == "* ACTIVE\n"
    assert cli("services", "list", token="").returncode == 4
    assert cli("services", "pause", "--service", "a b").returncode == 1
