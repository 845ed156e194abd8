"""Task handlers that misbehave as badly as they can: workers must outlive each of them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Never

from app.tasks import Task, checkpoint, current_control, define_task, log, progress
from dms_scheduler.children import protocol

_KEEPS_ON_TERM = "keep"


def daemonize(folder: Path, name: str, on_term: str) -> int:
    """Start a daemon as the textbook says: fork, setsid, fork. Its process id."""
    pipe, told = os.pipe()
    middle = os.fork()
    if middle != 0:
        os.close(told)
        os.waitpid(middle, 0)
        pid = int(os.read(pipe, 32))
        os.close(pipe)
        return pid
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    return _live_on(folder, name, on_term, told)


def _live_on(folder: Path, name: str, on_term: str, told: int) -> Never:
    """What the daemon does: it waits, and notes a SIGTERM."""

    def on_signal(_number: int, _frame: object) -> None:
        (folder / f"{name}.term").touch()
        if on_term != _KEEPS_ON_TERM:
            os._exit(0)

    signal.signal(signal.SIGTERM, on_signal)
    os.write(told, str(os.getpid()).encode())
    while True:
        time.sleep(600)


def leave_daemon(task: Task[dict[str, Any]]) -> dict[str, Any]:
    """Starts a daemon, then ends as it is told."""
    folder = Path(task.payload["folder"])
    pid = daemonize(folder, "daemon", task.payload.get("on_term", "leave"))
    (folder / "daemon.part").write_text(str(pid))
    (folder / "daemon.part").rename(folder / "daemon.pid")
    match task.payload.get("then", "return"):
        case "raise":
            raise ValueError("boom")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(0)
        case "check":
            while True:
                current_control().check()
                time.sleep(0.02)
        case "hang":
            while True:
                time.sleep(600)
        case _:
            pass
    return {"daemon": pid, "keeper": os.getppid()}


def hop(task: Task[dict[str, Any]]) -> None:
    """Starts a process that forks and leaves, again and again, each time in a new session."""
    folder = Path(task.payload["folder"])
    if os.fork() == 0:
        hops = 0
        while hops < 100_000:  # it ends by itself if nothing else ends it
            if os.fork() != 0:
                os._exit(0)
            os.setsid()
            hops += 1
            (folder / "hops").write_text(str(hops))
            time.sleep(0.002)
        os._exit(0)
    os.wait()
    while True:
        time.sleep(600)


def orphans(task: Task[dict[str, Any]]) -> None:
    """Makes orphans that end at once, and goes on: somebody has to bury them."""
    for _ in range(int(task.payload["count"])):
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(middle, 0)
    (Path(task.payload["folder"]) / "keeper.pid").write_text(str(os.getppid()))
    while True:
        current_control().check()
        time.sleep(0.02)


def raise_as_told(task: Task[dict[str, Any]]) -> Any:
    """Raises what handlers rarely raise."""
    match task.payload["what"]:
        case "SystemExit":
            raise SystemExit(3)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt
        case "GeneratorExit":
            raise GeneratorExit
        case "StopIteration":
            raise StopIteration(5)
        case "no words":
            raise Unspeakable
        case "worse than no words":
            raise Unprintable
        case "CancelledError":
            raise asyncio.CancelledError
        case "recursion":
            return raise_as_told(task)
        case "a long chain":
            return _chain(2000)
        case other:
            raise ValueError(other)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)


def _chain(links: int) -> None:
    error: Exception | None = None
    for number in range(links):
        made = ValueError(f"link {number}")
        made.__cause__ = error
        error = made
    assert error is not None
    raise error


async def raise_in_the_loop(task: Task[dict[str, Any]]) -> Any:
    await asyncio.sleep(0)
    return raise_as_told(task)


def return_as_told(task: Task[dict[str, Any]]) -> Any:
    """Returns what is no JSON, in many ways."""
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return {
        "NaN": float("nan"),
        "recursive": endless,
        "deep": deep,
        "bytes": b"\xff\xfe",
        "huge": "x" * (9 * 1024 * 1024),
        "socket": socket.socket(),
    }[task.payload["what"]]


def _channel() -> int:
    """The descriptor of the channel to the worker, found as a careless program would find it."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                return int(name)
    raise LookupError("no channel")


def close_all(task: Task[dict[str, Any]]) -> str:
    """Closes every descriptor that is not its own, as daemons are told to do."""
    os.closerange(3, 256)
    if task.payload.get("then") == "open":
        for number in range(20):
            os.open(Path(task.payload["folder"]) / f"mine.{number}", os.O_CREAT | os.O_RDWR)
    log("nobody hears this")
    return "done"


def speak_nonsense(task: Task[dict[str, Any]]) -> str:
    """Writes to the channel what it should not."""
    frames: dict[str, bytes] = {
        "text": b"hello, is this the log?\n" * 3,
        "zeros": b"\0" * 64,
        "short": struct.pack(">I", 1_000_000),
        "a wrong end": protocol.encode({"kind": "end", "outcome": {"kind": "failure", "error": 5}}),
        "progress of numbers": protocol.encode({"kind": "progress", "values": 5, "advanced": True}),
    }
    os.write(_channel(), frames[task.payload["what"]])
    time.sleep(float(task.payload.get("seconds", 0)))
    return "spoken"


def fork_and_speak(task: Task[dict[str, Any]]) -> str:
    """Its forks log and show progress too, as those of multiprocessing do."""
    forks: list[int] = []
    for number in range(4):
        forked = os.fork()
        if forked == 0:
            for line in range(50):
                log(f"fork {number} line {line}")
            progress({"fork": number})
            os._exit(0)
        forks.append(forked)
    for forked in forks:
        os.waitpid(forked, 0)
    return "spoken"


def show_much(task: Task[dict[str, Any]]) -> str:
    """Progress of the size that it is told, between two of a modest one."""
    progress({"phase": "before"})
    for _ in range(3):
        progress({"blob": "가" * int(task.payload["characters"])}, advanced=True)
    log("shown")
    return "done"


def log_a_novel(task: Task[dict[str, Any]]) -> str:
    log("x" * 40_000_000)
    return "done"


def save_at_the_edge(task: Task[dict[str, Any]]) -> Any:
    """Saves a checkpoint of exactly so many bytes of JSON, in letters of three bytes each."""
    if task.epoch > 1:
        return checkpoint()
    size = int(task.payload["bytes"]) - 2
    checkpoint("가" * (size // 3) + "x" * (size % 3))
    raise ValueError("again")


def save_from_threads(task: Task[dict[str, Any]]) -> Any:
    """Eight threads save at once; what is read last is what the next attempt must find."""
    if task.epoch > 1:
        return {"found": checkpoint()}
    control = current_control()

    def save(mine: int) -> None:
        for number in range(50):
            control.checkpoint([mine, number])

    threads = [threading.Thread(target=save, args=(each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    raise ValueError(json.dumps(control.checkpoint()))


def leak_threads(task: Task[dict[str, Any]]) -> int:
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()


async def swallow_cancel(task: Task[dict[str, Any]]) -> str:
    """Does not let itself be cancelled, until a file says so."""
    folder = Path(task.payload["folder"])
    (folder / "started").touch()
    while not (folder / "enough").exists():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)
    return "ended by itself"


_ONCE: dict[str, Any] = {"max_attempts": 1}
_TWICE: dict[str, Any] = {"max_attempts": 2, "retry": "fixed", "retry_delay_seconds": 0.05}
define_task("a.daemon", leave_daemon, _ONCE)
define_task("a.hop", hop, _ONCE)
define_task("a.orphans", orphans, _ONCE)
define_task("a.raise", raise_as_told, _ONCE)
define_task("a.raise-inline", raise_as_told, {**_ONCE, "isolation": "inline"})
define_task("a.raise-in-the-loop", raise_in_the_loop, _ONCE)
define_task("a.return", return_as_told)
define_task("a.return-inline", return_as_told, {"isolation": "inline"})
define_task("a.close-all", close_all, _ONCE)
define_task("a.nonsense", speak_nonsense, _ONCE)
define_task("a.fork-and-speak", fork_and_speak, _ONCE)
define_task("a.show-much", show_much, _ONCE)
define_task("a.show-much-inline", show_much, {**_ONCE, "isolation": "inline"})
define_task("a.novel", log_a_novel, _ONCE)
define_task("a.novel-inline", log_a_novel, {**_ONCE, "isolation": "inline"})
define_task("a.edge", save_at_the_edge, _TWICE)
define_task("a.edge-inline", save_at_the_edge, {**_TWICE, "isolation": "inline"})
define_task("a.save-threads", save_from_threads, _TWICE)
define_task("a.save-threads-inline", save_from_threads, {**_TWICE, "isolation": "inline"})
define_task("a.threads", leak_threads)
define_task("a.swallow", swallow_cancel, _ONCE)
define_task("a.swallow-in-child", swallow_cancel, {**_ONCE, "isolation": "process"})
define_task("a.slow-retry", raise_as_told, {"max_attempts": 3, "retry_delay_seconds": 3600})
define_task("a.hang", leave_daemon, {**_ONCE, "timeout_seconds": 0.3})
