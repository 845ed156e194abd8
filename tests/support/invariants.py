"""What must hold after any fault (RELIABILITY, I1 to I6), read from what a run has left behind."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from redis import Redis

from dms_scheduler.engine import DOCKET_NAME
from task_state import keys
from task_state.models import TRANSITIONS, TaskStatus
from tests.support.hammer import Wish
from tests.support.stack import TERMINAL, Stack, eventually

_MOST_MEMORY = 200 * 1024**2
# Of a worker: a child for each task that it runs at once, and the warm ones, each with its keeper.
_MOST_PROCESSES = 2 * (8 + 2)
# For those that are being replaced; half of what a spare child is kept for.
_REPLACED_SECONDS = 30.0
_MOST_CONNECTIONS = 150
_COUNTED = re.compile(r"(?:step|line) (\d+)")
_STARTED = re.compile(r"Started by worker \S+, epoch (\d+)")


@dataclass(frozen=True)
class Result:
    """What became of a wish: its record, and every line of its log."""

    wish: Wish
    record: Mapping[str, Any]
    messages: Sequence[str]

    @property
    def status(self) -> str:
        """The record's state."""
        return str(self.record["status"])


def results(stack: Stack, wishes: Sequence[Wish]) -> list[Result]:
    """One result a wish; raises when the wish's answers do not name exactly one task (I1, I5)."""
    found: list[Result] = []
    with Redis.from_url(stack.redis_url) as server:
        for wish in wishes:
            assert len(wish.answers) == 1, f"{wish.nonce} became {wish.answers}"
            (task_id,) = wish.answers
            record = stack.user_task(wish.service, wish.user, task_id)
            assert record is not None, f"{wish.nonce} is lost"
            lines = cast("list[bytes]", server.lrange(keys.logs(task_id), 0, -1))
            messages = [line.decode().partition(",")[2] for line in lines]
            found.append(Result(wish, record, messages))
    return found


def check_states(stack: Stack, wishes: Sequence[Wish]) -> None:
    """Each task was created once, moved along the table alone, and ended once (I1, I2)."""
    with Redis.from_url(stack.redis_url) as server:
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", server.xrange(keys.CHANGES))
    assert len(entries) < 9_000, "the stream was trimmed: it cannot tell everything"
    states: dict[str, TaskStatus] = {}
    ends: Counter[str] = Counter()
    for _, fields in entries:
        kind, task_id, _, _, state = fields[b"e"].decode().split(" ")
        new, old = TaskStatus(state), states.get(task_id)
        if kind == "created":
            assert old is None, f"{task_id} was created twice"
        else:
            assert old is not None
            assert not old.is_terminal, f"{task_id}: {kind} after {old}"
            assert _may_follow(old, new) if kind == "status" else new is old, (task_id, old, new)
            ends[task_id] += new.is_terminal
        states[task_id] = new
    asked = {task_id for wish in wishes for task_id in wish.answers}
    assert set(states) == asked, "tasks that nobody asked for"
    assert ends == Counter(dict.fromkeys(asked, 1))


def _may_follow(old: TaskStatus, new: TaskStatus) -> bool:
    """By the table, or because an attempt was given back or lost."""
    given_back = (old, new) == (TaskStatus.RUNNING, TaskStatus.PENDING)
    return given_back or new in TRANSITIONS[old]


def check_end(result: Result) -> None:
    """It ended as it was meant to: nothing is cancelled unasked or fails but by poison."""
    wish, error = result.wish, result.record["result"]["error"]
    assert result.status in TERMINAL
    assert result.status != "CANCELLED" or wish.cancel, f"{wish.nonce} was cancelled unasked"
    assert result.status != "FAILED" or "workers died" in str(error), f"{wish.nonce}: {error}"


def check_log(result: Result, lines: int | None) -> None:
    """The log tells each attempt in order, whole up to where it ended (I2, I4). `lines` is how many
    numbered ones the attempt that completed has written."""
    attempts: dict[int, list[int]] = {}
    epoch = 0
    for message in result.messages:
        if started := _STARTED.fullmatch(message):
            assert int(started[1]) > epoch, f"{result.wish.nonce}: epochs go back"
            epoch = int(started[1])
            attempts[epoch] = []
        elif counted := _COUNTED.fullmatch(message):
            attempts[epoch].append(int(counted[1]))
    assert epoch in {0, result.record["epoch"]}
    # Twice at most: what a frozen server has in its buffer it does after it was given up and
    # repeated, and a state that is there already may add its line.
    assert result.messages.count("Dispatching to scheduler") <= 2
    for numbers in attempts.values():
        assert numbers == list(range(len(numbers))), f"{result.wish.nonce}: lines are missing"
    if lines is not None and result.status == "COMPLETED":
        assert len(attempts[epoch]) == lines, f"{result.wish.nonce}: the last lines are missing"


def check_steps(result: Result, file: Path) -> None:
    """Beside a newer attempt a stale one did at most the one step that it had begun (I3)."""
    newest = 0
    stale: defaultdict[int, int] = defaultdict(int)
    for line in file.read_text().splitlines() if file.exists() else ():
        epoch = int(line.split()[0])
        stale[epoch] += epoch < newest
        newest = max(newest, epoch)
    assert all(count <= 1 for count in stale.values()), f"{result.wish.nonce}: {dict(stale)}"


def leftovers(stack: Stack) -> dict[str, Any]:
    """What is under way in the store or the engine: in the end nothing, no unfinished task either.

    Calls that a dead worker held stay with the engine until it delivers them again, after two
    minutes, to nobody's effect: they are not counted.
    """
    left: dict[str, Any] = {}
    with Redis.from_url(stack.redis_url) as server:
        waiting = (keys.LEASES, keys.QUEUED, keys.DELAYED, keys.due("dispatch"))
        for key in (*waiting, f"{DOCKET_NAME}:queue"):
            left[key] = server.zrange(key, 0, -1)
        for key in (keys.WAITING, keys.DELAYS, keys.HELD, *server.keys(keys.busy("*"))):
            left[str(key)] = server.hgetall(key)
        left["lanes"] = server.keys(keys.lane("*", "*")) + server.keys(keys.ring("*"))
        for status in TaskStatus:
            if not status.is_terminal:
                left[status.value] = server.zrange(f"{keys.PREFIX}c:{status}", 0, -1)
        for group in server.xinfo_groups(keys.OUTBOX):
            left[f"outbox of {group['name']}"] = group["pending"] or group["lag"]
        left["calls not delivered"] = _undelivered(server, f"{DOCKET_NAME}:stream")
    return {name: what for name, what in left.items() if what}


def _undelivered(server: Redis, stream: str) -> int:
    """Calls that no worker was given. The engine makes its stream when the first worker comes to
    it: what was submitted before that waits in lanes."""
    if not server.exists(stream):
        return 0
    return server.xlen(stream) - sum(group["pending"] for group in server.xinfo_groups(stream))


def check_bounds(stack: Stack) -> None:
    """Memory, processes and connections stay within what is configured (I6)."""
    for name in ("frontend", "scheduler", *stack.plan.worker_names):
        part = psutil.Process(stack.pid(name))
        memory = part.memory_info().rss
        assert memory < _MOST_MEMORY, f"{name} holds {memory} bytes"
        eventually(
            lambda part=part: len(part.children(recursive=True)) <= _MOST_PROCESSES,
            _REPLACED_SECONDS,
            f"no more than {_MOST_PROCESSES} processes below {name}",
        )
    with Redis.from_url(stack.redis_url) as server:
        clients = server.info("clients")
    assert clients["connected_clients"] < _MOST_CONNECTIONS


def tree(root: Path) -> dict[str, bytes]:
    """Every file below, by its name."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
