"""Pause, drain and resume over HTTP on a whole DMS: real processes, real tasks."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from cli.errors import ExitCode
from tests.support.cli import dms
from tests.support.stack import Stack, eventually


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A DMS whose worker knows the test handlers."""
    environment = {"DMS_TASK_MODULES": "tests.support.handlers"}
    with Stack(tmp_path_factory.mktemp("services"), env=environment) as running:
        yield running


def state(stack: Stack, service: str) -> dict[str, Any]:
    """A service's state."""
    answer = stack.client.get(f"{stack.api_base}/admin/services/{service}", headers=stack.operator)
    assert answer.status_code == 200, answer.text
    return answer.json()


def change(stack: Stack, service: str, verb: str) -> dict[str, Any]:
    """Change a service's mode."""
    url = f"{stack.api_base}/admin/services/{service}/{verb}"
    answer = stack.client.post(url, json={"reason": "정비"}, headers=stack.operator)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_paused_service_keeps_what_comes_and_resuming_runs_it(stack: Stack) -> None:
    assert change(stack, "t.add", "pause")["defined"] is True
    waiting = [stack.submit("t.add", "alice", first=n, second=1) for n in range(3)]
    another = stack.submit("t.add-inline", "alice", first=1, second=1)
    stack.wait(another, "COMPLETED")  # other services go on
    eventually(lambda: state(stack, "t.add")["waiting"] == 3, what="all were accepted")
    places = [(stack.task(task_id) or {})["queue_position"] for task_id in waiting]
    assert places == [1, 2, 3]
    assert change(stack, "t.add", "resume")["mode"] == "ACTIVE"
    for task_id in waiting:
        stack.wait(task_id, "COMPLETED")
    assert "queue_position" not in (stack.task(waiting[0]) or {})
    eventually(
        lambda: [state(stack, "t.add")[what] for what in ("waiting", "running")] == [0, 0],
        what="nothing waits or runs",
    )


def test_a_draining_service_finishes_what_it_has_and_takes_no_more(
    stack: Stack, tmp_path: Path
) -> None:
    until = tmp_path / "go"
    running = stack.submit("t.until-file", "alice", file=str(until), folder=str(tmp_path))
    stack.wait(running, "RUNNING")
    change(stack, "t.until-file", "drain")
    refused = stack.client.post(f"{stack.api_base}/services/t.until-file/users/alice/tasks")
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:dms:problem:service-draining"
    assert state(stack, "t.until-file")["running"] == 1
    until.touch()
    stack.wait(running, "COMPLETED")
    eventually(lambda: state(stack, "t.until-file")["running"] == 0, what="drained")
    change(stack, "t.until-file", "resume")
    again = stack.client.post(
        f"{stack.api_base}/services/t.until-file/tasks/{running}/retry?user_id=alice"
    )
    assert again.status_code == 202
    stack.wait(again.json()["task_id"], "COMPLETED")


def test_a_drain_waits_for_what_has_not_reached_the_scheduler(stack: Stack) -> None:
    stack.stop("scheduler")
    task_id = stack.submit("t.add", "alice", first=1, second=1)
    change(stack, "t.add", "drain")
    early = dms(
        *("services", "drain", "--service", "t.add", "--wait", "--timeout", "2"),
        env=stack.environment,
    )
    assert early.returncode == ExitCode.TIMEOUT, early.stdout
    stack.start("scheduler")
    done = dms(
        *("services", "drain", "--service", "t.add", "--wait", "--timeout", "90"),
        env=stack.environment,
    )
    assert done.returncode == 0, done.stderr
    assert (stack.task(task_id) or {})["status"] == "COMPLETED"
    change(stack, "t.add", "resume")


def test_a_pause_of_everything_outlasts_the_scheduler(stack: Stack) -> None:
    change(stack, "*", "pause")
    try:
        waiting = stack.submit("t.add-inline", "bob", first=2, second=2)
        stack.kill("scheduler")
        stack.start("scheduler")
        eventually(lambda: state(stack, "t.add-inline")["waiting"] == 1, what="accepted")
        assert state(stack, "t.add-inline")["mode"] == "PAUSED"
        assert (stack.task(waiting) or {})["attempts"] == 0
    finally:
        change(stack, "*", "resume")
    stack.wait(waiting, "COMPLETED")
