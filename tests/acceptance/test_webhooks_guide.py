"""The examples of docs/webhooks.md work as they stand there, against a whole DMS of processes."""

import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app.services.webhook_file import load_webhooks
from tests.support.cli import clean_environment
from tests.support.stack import TERMINAL, Stack, eventually
from tests.support.webhooks import STANDARD_SECRET, webhooks_file

PAGE = (Path(__file__).resolve().parents[2] / "docs/webhooks.md").read_text("utf-8")
ROOT = "/srv/data"
SECRETS = {
    "GITHUB_SECRET": "It's a Secret to Everybody",
    "ORDERS_SECRET": STANDARD_SECRET,
    "ORDERS_SECRET_OLD": "whsec_" + "b2xk" * 8,
    "NIGHTLY_TOKEN": "a-token-for-the-night-77",
}


def blocks(language: str) -> list[str]:
    """The page's blocks of that language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", PAGE)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A stack with the page's file, whose root is the stack's."""
    folder = tmp_path_factory.mktemp("hooks")
    root = folder / "data"
    for source in ("checkouts/octocat/Hello-World", "in"):
        (root / source).mkdir(parents=True)
        (root / source / "파일.txt").write_text("내용\n")
    file = webhooks_file(folder, blocks("toml")[0].replace(ROOT, str(root)))
    variables = {"DMS_WEBHOOKS_FILE": str(file), **SECRETS}
    with Stack(folder, roots=[root], env=variables) as stack:
        yield stack


def run(number: int, stack: Stack) -> dict[str, Any]:
    """What a call of the page answers, which prints nothing else."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", blocks("bash")[number]],
        env=clean_environment(api_prefix=stack.api_base, no_proxy="*", **SECRETS),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["success"], answer
    return answer


def test_the_file_is_sound(tmp_path: Path) -> None:
    assert len(blocks("toml")) == 1
    found = load_webhooks(webhooks_file(tmp_path, blocks("toml")[0]), SECRETS)
    assert sorted(found) == ["deploys", "nightly", "orders"]


def ended(stack: Stack, task_id: str, user: str) -> dict[str, Any]:
    """The task, when it has ended."""

    def look() -> dict[str, Any] | None:
        path = f"/api/v1/services/sync/tasks/{task_id}"
        task = stack.client.get(path, params={"user_id": user}).json()["task"]
        return task if task["status"] in TERMINAL else None

    return eventually(look, what=f"end of {task_id}") or {}


def test_github(stack: Stack) -> None:
    task = ended(stack, run(0, stack)["task_id"], "deployer")
    assert task["status"] == "COMPLETED", (task["result"], task["logs"])
    assert (stack.roots[0] / "published/octocat/Hello-World/파일.txt").read_text() == "내용\n"


def test_standard_webhooks_and_who_listens(stack: Stack) -> None:
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", blocks("python")[0]],
        env=clean_environment(DMS_REDIS_WRITE_URL=stack.redis_url),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with Redis.from_url(stack.redis_url) as redis:
            eventually(lambda: redis.hexists("dms:{events}:routes", "shop.orders:stock"))
        assert run(1, stack)["task_id"] is None
        output, _ = program.communicate(timeout=100)
    finally:
        program.kill()
        program.wait()
    assert output == "order.paid 17\n"


def test_a_token_twice(stack: Stack) -> None:
    first = run(2, stack)
    assert run(2, stack) == first
    assert ended(stack, first["task_id"], "night")["status"] == "COMPLETED"
    assert (stack.roots[0] / "2026-11-21/파일.txt").exists()
    status = stack.client.get(
        "/api/v1/webhooks/nightly/status",
        headers={"X-Operator-Token": stack.environment["DMS_OPERATOR_TOKEN"]},
    )
    assert status.json() == {"running": True, "trigger_count": 1}
