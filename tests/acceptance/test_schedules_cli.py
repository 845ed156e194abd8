"""`schedules ...` on real processes: a schedule's whole life at the command line."""

import json
import subprocess
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.cli import clean_environment, dms
from tests.support.stack import TOKEN, Stack, eventually

FILE = """
[schedules.filed]
cron = "0 3 1 1 *"
service = "e.add"
user_id = "ops"
"""
EVERY_SECOND = ("--cron", "* * * * * *", "--service", "e.add-inline", "--user", "ops")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A stack whose scheduler has a file of schedules, and whose worker adds numbers."""
    folder = tmp_path_factory.mktemp("schedules")
    file = folder / "schedules.toml"
    file.write_text(FILE)
    env = {"DMS_SCHEDULES_FILE": str(file), "DMS_TASK_MODULES": "tests.support.handlers"}
    with Stack(folder, env=env) as stack:
        yield stack


class Cli:
    """Commands of an operator."""

    def __init__(self, stack: Stack) -> None:
        self._env = clean_environment(
            DMS_API_BASE=stack.api_base, DMS_OPERATOR_TOKEN=TOKEN, NO_COLOR="1"
        )

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return dms("schedules", *words, env=self._env)

    def said(self, *words: str) -> str:
        """What a command that works prints."""
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        """What it prints for programs."""
        return json.loads(self.said(*words, "-o", "json"))


@pytest.fixture
def cli(stack: Stack) -> Cli:
    """The command line against the stack."""
    return Cli(stack)


def test_from_creation_to_deletion(cli: Cli, stack: Stack) -> None:
    numbers = ("--param", "first=20", "--param", "second=22", "--overlap", "allow")
    name = "every-second"
    made = cli.said("create", name, *EVERY_SECOND, *numbers)
    assert "ACTIVE, next at " in made

    def fired() -> list[dict[str, Any]]:
        return cli.json("fires", name)["fires"]

    eventually(lambda: len(fired()) >= 2)
    fires = fired()
    assert [fire["outcome"] for fire in fires] == ["fired"] * len(fires)
    task_id = fires[-1]["task_id"]
    slot = int(datetime.fromisoformat(fires[-1]["slot"]).timestamp())
    assert task_id == f"s.{name}.{slot}"
    task = stack.wait(task_id)
    assert task["status"] == "COMPLETED", task["result"]
    assert (task["status"], task["result"]["data"]["sum"]) == ("COMPLETED", 42)
    assert task["schedule_id"] == name

    assert "PAUSED" in cli.said("pause", name, "--reason", "점검")
    shown = cli.said("show", name)
    assert all(text in shown for text in ("PAUSED", "점검", "every second", task_id))
    assert "BROKEN" not in shown
    run = cli.said("run", name).strip()
    assert stack.wait(run)["status"] == "COMPLETED"

    # The slots of the pause are not made up by themselves, but by hand, and each once.
    fires = fired()
    last = max(datetime.fromisoformat(fire["slot"]) for fire in fires if fire["slot"])
    begin, end = last + timedelta(seconds=1), last + timedelta(seconds=3)
    eventually(lambda: datetime.now(UTC) > end + timedelta(seconds=1))
    span = ("--from", begin.isoformat(), "--to", end.isoformat(), "--overlap", "allow")
    assert {f["outcome"] for f in cli.json("backfill", name, *span, "--dry-run")["fires"]} == {
        "fired"
    }
    assert [f["outcome"] for f in cli.json("backfill", name, *span)["fires"]] == ["fired"] * 2
    assert [f["outcome"] for f in cli.json("backfill", name, *span)["fires"]] == ["existing"] * 2

    changed = cli.json("update", name, "--cron", "0 3 * * *", "--overlap", "skip")
    assert (changed["cron"], changed["overlap"], changed["paused"]) == (
        "0 3 * * *",
        "skip",
        True,
    )
    assert cli.json("update", name, "--default", "parameters")["parameters"] == {}
    assert "ACTIVE, next at " in cli.said("resume", name)
    listed = cli.said("list")
    assert name in listed
    assert "0 3 * * *" in listed
    assert cli("delete", name).returncode != 0  # nobody is there to be asked
    assert cli("delete", name, "--yes").returncode == 0
    gone = cli("show", name)
    assert gone.returncode != 0
    assert name in gone.stderr


def test_the_file_of_the_scheduler_has_its_schedule(cli: Cli) -> None:
    eventually(lambda: cli("show", "filed").returncode == 0)
    assert cli.json("show", "filed")["source"] == "file"
    refused = cli("delete", "filed", "--yes")
    assert refused.returncode != 0
    assert "DMS_SCHEDULES_FILE" in refused.stderr


def test_a_preview_of_what_one_thinks_of(cli: Cli) -> None:
    words = ("preview", "--cron", "0 9 * * MON-FRI", "--timezone", "Asia/Seoul", "-n", "2")
    words += ("--after", "2026-11-20T00:00", "--param", "day={{ slot:%Y-%m-%d }}")
    shown = cli.said(*words)
    assert "2026-11-20 09:00:00+09:00" in shown
    assert '{"day": "2026-11-23"}' in shown
    assert len(shown.splitlines()) == 4
    neither = cli("preview")
    assert neither.returncode == 2
    assert "--cron" in neither.stderr


def test_a_wrong_field_is_named(cli: Cli) -> None:
    refused = cli("create", "bad", "--cron", "0 25 * * *", "--service", "e.add", "--user", "ops")
    assert refused.returncode != 0
    assert "25" in refused.stderr
    assert "cron" in refused.stderr


def test_a_time_without_an_offset_is_not_guessed(cli: Cli) -> None:
    refused = cli("create", "soon", *EVERY_SECOND, "--start", "2099-01-01T09:00")
    assert refused.returncode != 0
    assert "start_at" in refused.stderr
