"""Task handlers that tests run in real workers: each does one thing, well or badly."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from app.tasks import (
    PermanentFailure,
    RetryLater,
    Task,
    TaskOptions,
    TasksError,
    cancelled,
    checkpoint,
    current_control,
    define_task,
    log,
    progress,
)


class Numbers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    first: int
    second: int = 2


def add(task: Task[Numbers]) -> dict[str, Any]:
    """A sync handler: runs in a child."""
    log(f"adding in process {os.getpid()}")
    progress({"phase": "add", "done": 1}, advanced=True)
    return {"sum": task.payload.first + task.payload.second, "pid": os.getpid()}


async def add_inline(task: Task[Numbers]) -> dict[str, Any]:
    """An async handler: runs in the worker."""
    log("adding inline")
    await asyncio.sleep(0)
    return {"sum": task.payload.first + task.payload.second, "pid": os.getpid()}


async def add_async_in_child(task: Task[Numbers]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"sum": task.payload.first + task.payload.second, "pid": os.getpid()}


def fail(task: Task[dict[str, Any]]) -> None:
    raise ValueError(f"the password {task.payload.get('password')} was wrong")


def fail_until(task: Task[dict[str, Any]]) -> dict[str, Any]:
    """Succeeds in the attempt that the parameter names."""
    if task.attempts < int(task.payload["attempt"]):
        raise RetryLater("not yet", delay_seconds=0.05)
    return {"attempts": task.attempts, "epoch": task.epoch}


def fail_for_good(task: Task[dict[str, Any]]) -> None:
    raise PermanentFailure("nothing to be done", data={"paths": ["a", "b"]})


def answer_failure(task: Task[dict[str, Any]]) -> dict[str, Any]:
    return {"status": "failure", "message": "it is full", "data": {"left": 0}}


def no_json(task: Task[dict[str, Any]]) -> object:
    return object()


def polite(task: Task[dict[str, Any]]) -> None:
    """Runs until it is told to stop, and leaves a note that it cleaned up."""
    _mark(task, "started")
    control = current_control()
    try:
        while True:
            control.check()
            progress({"at": time.monotonic()}, advanced=True)
            time.sleep(0.02)
    finally:
        _mark(task, "cleaned")


async def polite_inline(task: Task[dict[str, Any]]) -> None:
    _mark(task, "started")
    try:
        await asyncio.Event().wait()
    finally:
        _mark(task, "cleaned")


def stubborn(task: Task[dict[str, Any]]) -> None:
    """Ignores every request to stop, and so does the process that it starts."""
    code = "import signal,time\nsignal.signal(15,signal.SIG_IGN)\nwhile 1: time.sleep(1)"
    grandchild = subprocess.Popen([sys.executable, "-S", "-c", code])
    _mark(task, "grandchild", str(grandchild.pid))
    while True:
        time.sleep(1)


def until_file(task: Task[dict[str, Any]]) -> dict[str, Any]:
    """Waits for a file, checking as a mover does; tells who ran it."""
    _mark(task, "started", str(os.getpid()))
    control = current_control()
    wanted = Path(task.payload["file"])
    while not wanted.exists():
        control.check()
        time.sleep(0.02)
    control.check()
    return {"epoch": task.epoch, "attempts": task.attempts, "pid": os.getpid()}


def steps(task: Task[dict[str, Any]]) -> dict[str, Any]:
    """Writes a numbered line to a file a step, each only after a check, as a mover renames."""
    control = current_control()
    target = Path(task.payload["file"])
    _mark(task, "started", str(os.getpid()))
    count = int(task.payload["count"])
    try:
        for number in range(count):
            control.check()
            with target.open("a") as out:
                out.write(f"{task.epoch} {number}\n")
            log(f"step {number}")
            time.sleep(0.05)
    finally:
        _mark(task, "ended")
    return {"steps": count, "epoch": task.epoch}


def deaf(task: Task[dict[str, Any]]) -> None:
    """Sleeps, and hears nothing."""
    _mark(task, "started", str(os.getpid()))
    time.sleep(3600)


def die(task: Task[dict[str, Any]]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(task: Task[dict[str, Any]]) -> None:
    os._exit(7)


def _worker() -> int:
    """The worker is the parent of this child's keeper."""
    status = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2]
    return int(status.split()[1])


def kill_worker(task: Task[dict[str, Any]]) -> None:
    """Poison: takes its worker with it."""
    os.kill(_worker(), signal.SIGKILL)
    time.sleep(60)


def print_much(task: Task[dict[str, Any]]) -> int:
    """Prints the number of bytes that it is told."""
    left = int(task.payload["bytes"])
    line = b"x" * 65_535 + b"\n"
    while left > 0:
        left -= os.write(1, line[: min(left, len(line))])
    return int(task.payload["bytes"])


def log_much(task: Task[dict[str, Any]]) -> int:
    for number in range(int(task.payload["lines"])):
        log(f"line {number}")
    return int(task.payload["lines"])


def eat_memory(task: Task[dict[str, Any]]) -> None:
    hoard: list[bytearray] = []
    while True:
        hoard.append(bytearray(16 * 1024 * 1024))


def odd_bytes(task: Task[dict[str, Any]]) -> dict[str, Any]:
    """Names that are no UTF-8 and words that are no ASCII must get through everywhere."""
    name = os.fsdecode(b"\xff\xfe")
    log(f"파일 {name}")
    progress({"current": name})
    os.write(1, "출력 ".encode() + b"\xff\n")
    return {"name": name, "korean": "데이터"}


def answer_success(task: Task[dict[str, Any]]) -> dict[str, Any]:
    return {"status": "success", "message": "all is well", "data": {"rows": 3}}


def answer_as_told(task: Task[dict[str, Any]]) -> Any:
    return task.payload["answer"]


def later(task: Task[dict[str, Any]]) -> int:
    """Wants a delay of its own, once."""
    if task.attempts == 1:
        raise RetryLater("busy", delay_seconds=float(task.payload["delay"]))
    return task.attempts


def wait_uncounted(task: Task[dict[str, Any]]) -> list[int]:
    """Waits as often as the parameter says, and asks to be called again at once."""
    if task.epoch <= int(task.payload["times"]):
        raise RetryLater("another is at work", delay_seconds=0, counted=False)
    return [task.epoch, task.attempts]


def until_cancelled(task: Task[dict[str, Any]]) -> None:
    """Looks whether it should end, and ends like a success."""
    _mark(task, "started")
    while not cancelled():
        time.sleep(0.02)


def resume(task: Task[dict[str, Any]]) -> Any:
    """Saves a hundred checkpoints in its first attempt, which then ends as it is told."""
    if task.epoch > 1:
        return {"resumed": checkpoint(), "epoch": task.epoch}
    assert checkpoint() is None
    for number in range(1, 101):
        assert checkpoint({"done": number, "이름": (1,)}) == {"done": number, "이름": [1]}
    _mark(task, "started")
    match task.payload["then"]:
        case "raise":
            raise ValueError("boom")
        case "return":
            return checkpoint()
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            pass
    return polite(task)


def resume_in_threads(task: Task[dict[str, Any]]) -> Any:
    """Saves from a thread of its own, by the control that it was given."""
    if task.epoch > 1:
        return {"resumed": checkpoint(), "epoch": task.epoch}
    thread = threading.Thread(target=current_control().checkpoint, args=({"done": 100},))
    thread.start()
    thread.join()
    raise ValueError("boom")


async def resume_async(task: Task[dict[str, Any]]) -> Any:
    if task.epoch > 1:
        return {"resumed": checkpoint(), "epoch": task.epoch}
    for number in range(1, 101):
        checkpoint({"done": number})
    await asyncio.sleep(0)
    raise ValueError("boom")


def save_late(task: Task[dict[str, Any]]) -> Any:
    """Saves only when a file is there, then hears nothing more."""
    if task.epoch > 1:
        return checkpoint()
    _mark(task, "started")
    while not (Path(task.payload["folder"]) / "go").exists():
        time.sleep(0.02)
    checkpoint("said in the dark")
    _mark(task, "saved", str(os.getpid()))
    time.sleep(3600)
    return None


def save_without_end(task: Task[dict[str, Any]]) -> None:
    """Saves and saves; a file says how many it has said. Its worker must hear them all."""
    log("begun")
    number = 0
    while True:
        number += 1
        checkpoint([number, "x" * 20_000])
        _mark(task, "said", str(number))


def escape(task: Task[dict[str, Any]]) -> None:
    """Leaves its process group by a fork that keeps everything open."""
    checkpoint("before the escape")
    escaped = os.fork()
    if escaped == 0:
        os.setsid()
        time.sleep(600)
        os._exit(0)
    _mark(task, "escaped", str(escaped))
    time.sleep(600)


def fork_and_leave(task: Task[dict[str, Any]]) -> str:
    """Its fork ends before it, in one of the ways that do not end a process at once."""
    forked = os.fork()
    if forked == 0:
        if task.payload["how"] == "return":
            return "the fork's answer"
        if task.payload["how"] == "exit":
            sys.exit(0)
        raise ValueError("the fork's error")
    os.waitpid(forked, 0)
    return "the answer"


def close_streams(task: Task[dict[str, Any]]) -> str:
    sys.stdout.close()
    sys.stderr.close()
    return "closed"


async def end_the_loop(task: Task[dict[str, Any]]) -> None:
    """Tries to take its worker with it, from a task beside its own."""

    async def leave() -> None:
        sys.exit(9)

    if task.payload["how"] == "stop":
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
    await asyncio.gather(leave())


def show_nonsense(task: Task[dict[str, Any]]) -> list[str]:
    told: list[str] = []
    for nonsense in (5, None, [("phase", 1)], {"done": float("nan")}, {"done": object()}):
        try:
            progress(cast("Any", nonsense))
        except TasksError as error:
            told.append(str(error))
    return told


def save_too_much(task: Task[dict[str, Any]]) -> None:
    checkpoint("x" * 70_000)


def litter(task: Task[dict[str, Any]]) -> int:
    """Leaves a process behind."""
    return subprocess.Popen(["sleep", "600"]).pid


def _mark(task: Task[dict[str, Any]], name: str, text: str = "") -> None:
    folder = task.payload.get("folder")
    if folder is not None:
        path = Path(folder) / f"{name}.{task.epoch}"
        path.with_suffix(".part").write_text(text)
        path.with_suffix(".part").rename(path)


_TYPED = TaskOptions(payload=Numbers, max_attempts=3)
define_task("t.add", add, _TYPED)
define_task("t.add-inline", add_inline, _TYPED)
define_task(
    "t.add-async-child", add_async_in_child, TaskOptions(payload=Numbers, isolation="process")
)
define_task("t.fail", fail, {"max_attempts": 2, "retry": "fixed", "retry_delay_seconds": 0.05})
define_task("t.fail-until", fail_until, {"max_attempts": 3})
define_task("t.fail-for-good", fail_for_good)
define_task("t.answer-failure", answer_failure)
define_task("t.no-json", no_json)
define_task("t.polite", polite)
define_task("t.polite-inline", polite_inline)
define_task("t.stubborn", stubborn)
define_task("t.timeout", polite, {"timeout_seconds": 0.3, "max_attempts": 1})
define_task("t.until-file", until_file)
define_task("t.steps", steps)
define_task("t.deaf", deaf)
define_task("t.die", die, {"max_attempts": 1})
define_task("t.leave", leave, {"max_attempts": 1})
define_task("t.kill-worker", kill_worker)
define_task("t.print", print_much)
define_task("t.log", log_much)
define_task("t.memory", eat_memory, {"max_attempts": 1})
define_task("t.odd", odd_bytes)
define_task("t.litter", litter)


class Rows(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rows: int


def both(name: str, function: Callable[[Task[Any, Any]], Any], **options: Any) -> None:
    """One handler under two names: in a child process, and in a thread of the worker."""
    define_task(name, function, {**options, "isolation": "process"})
    define_task(f"{name}-inline", function, {**options, "isolation": "inline"})


_SOON: dict[str, Any] = {"retry": "fixed", "retry_delay_seconds": 0.05}
both("e.fail", fail, max_attempts=2, **_SOON)
both("e.timeout", polite, timeout_seconds=0.3, max_attempts=2, **_SOON)
both("e.answer-success", answer_success)
both("e.answer-failure", answer_failure)
both("e.typed", answer_as_told, result=Rows)
both("e.no-json", no_json)
both("e.later", later, retry_delay_seconds=3600)
both("e.wait", wait_uncounted, max_attempts=1)
both("e.permanent", fail_for_good)
both("e.add", add, payload=Numbers)
both("e.polite", polite)
both("e.until-cancelled", until_cancelled)
both("e.resume", resume, **_SOON)
both("e.resume-threads", resume_in_threads, **_SOON)
both("e.resume-async", resume_async, **_SOON)
both("e.show-nonsense", show_nonsense)
define_task("e.end-the-loop", end_the_loop, {"max_attempts": 1})
define_task("t.fork", fork_and_leave, {"max_attempts": 1})
define_task("t.close-streams", close_streams, {"max_attempts": 1})
both("e.save-too-much", save_too_much, max_attempts=1)
define_task("e.resume-timeout", resume, {**_SOON, "timeout_seconds": 1.5})
define_task("e.save-without-end", save_without_end)
define_task("e.escape", escape)
define_task("e.save-late", save_late, _SOON)
define_task("t.first", add, TaskOptions(payload=Numbers, priority=10))
define_task("t.two-at-once", until_file, TaskOptions(concurrency_limit=2))
define_task("t.one-a-user", until_file, TaskOptions(per_user_limit=1))
