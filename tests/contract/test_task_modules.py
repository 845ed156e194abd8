"""A module of users' tasks that does not load stops the start; test_examples runs a good one."""

import os
from pathlib import Path

import pytest

from tests.support.worker_process import ROOT, WorkerProcess


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
