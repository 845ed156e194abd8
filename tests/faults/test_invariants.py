"""Everything is killed, frozen and stopped at random while clients submit: the invariants hold."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.hammer import Chaos, Clients, Wish
from tests.support.invariants import (
    Result,
    check_bounds,
    check_end,
    check_log,
    check_states,
    check_steps,
    leftovers,
    results,
    tree,
)
from tests.support.stack import Stack, eventually

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).resolve().parents[2]
WISHES, CLIENTS, FAULTS = 28, 4, 14
SETTLED_SECONDS = 150.0
ENVIRONMENT = {
    "DMS_TASK_MODULES": "tests.support.handlers",
    "DMS_CANCEL_GRACE_SECONDS": "1",
    "PYTHONPATH": str(ROOT),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(12):
        folder = tmp_path / "data/src" / f"폴더-{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(os.urandom(40_000))
    return tmp_path / "data"


@pytest.fixture
def stack(tmp_path: Path, data: Path) -> Iterator[Stack]:
    with Stack(tmp_path, roots=[data], workers=2, env=ENVIRONMENT) as running:
        yield running


def wish(number: int, data: Path, dice: random.Random) -> Wish:
    """One of the kinds of tasks, and whether it is to be cancelled."""
    nonce, user = f"nonce-{number}", dice.choice(("alice", "bob"))
    target = data / nonce
    speed, count = dice.choice((300_000, 10_000_000)), dice.choice((5, 20, 60))
    sync = {"src": str(data / "src"), "dst": str(target), "label": nonce, "bandwidth": speed}
    made = dice.choice(
        (
            Wish(nonce, "sync", user, sync),
            Wish(nonce, "t.steps", user, {"nonce": nonce, "file": str(target), "count": count}),
            Wish(nonce, "t.log", user, {"nonce": nonce, "lines": count * 25}),
            Wish(nonce, "t.fail-until", user, {"nonce": nonce, "attempt": 2}),
            Wish(nonce, "t.polite", user, {"nonce": nonce}, cancel=True),
        )
    )
    made.cancel = made.cancel or dice.random() < 0.15
    return made


def hammer(stack: Stack, wishes: list[Wish], dice: random.Random) -> None:
    """Let the clients submit while the faults happen; all is healthy again when this returns."""
    clients, chaos = Clients(stack, wishes, dice, threads=CLIENTS), Chaos(stack, dice)
    clients.start()
    while len(chaos.done) < FAULTS:
        chaos.strike()
        chaos.rest(dice.uniform(0.1, 1.0))
    eventually(chaos.heal, what="all parts run")
    print("faults:", ", ".join(chaos.done))
    clients.join()
    eventually(lambda: is_ready(stack), what="the frontend is ready")


def is_ready(stack: Stack) -> bool:
    try:
        return stack.client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def test_whatever_dies_each_wish_becomes_one_task_with_one_end(stack: Stack, data: Path) -> None:
    seed = random.randrange(10**6)
    print("seed:", seed)
    dice = random.Random(seed)
    wishes = [wish(number, data, dice) for number in range(WISHES)]
    hammer(stack, wishes, dice)
    eventually(lambda: not leftovers(stack), SETTLED_SECONDS, "all has ended")
    check_states(stack, wishes)
    check_bounds(stack)
    for result in results(stack, wishes):
        check_end(result)
        check_effects(result, data)


def check_effects(result: Result, data: Path) -> None:
    """The log is whole, and what the task did on disk was done once and in full."""
    parameters, target = result.wish.parameters, data / result.wish.nonce
    check_log(result, parameters.get("count", parameters.get("lines")))
    if result.wish.service == "t.steps":
        check_steps(result, target)
    if result.wish.service == "sync":
        assert not list(target.rglob(".dms-*")), f"{result.wish.nonce}: temporary files are left"
        assert result.status != "COMPLETED" or tree(target) == tree(data / "src")
