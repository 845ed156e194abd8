"""The built-in services on a whole DMS: by HTTP, in child processes, with their reports."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    with Stack(tmp_path_factory.mktemp("built-in")) as running:
        yield running


@pytest.fixture
def folder(stack: Stack, request: pytest.FixtureRequest) -> Path:
    """A tree of its own for each test, below the root."""
    top = stack.roots[0] / request.node.name
    (top / "원본/안").mkdir(parents=True)
    (top / "원본/파일 1").write_text("hello")
    (top / "원본/안/old").write_text("x" * 1000)
    os.utime(top / "원본/안/old", (0, 0))
    return top


def run(stack: Stack, service: str, status: str, **parameters: str) -> dict[str, Any]:
    """Submit a task and return its record once it has ended so."""
    task_id = stack.submit(service, "alice", **parameters)
    stack.wait(task_id, status)
    return stack.task(task_id) or {}


def report(stack: Stack, task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of a task's report."""
    path = f"/api/v1/services/{task['service']}/tasks/{task['task_id']}/report?user_id=alice"
    answer = stack.client.get(path)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_what_is_synced_compares_as_the_same_until_a_byte_rots(stack: Stack, folder: Path) -> None:
    sides = {"src": str(folder / "원본"), "dst": str(folder / "사본")}
    synced = run(stack, "sync", "COMPLETED", **sides, options="-c -b 100")
    assert synced["result"]["data"]["totals"]["files"] == 2
    assert {line["path"] for line in report(stack, synced) if line["action"] == "copy"} == {
        "파일 1",
        "안/old",
    }
    assert any("--batch-files" in line or "-b of dsync" in line for line in synced["logs"])
    assert run(stack, "check", "COMPLETED", **sides)["result"]["data"]["same"] is True
    rotten = folder / "사본/안/old"
    rotten.write_text("x" * 999 + "y")
    os.utime(rotten, (0, 0))
    checked = run(stack, "check", "FAILED", **sides)
    assert checked["result"]["error"] == "1 entry differs"
    assert checked["result"]["data"]["error_class"] == "differences"
    assert checked["attempts"] == 1
    (line,) = report(stack, checked)
    assert (line["action"], line["path"], line["reason"]) == ("differs", "안/old", "content")
    assert run(stack, "check", "COMPLETED", **sides, options="--lite")["attempts"] == 1


def test_a_copy_keeps_what_only_the_destination_has(stack: Stack, folder: Path) -> None:
    kept = folder / "사본/kept"
    kept.parent.mkdir()
    kept.write_text("1")
    sides = {"src": str(folder / "원본"), "dst": str(folder / "사본")}
    run(stack, "copy", "COMPLETED", **sides)
    assert kept.exists()
    refused = run(stack, "copy", "FAILED", **sides, delete="true")
    assert "delete: copy never deletes; use the service sync" in refused["result"]["error"]


def test_a_removal_is_tried_and_then_done(stack: Stack, folder: Path) -> None:
    path = str(folder / "원본")
    dry = run(stack, "rm", "COMPLETED", path=path, recursive="true", dry_run="true")
    assert (folder / "원본/안/old").exists()
    done = run(stack, "rm", "COMPLETED", path=path, recursive="true", backup_deleted="true")
    assert not (folder / "원본").exists()
    assert done["result"]["data"]["totals"]["deleted"] == 4

    def lines(task: dict[str, Any]) -> list[tuple[str, str]]:
        return sorted((line["action"], line["path"]) for line in report(stack, task))

    assert lines(dry) == lines(done)
    kept = folder / f".dms-deleted/{done['task_id']}.1/원본/안/old"
    assert kept.read_text() == "x" * 1000
    assert run(stack, "rm", "FAILED", path=path)["result"]["data"]["error_class"] == "not_found"


def test_ages_are_told(stack: Stack, folder: Path) -> None:
    told = run(stack, "hotcold", "COMPLETED", path=str(folder / "원본"))
    data = told["result"]["data"]
    assert data["classes"]["cold"] == {"files": 1, "bytes": 1000}
    assert data["cold_folders"] == [{"path": "안", "files": 1, "bytes": 1000, "whole": True}]
    (line,) = report(stack, told)
    assert (line["action"], line["path"]) == ("aged", "안/old")


def test_parameters_are_refused_in_plain_words(stack: Stack) -> None:
    failed = run(stack, "sync", "FAILED", src="/a", dest="/b", compare="date")
    error = failed["result"]["error"]
    assert "dst: is missing" in error
    assert "dest: there is no such parameter; did you mean dst?" in error
    assert "compare: is none of the choices: exists, size, size_mtime or checksum" in error
    path = "/api/v1/services/sync/users/alice/tasks?src=/a&dst=/b&bandwidth=fast"
    answer = stack.client.post(path, headers={"Prefer": "handling=strict"})
    assert answer.status_code == 422
