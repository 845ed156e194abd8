"""Clients that submit and repeat, and a chaos that kills and freezes every part meanwhile."""

import math
import queue
import random
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.support.stack import Stack

# A repeat comes soon after, as a person's or a program's would; the deadline ends a hang.
_AGAIN_SECONDS = 0.2
_ANSWER_SECONDS = 10.0
_PATIENCE = 120.0


@dataclass
class Wish:
    """What a client wants done, under the nonce that names it in every repeat."""

    nonce: str
    service: str
    user: str
    parameters: dict[str, Any]
    cancel: bool = False
    answers: set[str] = field(default_factory=set[str])
    """The ids that 2xx answers gave: never more than one."""


class Clients:
    """Threads that submit wishes, each more than once, until every one has its answer."""

    def __init__(
        self, stack: Stack, wishes: Sequence[Wish], dice: random.Random, *, threads: int
    ) -> None:
        self._stack = stack
        self._waiting: queue.SimpleQueue[Wish] = queue.SimpleQueue()
        for wish in wishes:
            self._waiting.put(wish)
        self._failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(dice.random()),), daemon=True)
            for _ in range(threads)
        ]

    def start(self) -> None:
        """Begin to submit."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all have their answer; AssertionError with what went wrong."""
        for thread in self._threads:
            thread.join(_PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads), "no answer for a client"
        assert not self._failures, self._failures

    def _run(self, dice: random.Random) -> None:
        # No kept connections: each request meets whatever runs now.
        limits = httpx2.Limits(max_keepalive_connections=0)
        with httpx2.Client(timeout=_ANSWER_SECONDS, trust_env=False, limits=limits) as client:
            try:
                while True:
                    wish = self._waiting.get_nowait()
                    self._fulfil(client, wish, dice)
                    time.sleep(dice.uniform(0, 0.5))
            except queue.Empty:
                return
            except Exception as error:  # noqa: BLE001 - told by join(), in the test's own thread
                self._failures.append(repr(error))

    def _fulfil(self, client: httpx2.Client, wish: Wish, dice: random.Random) -> None:
        # Some repeat though they were answered: to them the answer was lost.
        for _ in range(dice.choice((1, 1, 2, 3))):
            wish.answers.add(self._submit(client, wish))
        if wish.cancel:
            time.sleep(dice.uniform(0, 3))
            self._cancel(client, wish)

    def _submit(self, client: httpx2.Client, wish: Wish) -> str:
        url = f"{self._stack.api_base}/services/{wish.service}/users/{wish.user}/tasks"
        answer = self._insist(
            client, url, json={"parameters": wish.parameters}, nonce=wish.nonce, wanted={202}
        )
        return str(answer.json()["task_id"])

    def _cancel(self, client: httpx2.Client, wish: Wish) -> None:
        (task_id,) = wish.answers
        url = f"{self._stack.api_base}/services/{wish.service}/tasks/{task_id}/cancel"
        # 409: it had ended by itself before.
        self._insist(client, f"{url}?user_id={wish.user}", json=None, wanted={200, 202, 409})

    def _insist(
        self, client: httpx2.Client, url: str, *, json: Any, wanted: set[int], nonce: str = ""
    ) -> httpx2.Response:
        """Repeat a request until it has an answer; only 503 and a broken connection may come."""
        headers = {"Idempotency-Key": nonce} if nonce else {}
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                answer = client.post(url, json=json, headers=headers)
            except httpx2.TransportError:
                time.sleep(_AGAIN_SECONDS)
                continue
            if answer.status_code in wanted:
                return answer
            assert answer.status_code == 503, f"{answer.status_code} {answer.text}"
            time.sleep(_AGAIN_SECONDS)
        raise AssertionError(f"no answer within {_PATIENCE:g} s: {url}")


class Chaos:
    """Kills, freezes and stops the parts of a stack at random; every part runs again after.

    It must be used by the thread that made the stack, since a part dies with its starter.
    """

    FAULTS = ("kill", "kill", "freeze", "term")

    def __init__(self, stack: Stack, dice: random.Random) -> None:
        self._stack = stack
        self._dice = dice
        self._due: list[tuple[float, str, str]] = []
        self.done: list[str] = []

    def strike(self) -> None:
        """One fault on one part that is not faulty already."""
        sick = {name for _, name, _ in self._due}
        healthy = [n for n in ("server", "scheduler", "frontend", *self._workers) if n not in sick]
        if not healthy:
            return
        name, fault = self._dice.choice(healthy), self._dice.choice(self.FAULTS)
        match fault:
            case "kill":
                self._stack.kill(name, signal.SIGKILL)
                self._heal_in(self._dice.uniform(0, 1.5), name, "start")
            case "term":
                self._stack.kill(name, signal.SIGTERM, wait=False)
                self._heal_in(0, name, "restart")
            case _:
                self._stack.kill(name, signal.SIGSTOP, wait=False)
                self._heal_in(self._dice.choice((0.3, 1.0, 3.0, 7.0)), name, "thaw")
        self.done.append(f"{fault} {name}")

    def rest(self, seconds: float) -> None:
        """Let the faults work for so long, and undo those whose time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._heal(time.monotonic())
            time.sleep(0.02)

    def heal(self) -> bool:
        """Undo all faults; False while a part that was told to stop has yet to do so."""
        self._heal(math.inf)
        return not self._due

    def _heal(self, now: float) -> None:
        due, self._due = self._due, []
        for at, name, cure in sorted(due):
            if at <= now:
                self._cure(name, cure)
            else:
                self._due.append((at, name, cure))

    def _cure(self, name: str, cure: str) -> None:
        if cure == "thaw":
            self._stack.kill(name, signal.SIGCONT, wait=False)
        elif self._stack.alive(name):  # it is still stopping
            self._due.append((0.0, name, cure))
        else:
            self._stack.start(name, wait_ready=False)

    @property
    def _workers(self) -> list[str]:
        return self._stack.plan.worker_names

    def _heal_in(self, seconds: float, name: str, cure: str) -> None:
        self._due.append((time.monotonic() + seconds, name, cure))
