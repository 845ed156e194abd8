"""Real servers for tests of remotes: `rclone serve` on loopback, each a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dms_scheduler.movers.rclone import confine

LAUNCHER = Path(confine.__file__).resolve()
RCLONE = Path(sys.executable).parent / "rclone"
KEY_ID, SECRET_KEY = "AKIACANARYKEYID", "canary-secret-of-s3"
USER, PASSWORD = "kim", "canary-password"
_START_SECONDS = 60


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def obscured(password: str) -> str:
    """Return a password as config files of rclone hold it."""
    done = subprocess.run([RCLONE, "obscure", password], capture_output=True, check=True, env={})
    return done.stdout.decode().strip()


@dataclass
class Server:
    """A running server of one kind, over the directory `top`."""

    kind: str
    top: Path
    port: int
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once, if it still runs."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def serve(kind: str, top: Path, *options: str) -> Server:
    """Start a server of `kind` (s3, sftp, webdav) and wait until it answers."""
    port = free_port()
    login = (
        [f"--auth-key={KEY_ID},{SECRET_KEY}"]
        if kind == "s3"
        else [f"--user={USER}", f"--pass={PASSWORD}"]
    )
    top.mkdir(exist_ok=True)
    folder = top.with_name(f"{top.name}.server")
    folder.mkdir(exist_ok=True)
    # Tests change files behind the server's back. (Its S3 cannot do without its cache, and with a
    # time of zero its cache keeps a processor busy.)
    cache = [] if kind == "s3" else ["--dir-cache-time=50ms"]
    # It dies with this process, also when that is killed.
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), "0", ""]
    command = [*launcher, str(RCLONE), "serve", kind, f"--addr=127.0.0.1:{port}", *login, *cache]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options, "--config=", f"--cache-dir={folder}", str(top)],
            stdout=log,
            stderr=log,
            env={"HOME": str(folder), "PATH": os.environ["PATH"]},
            process_group=0,
        )
    server = Server(kind, top, port, process)
    end = time.monotonic() + _START_SECONDS
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > end:
            server.kill()
            raise AssertionError((folder / "log").read_text(errors="replace"))
        time.sleep(0.01)
    return server


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Remotes:
    """Servers and the config file that names them."""

    folder: Path
    servers: dict[str, Server] = field(default_factory=dict[str, Server])
    sections: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    @property
    def config(self) -> str:
        """Path of the config file."""
        return str(self.folder / "rclone.conf")

    def start(self, kind: str, *options: str, name: str = "") -> Server:
        """Start a server and name it in the config file, by its kind if no name is given."""
        name = name or kind
        server = serve(kind, self.folder / f"store-{name}", *options)
        self.servers[name] = server
        self.add(name, **section(kind, server.port))
        return server

    def add(self, name: str, **options: str) -> None:
        """Name a remote in the config file."""
        self.sections[name] = options
        self.write()

    def write(self) -> None:
        """Write the config file."""
        lines: list[str] = []
        for name, options in self.sections.items():
            lines += [f"[{name}]", *(f"{key} = {value}" for key, value in options.items()), ""]
        Path(self.config).write_text("\n".join(lines))
        Path(self.config).chmod(0o600)


def section(
    kind: str, port: int, *, secret: str = SECRET_KEY, password: str = PASSWORD
) -> dict[str, str]:
    """Return the section of a config file for a server of `kind`."""
    if kind == "s3":
        return {
            "type": "s3",
            "provider": "Rclone",
            "endpoint": f"http://127.0.0.1:{port}",
            "access_key_id": KEY_ID,
            "secret_access_key": secret,
        }
    login = {"user": USER, "pass": obscured(password)}
    if kind == "sftp":
        return {"type": "sftp", "host": "127.0.0.1", "port": str(port), **login}
    url = f"http://127.0.0.1:{port}"
    return {"type": "webdav", "url": url, "vendor": "other", "pacer_min_sleep": "1ms", **login}


@contextmanager
def remotes(folder: Path) -> Generator[Remotes]:
    """Yield a config file without remotes; all servers that are started end with it."""
    found = Remotes(folder)
    found.write()
    try:
        yield found
    finally:
        for server in found.servers.values():
            server.kill()
