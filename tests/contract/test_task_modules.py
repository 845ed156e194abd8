"""Users' tasks from modules and entry points: what does not load stops the start, the rest runs.

A module that loads is run by test_examples.
"""

import json
import os
from pathlib import Path

import pytest

from task_state import TaskStatus
from tests.support.worker_process import ROOT, Client, WorkerProcess


@pytest.mark.parametrize("source", [None, "raise RuntimeError('no licence')"])
def test_a_module_that_does_not_load_stops_the_start_with_its_name_and_cause(
    dms_redis_url: str, tmp_path: Path, source: str | None
) -> None:
    if source is not None:
        (tmp_path / "broken_tasks.py").write_text(source)
    environment = {
        "DMS_TASK_MODULES": "broken_tasks",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
    }
    with WorkerProcess(dms_redis_url, environment) as worker:
        assert worker.wait() != 0
        log = worker.log()
    assert "'broken_tasks' cannot be imported" in log
    assert ("no licence" if source else "No module named 'broken_tasks'") in log


SOURCE = """
import os
from app.tasks import Task, define_task

def told(task: Task) -> dict:
    return {"pid": os.getpid(), "name": task.payload["name"]}

def register() -> None:
    define_task("plugin.child", told)
    define_task("plugin.inline", told, {"isolation": "inline"})
"""


def _install(folder: Path, value: str) -> dict[str, str]:
    """A distribution with one entry point, as pip leaves it; the environment that finds it."""
    (folder / "plugin_tasks.py").write_text(SOURCE)
    info = folder / "some_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dms.tasks]\nwords = {value}\n")
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}


async def test_an_installed_distribution_brings_its_tasks_to_worker_and_children(
    dms_redis_url: str, tmp_path: Path
) -> None:
    environment = _install(tmp_path, "plugin_tasks:register")
    with WorkerProcess(dms_redis_url, environment) as worker:
        async with Client(dms_redis_url) as client:
            for service in ("plugin.child", "plugin.inline"):
                record = await client.ended(await client.submit(service, name="단어"))
                assert record.status is TaskStatus.COMPLETED, record.result.error
                assert record.result.data["name"] == "단어"
                assert (record.result.data["pid"] == worker.pid) == (service == "plugin.inline")
        log = worker.log()
    (line,) = (each for each in log.splitlines() if "plugin.child" in each)
    said = json.loads(line)
    assert said["source"] == "entry point 'words' (plugin_tasks:register) of some-plugin"
    assert said["tasks"] == ["plugin.child", "plugin.inline"]


async def test_entry_points_can_be_left_out(dms_redis_url: str, tmp_path: Path) -> None:
    environment = {**_install(tmp_path, "no_such_module"), "DMS_TASK_ENTRY_POINTS": "false"}
    with WorkerProcess(dms_redis_url, environment):
        async with Client(dms_redis_url) as client:
            record = await client.ended(await client.submit("t.add", first=1))
    assert record.status is TaskStatus.COMPLETED


def test_an_entry_point_that_does_not_load_stops_the_start(
    dms_redis_url: str, tmp_path: Path
) -> None:
    with WorkerProcess(dms_redis_url, _install(tmp_path, "no_such_module")) as worker:
        assert worker.wait() != 0
        log = worker.log()
    assert "entry point 'words' (no_such_module) of some-plugin cannot be imported" in log
    assert "No module named 'no_such_module'" in log
