"""`dms-frontend doctor` against a whole DMS of real processes, while it works."""

import json
from pathlib import Path
from typing import Any

from redis import Redis

from task_state import keys
from tests.support.cli import clean_environment, dms
from tests.support.stack import Stack, eventually


def examine(stack: Stack, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the checks by name."""
    done = dms("doctor", "-o", "json", *options, env=stack.environment)
    answer = json.loads(done.stdout)
    return done.returncode, {check["check"]: check for check in answer["checks"]}


def wrong(checks: dict[str, Any]) -> set[str]:
    return {name for name, check in checks.items() if check["status"] == "problem"}


def test_a_working_dms_is_well_and_a_broken_one_is_mended(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, Redis.from_url(stack.redis_url) as redis:
        for name in ("a", "b", "c"):
            source = stack.roots[0] / name
            source.mkdir()
            answer = stack.client.post(
                f"/api/v1/services/sync/users/alice/tasks?src={source}&dst={stack.roots[0]}/to-{name}"
            )
            assert answer.status_code == 202
        code, checks = examine(stack)
        assert wrong(checks) == set(), checks
        assert code == 0
        assert checks["records"]["what"] == "3 looked at"
        assert checks["scheduler"]["status"] == "ok"
        eventually(lambda: examine(stack)[1]["workers"]["status"] == "ok")

        redis.zadd(f"{keys.PREFIX}c:FAILED:sync", {"ghost": 1})
        redis.hset(keys.SERVICES, "sync", "77")
        code, checks = examine(stack)
        assert code == 1
        assert wrong(checks) == {"members"}
        assert checks["members"]["examples"][0].startswith("ghost: ")
        assert "--repair" in checks["members"]["remedy"]
        code, checks = examine(stack, "--repair")
        assert code == 0
        assert checks["members"]["repaired"] == checks["counts"]["repaired"] == 1
        code, checks = examine(stack)
        assert code == 0
        assert checks["members"]["count"] == checks["counts"]["count"] == 0

        # The store of an `up` on this machine is found by its folder, without any setting.
        folder = str(stack.plan.data_dir)
        for done in (
            dms("doctor", "--data-dir", folder),
            dms("doctor", env=clean_environment(XDG_DATA_HOME=str(stack.plan.data_dir.parent))),
        ):
            assert done.returncode == 0, done.stderr
            assert "members" in done.stdout
            assert "problem" not in done.stdout


def test_a_store_that_is_away_is_one_clear_problem(tmp_path: Path) -> None:
    nowhere = clean_environment(DMS_REDIS_WRITE_URL="redis://127.0.0.1:1/0")
    done = dms("doctor", "-o", "json", env=nowhere)
    assert done.returncode == 1
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert wrong(checks) == {"store"}
    done = dms("doctor", "--data-dir", str(tmp_path), env=clean_environment())
    assert done.returncode == 5
    assert str(tmp_path) in done.stderr
