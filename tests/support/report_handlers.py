"""Task handlers that report, show how far they are, and look at what was adjusted."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from app.tasks import (
    RetryLater,
    Task,
    TasksError,
    adjusted,
    current_control,
    define_task,
    progress,
    report,
)


def lines(task: Task[dict[str, Any]]) -> int:
    """Reports so many lines, every tenth a failure, and ends as it is told."""
    count = int(task.payload["lines"])
    for number in range(count):
        failed = number % 10 == 9
        report({"action": "failed" if failed else "copy", "path": f"파일-{number}", "size": number})
    if task.epoch > 1:
        return count
    match task.payload.get("then"):
        case "raise":
            raise ValueError("boom")
        case "wait":
            _wait_for(Path(task.payload["file"]))
        case _:
            pass
    return count


async def lines_async(task: Task[dict[str, Any]]) -> int:
    await asyncio.sleep(0)
    return lines(task)


def lines_of_threads(task: Task[dict[str, Any]]) -> int:
    """The same from four threads at once."""
    control = current_control()

    def some(name: int) -> None:
        for number in range(int(task.payload["lines"])):
            control.report({"action": "copy", "path": f"{name}/{number}"})

    threads = [threading.Thread(target=some, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 4 * int(task.payload["lines"])


def odd_lines(task: Task[dict[str, Any]]) -> list[str]:
    """What a report must take, and what it must refuse."""
    report({"path": os.fsdecode(b"\xff\xfe"), "size": 2**70})
    report({})
    report({"attempt": "mine", "text": "\r\n\x1b[31m"})
    refused: list[str] = []
    for nonsense in (5, None, [("a", 1)], {"a": object()}, {"a": "x" * 70_000}):
        try:
            report(cast("Any", nonsense))
        except TasksError as error:
            refused.append(str(error))
    return refused


def lines_of_a_fork(task: Task[dict[str, Any]]) -> str:
    """What waited to be sent when the handler forked is sent once, and the fork says nothing."""
    report({"path": "before"})
    forked = os.fork()
    if forked == 0:
        report({"path": "fork"})
        return "the fork's answer"
    os.waitpid(forked, 0)
    report({"path": "after"})
    return "the answer"


def late_lines(task: Task[dict[str, Any]]) -> int:
    """Reports, far more than may wait, once a file is there."""
    _wait_for(Path(task.payload["file"]))
    count = int(task.payload["lines"])
    for number in range(count):
        report({"action": "copy", "size": number, "noise": os.urandom(500).hex()})
    return count


def flow(task: Task[dict[str, Any]]) -> list[Any]:
    """Moves bytes until somebody adjusts the task; in its first attempt it fails then, if told."""
    control = current_control()
    moved = 0
    while not adjusted():
        control.check()
        moved += 1000
        progress({"bytes": moved, "files": moved // 2000}, advanced=True)
        time.sleep(0.02)
    if task.payload.get("fail") and task.epoch == 1:
        raise RetryLater("once more", delay_seconds=0)
    return [task.epoch, dict(adjusted())]


def _wait_for(path: Path) -> None:
    control = current_control()
    while not path.exists():
        control.check()
        time.sleep(0.02)


def _both(name: str, function: Callable[[Task[Any]], Any]) -> None:
    """One handler under two names: in a child process, and in a thread of the worker."""
    options: dict[str, Any] = {"retry": "fixed", "retry_delay_seconds": 0.05}
    define_task(name, function, {**options, "isolation": "process"})
    define_task(f"{name}-inline", function, {**options, "isolation": "inline"})


_both("r.lines", lines)
_both("r.async", lines_async)
_both("r.threads", lines_of_threads)
_both("r.odd", odd_lines)
_both("r.late", late_lines)
_both("r.flow", flow)
define_task("r.fork", lines_of_a_fork, {"max_attempts": 1, "isolation": "process"})
