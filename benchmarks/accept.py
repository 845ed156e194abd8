"""How many POSTs a second the frontend accepts, as a ratio to a bare route that does one SET.

Both run as one uvicorn process each, on the same server without persistence; they are measured in
turns. The scheduler is not there, so the frontend also keeps the outbox for it, as it would.
"""

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

from benchmarks.server import valkey
from benchmarks.table import print_table, verdict

CONNECTIONS, SECONDS, ROUNDS, GOAL = 16, 4.0, 5, 0.6
ROOT = Path(__file__).resolve().parents[1]
Answer = tuple[float, list[float]]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def serve(app: str, url: str, port: int) -> Generator[None]:
    """One uvicorn process that serves `app`, for the length of a block."""
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--no-access-log"]
    environment = {
        **os.environ,
        "DMS_REDIS_WRITE_URL": url,
        "DMS_REDIS_READ_URL": url,
        "DMS_SCHEDULER_BASE_URL": f"http://127.0.0.1:{_free_port()}",
        "DMS_LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT, env=environment)
    try:
        _wait(port, process)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            client.request("GET", "/healthz")
            client.getresponse().read()
            client.close()
            return
        time.sleep(0.1)
    raise SystemExit("a server of the benchmark did not start")


def load(port: int) -> Answer:
    """Accepted POSTs a second, and the sorted times of the answers in ms."""
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(CONNECTIONS), str(SECONDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer = json.loads(done.stdout)
    return answer["answers"] / answer["seconds"], answer["ms"]


def _row(name: str, answers: list[Answer]) -> list[str]:
    times = sorted(time_ms for _, times in answers for time_ms in times)
    rate = statistics.median(rate for rate, _ in answers)
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return [name, f"{rate:.0f}", f"{p50:.1f}", f"{p99:.1f}", str(len(times))]


def main() -> None:
    """Measure and print."""
    ports = _free_port(), _free_port()
    bare: list[Answer] = []
    ours: list[Answer] = []
    with (
        valkey() as url,
        serve("benchmarks.bare_app:app", url, ports[0]),
        serve("app.main:app", url, ports[1]),
    ):
        for port in ports:
            load(port)
        for _ in range(ROUNDS):
            bare.append(load(ports[0]))
            ours.append(load(ports[1]))
    ratio = statistics.median(b[0] / a[0] for a, b in zip(bare, ours, strict=True))
    head = ["route", "accepted/s", "p50 ms", "p99 ms", "answers"]
    rows = [_row("bare FastAPI, one SET", bare), _row("POST .../tasks", ours)]
    print_table(f"Accept rate, {CONNECTIONS} connections, one process each", head, rows)
    print(f"\nRatio {ratio:.2f}, goal >= {GOAL}: {verdict(ratio, GOAL, at_most=False)}.")


if __name__ == "__main__":
    main()
