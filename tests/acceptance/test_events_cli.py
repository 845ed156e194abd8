"""`dms-frontend events ...` on real processes."""

import asyncio
import json
import subprocess
from collections.abc import Generator
from typing import Any

import pytest

from app.event_system.infrastructure import RedisBroker
from tests.support.cli import clean_environment, dms
from tests.support.events import Numbered, publish, take
from tests.support.stack import TOKEN, Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A frontend and its server: nothing here runs a task."""
    folder = tmp_path_factory.mktemp("events")
    with Stack(folder, without=("worker", "scheduler")) as stack:
        yield stack


@pytest.fixture(autouse=True)
def letters(stack: Stack) -> None:
    """Three dead letters of one group, nothing else."""
    asyncio.run(_bury(stack.redis_url))


async def _bury(url: str) -> None:
    async with RedisBroker(url, timeout=60) as broker:
        while found := await broker.dead_letters():
            await broker.discard(letter.letter_id for letter in found)
        await broker.drop_group("numbers.*", "team")
        subscription = await broker.consumer().subscribe(
            "numbers.*", Numbered, group="team", max_deliveries=1
        )
        await publish(broker.publisher(), 1, 2, 3)
        for _ in range(3):
            (await take(subscription)).nack("안 됩니다 \x1b[31m")
        await subscription.flush()


def events(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `dms-frontend events ...` as an operator."""
    env = clean_environment(DMS_API_BASE=stack.api_base, DMS_OPERATOR_TOKEN=TOKEN, NO_COLOR="1")
    return dms("events", *words, env=env)


def found(stack: Stack, *words: str) -> Any:
    done = events(stack, *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_queues_and_letters_are_shown(stack: Stack) -> None:
    table = events(stack, "queues").stdout.splitlines()
    assert table[0].split() == [
        "PATTERN", "GROUP", "MEMBERS", "WAITING", "UNSETTLED", "DROPPED", "DEAD"
    ]  # fmt: skip
    assert table[1].split()[:2] == ["numbers.*", "team"]
    assert table[1].split()[-1] == "3"
    (queue,) = found(stack, "queues")["queues"]
    assert (queue["pattern"], queue["dead"]) == ("numbers.*", 3)
    page = events(stack, "dead-letters", "--limit", "2")
    assert len(page.stdout.splitlines()) == 3
    assert "안 됩니다 \\x1b[31m" in page.stdout, "what acts on a terminal is shown as an escape"
    after = page.stderr.split("--cursor ")[1].strip()
    lines = events(stack, "dead-letters", "--cursor", after, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(json.loads(line)["payload"])["number"] for line in lines] == [3]


def test_letters_are_replayed_and_discarded(stack: Stack) -> None:
    one, two, _ = [each["id"] for each in found(stack, "dead-letters")["dead_letters"]]
    assert found(stack, "replay", "--id", one, "--id", two) == {"count": 2}
    done = events(stack, "discard", "--pattern", "numbers.*", "--group", "team", "--yes")
    assert (done.returncode, done.stderr) == (0, "1 dead letters discarded\n")
    assert found(stack, "dead-letters")["dead_letters"] == []
    assert found(stack, "queues")["queues"][0]["waiting"] == 2
    assert found(stack, "replay", "--all") == {"count": 0}


def test_a_group_is_ended(stack: Stack) -> None:
    named = ("--pattern", "numbers.*", "--group", "team")
    done = events(stack, "drop-group", *named, "--yes")
    assert (done.returncode, done.stderr) == (0, "group team of numbers.* is gone\n")
    again = events(stack, "drop-group", *named, "--yes")
    assert again.returncode == 3, again.stderr
    assert found(stack, "queues")["queues"] == []


@pytest.mark.parametrize(
    "words",
    [
        ("replay",),
        ("discard", "--yes"),
        ("replay", "--all", "--pattern", "a"),
        ("replay", "--id", "1-1", "--all"),
        ("discard", "--id", "1-1", "--group", "team", "--yes"),
        ("discard", "--all"),
        ("drop-group", "--pattern", "numbers.*", "--group", "team"),
    ],
)
def test_what_is_not_clear_or_not_agreed_to_changes_nothing(
    stack: Stack, words: tuple[str, ...]
) -> None:
    assert events(stack, *words).returncode == 2
    assert len(found(stack, "dead-letters")["dead_letters"]) == 3
    assert len(found(stack, "queues")["queues"]) == 1
