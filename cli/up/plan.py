"""What `up` is going to run and where: the checked paths, the ports, and each part's command."""

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.embedded import EmbeddedServer
from cli.errors import ExitCode, UpError
from cli.up.part import PartSpec
from cli.up.witness import witness_file

LOOPBACK = "127.0.0.1"
SERVER, FRONTEND, SCHEDULER, WORKER = "server", "frontend", "scheduler", "worker"


@dataclass(frozen=True)
class Plan:
    """Everything that `up` decided before it started anything."""

    data_dir: Path
    log_dir: Path
    roots: Sequence[Path]
    port: int
    scheduler_port: int
    workers: int
    server: EmbeddedServer
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """The frontend's address without the API's prefix."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def scheduler_address(self) -> str:
        """The scheduler service's address."""
        return f"http://{LOOPBACK}:{self.scheduler_port}"

    @property
    def worker_names(self) -> list[str]:
        """`worker`, then `worker-2` and so on."""
        return [WORKER, *(f"{WORKER}-{n}" for n in range(2, self.workers + 1))]

    def part(self, name: str, lifeline: int) -> PartSpec:
        """How the part of this name is started, the server aside."""
        port = {FRONTEND: self.port, SCHEDULER: self.scheduler_port}.get(name)
        at = [] if port is None else ["--host", LOOPBACK, "--port", str(port)]
        command = {FRONTEND: "serve"}.get(name, name.partition("-")[0])
        return PartSpec(
            name=name,
            # -P: nothing in the folder where `up` was started may stand in for a library.
            command=[sys.executable, "-P", "-m", "cli.entry", command, *at],
            environment=self.environment,
            log=self.log_dir / f"{name}.log",
            cwd=Path.cwd(),
            lifeline=lifeline,
        )

    def server_part(self, lifeline: int, lock: int) -> PartSpec:
        """How the server is started; it holds the inherited lock as long as it lives."""
        return PartSpec(
            name=SERVER,
            command=self.server.command(),
            environment=self.environment,
            log=self.log_dir / f"{SERVER}.log",
            cwd=self.data_dir,
            lifeline=lifeline,
            is_server=True,
            inherited=(lock,),
        )


def parts_environment(
    server: EmbeddedServer,
    *,
    port: int,
    scheduler_port: int,
    roots: Sequence[Path],
    token: str,
    base: Mapping[str, str],
) -> dict[str, str]:
    """The environment of all parts: the caller's own, and where the parts of this machine are."""
    return {
        "DMS_LOG_JSON": "false",  # a person reads these logs
        **base,
        "PYTHONUNBUFFERED": "1",
        "DMS_REDIS_WRITE_URL": server.url,
        "DMS_REDIS_READ_URL": server.url,
        "DMS_SCHEDULER_BASE_URL": f"http://{LOOPBACK}:{scheduler_port}",
        "DMS_SCHEDULER_TASK_ENDPOINT": "/task",
        "DMS_SCHEDULER_CANCEL_ENDPOINT": "/cancel",
        "DMS_SCHEDULER_HOST": LOOPBACK,
        "DMS_SCHEDULER_PORT": str(scheduler_port),
        "DMS_CLI_DEFAULT_HOST": LOOPBACK,
        "DMS_CLI_DEFAULT_PORT": str(port),
        "DMS_CLI_RELOAD": "false",
        "DMS_OPERATOR_TOKEN": token,
        # Never the caller's own: that is of another store.
        "DMS_WITNESS_FILE": str(witness_file(server.data_dir)),
        "DMS_DATA_ROOTS": os.pathsep.join(str(root) for root in roots),
    }


class Reservation:
    """A port on loopback that nobody else gets: bound, but not listening.

    The part that listens there binds it too, as Linux lets it with SO_REUSEADDR. Between two
    starts of that part a connection is refused, as it is where no `up` is at work.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((LOOPBACK, port))
        except OSError as error:
            self._socket.close()
            raise UpError(
                f"port {port} on {LOOPBACK} cannot be used: {error.strerror}",
                "stop what listens there, or name another port: --port 8001 (0 = any free one)",
            ) from error
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """`$XDG_DATA_HOME/dms`, or `~/.local/share/dms`."""
    base = environment.get("XDG_DATA_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local/share") / "dms"


def private_folder(path: Path) -> Path:
    """The absolute path of a folder that only its owner may read; made when it is missing."""
    try:
        path = path.expanduser().resolve()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise UpError(
            f"the folder {path} cannot be used: {error.strerror}", "name another: --data-dir"
        ) from error
    return path


def checked_roots(roots: Sequence[Path], data_dir: Path) -> list[Path]:
    """The folders that tasks may touch, absolute; refuses those that hold too much."""
    home = Path.home().resolve()
    checked: list[Path] = []
    for root in roots:
        path = root.expanduser().resolve()
        if not path.is_dir():
            raise _bad_root(f"{path} is not a folder")
        if home.is_relative_to(path):
            raise _bad_root(f"{path} holds your whole home directory")
        if data_dir.is_relative_to(path) or path.is_relative_to(data_dir):
            raise _bad_root(f"{path} and DMS's own data in {data_dir} lie within each other")
        if os.pathsep in str(path):
            raise _bad_root(f"{path} holds a {os.pathsep!r}, which separates roots")
        checked.append(path)
    return list(dict.fromkeys(checked))


def _bad_root(cause: str) -> UpError:
    return UpError(
        f"{cause}: tasks could overwrite it",
        "start `up` in the folder that tasks may touch, or name it: --root /path/to/data",
        ExitCode.USAGE,
    )


def operator_token(data_dir: Path, environment: Mapping[str, str]) -> str:
    """The caller's own token, else one made once for this data directory (mode 0600)."""
    own = environment.get("DMS_OPERATOR_TOKEN", "")
    if own not in {"", "changeme"}:
        return own
    path = token_file(data_dir)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    token = path.read_text().strip()
    if not token:
        raise UpError(f"{path} is empty", "remove it, and a new token will be made")
    return token


def token_file(data_dir: Path) -> Path:
    """Where the operator token of a data directory stands."""
    return data_dir / "operator-token"


def demo_folder(data_dir: Path) -> Path:
    """A root of its own with a few small files, so that the first command to try always works."""
    demo = data_dir / "demo"
    source = demo / "from"
    (source / "more").mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("hello.txt", "DMS moved this file.\n"),
        ("more/안녕하세요.txt", "이름도 내용도 그대로 옮겨집니다.\n"),
    ):
        (source / name).write_text(text, encoding="utf-8")
    return demo
