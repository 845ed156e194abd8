"""A Valkey server of a benchmark's own, without persistence, on loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from cli.embedded import server_binary
from cli.up import launch


@contextlib.contextmanager
def valkey() -> Generator[str]:
    """A running server's URL; it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory(prefix="dms-bench-") as folder:
        tie = [sys.executable, "-I", "-S", launch.__file__, "--signal", str(signal.SIGKILL.value)]
        command = [*tie, "--parent", str(os.getpid()), "--", str(server_binary()), *options]
        process = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            url = f"redis://127.0.0.1:{port}/0"
            _wait(url, process)
            yield url
        finally:
            process.kill()
            process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    with Redis.from_url(url) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(RedisError):
                client.ping()
                return
            time.sleep(0.02)
    raise SystemExit("the benchmark's server did not start")


class ServerCpu:
    """CPU microseconds that the server spends on a command, by its own statistics."""

    def __init__(self, url: str) -> None:
        self._client = Redis.from_url(url)

    def take(self, command: str) -> tuple[int, float]:
        """Calls of the command and the microseconds that they took, since the server began."""
        stats = cast("dict[str, dict[str, float]]", self._client.info("commandstats"))
        found = stats.get(f"cmdstat_{command}", {"calls": 0, "usec": 0})
        return int(found["calls"]), float(found["usec"])

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
