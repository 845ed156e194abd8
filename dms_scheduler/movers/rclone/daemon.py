"""One rclone process for one task: its start in a sandbox, calls to it, its log, and its end.

It is driven by rclone's remote control over a unix socket in a private folder, so one process
keeps its connections over all steps of a task and its bandwidth can be changed while it runs.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from dms_scheduler.movers.errors import MoverError, Refused
from dms_scheduler.movers.rclone import confine
from dms_scheduler.movers.rclone.answers import fields
from dms_scheduler.movers.rclone.events import Event, read_line

_FOLDER_PREFIX = "dms-rclone-"
_START_SECONDS = 30.0
_CALL_SECONDS = 30.0
_TERM_SECONDS = 0.4
_PIPE_BYTES = 1 << 20
_LONGEST_LINE = 1 << 20
_SOCKET_NAME_BYTES = 100
_LAUNCHER = str(Path(confine.__file__).resolve())

# What a static program needs of the system to find hosts and check certificates.
_SYSTEM_FILES = (
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/mime.types",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/usr/share/mime",
    "/sys/kernel/mm/transparent_hugepage",
    "/dev/urandom",
)


class RcloneError(MoverError):
    """The rclone process itself failed; the message says how."""

    error_class = "rclone_failed"
    retryable = True


class CallError(Exception):
    """A call was answered with an error; the words are rclone's own."""


class Folder:
    """The private folder of one run: its config, its socket, its lists. Gone at its end.

    It is locked, so that the next run may remove it if this one is killed.
    """

    def __init__(self) -> None:
        _sweep()
        self.path = tempfile.mkdtemp(prefix=_FOLDER_PREFIX)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.path.join(self.path, name)

    def write(self, name: str, text: str) -> str:
        """Write a file that only this user can read; return its path."""
        path = self.file(name)
        with open(path, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
        return path

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sweep() -> None:
    """Remove the folders of runs that were killed: they hold secrets, and no lock any more."""
    with os.scandir(tempfile.gettempdir()) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(_FOLDER_PREFIX)]
    for path in left:
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # A folder is younger than its lock for an instant.
                old = time.time() - os.fstat(fd).st_mtime > _START_SECONDS
                if old and os.fstat(fd).st_uid == os.geteuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
            finally:
                os.close(fd)


class Daemon:
    """A running rclone. `take` gets each line of its log, in a thread of this object."""

    def __init__(self, folder: Folder, take: Callable[[Event], None]) -> None:
        self._folder = folder
        self._take = take
        self._socket = folder.file("rc")
        self._process: subprocess.Popen[bytes] | None = None
        self._pumping = threading.Lock()
        self._buffer = b""
        self._words = b""
        self._reader: threading.Thread | None = None
        self._read_end = -1
        self._failure: BaseException | None = None
        self._files: list[int] = []
        if len(os.fsencode(self._socket)) > _SOCKET_NAME_BYTES:
            message = "the folder for temporary files has too long a name; set TMPDIR to another"
            raise Refused(message, error_class="rclone_failed")

    def open_file(self, path: str) -> int:
        """Open a file that rclone will read, such as a key; raises OSError."""
        self._files.append(fd := os.open(path, os.O_PATH))
        return fd

    def start(
        self, binary: str, options: list[str], rights: Mapping[int, int], *, confined: bool
    ) -> None:
        """Start rclone with `options`; `rights` are those to open files and directories.

        Raises:
            RcloneError: it did not start.

        """
        self._read_end, write_end = os.pipe()
        with suppress(OSError):  # more than the user may have: a smaller pipe works too
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self._read_end, False)
        try:
            self._process = self._spawn(binary, options, rights, write_end, confined=confined)
        finally:
            os.close(write_end)
        self._reader = threading.Thread(target=self._read, name="rclone-log", daemon=True)
        self._reader.start()
        self._wait_ready()

    def _spawn(
        self,
        binary: str,
        options: list[str],
        rights: Mapping[int, int],
        errors: int,
        *,
        confined: bool,
    ) -> subprocess.Popen[bytes]:
        command = [binary, "rcd", f"--rc-addr=unix://{self._socket}", "--rc-no-auth", *options]
        level = confine.version() if confined else 0
        with ExitStack() as stack:
            opened = {**rights, **self._open_needs(binary, stack)}
            pairs = ",".join(f"{fd}={right}" for fd, right in opened.items())
            launcher = [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), str(level), pairs]
            return subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=self._folder.path,
                env=self._environment(),
                pass_fds=tuple(opened),
            )

    def _open_needs(self, binary: str, stack: ExitStack) -> dict[int, int]:
        """Open what rclone itself needs, until `stack` is closed; return the rights to each."""
        opened: dict[int, int] = {}
        for path, right in self._needs(binary):
            with suppress(OSError):  # not every system has all of them
                fd = os.open(path, os.O_PATH)
                stack.callback(os.close, fd)
                opened[fd] = right if os.path.isdir(path) else confine.rights_to_file(right)
        return opened

    def _needs(self, binary: str) -> list[tuple[str, int]]:
        return [
            (binary, confine.EXECUTE | confine.READ_FILE),
            (self._folder.path, confine.every_right(confine.version()) & ~confine.EXECUTE),
            ("/dev/null", confine.READ_FILE | 1 << 1),
            *((path, confine.READ) for path in _SYSTEM_FILES),
        ]

    def _environment(self) -> dict[str, str]:
        folder = self._folder.path
        return {"PATH": "/usr/bin:/bin", "TMPDIR": folder, "HOME": folder, "LC_ALL": "C.UTF-8"}

    def _wait_ready(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._ended or time.monotonic() > end:
                self.kill()
                self.drain()
                said = self._words.decode(errors="replace").strip()[-500:]
                message = f"rclone did not start: {said or 'it said nothing'}"
                raise RcloneError(message)
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            self.call("rc/noop", {})
        except (RcloneError, CallError):
            return False
        return True

    @property
    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def call(self, path: str, parameters: Mapping[str, object]) -> dict[str, object]:
        """Call a function of the remote control, one that answers at once.

        Raises:
            CallError: rclone answers with an error.
            RcloneError: rclone cannot be reached.

        """
        connection = _Connection(self._socket)
        try:
            body = json.dumps(parameters).encode()
            connection.request("POST", f"/{path}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer: object = json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            message = f"rclone does not answer ({type(error).__name__})"
            raise RcloneError(message) from error
        finally:
            connection.close()
        found = fields(answer)
        if response.status != http.HTTPStatus.OK:
            raise CallError(str(found.get("error", f"status {response.status}")))
        return found

    def drain(self) -> None:
        """Hand on all of the log that is there. Raises what `take` raised."""
        self._pump()
        if self._failure is not None:
            raise self._failure

    def _read(self) -> None:
        try:
            poll = select.poll()
            poll.register(self._read_end, select.POLLIN)
            while poll.poll() and self._pump():
                pass
        except BaseException as error:  # noqa: BLE001 - raised again by `drain`, not lost
            self._failure = error

    def _pump(self) -> bool:
        """Read what is there; return False at the end of the log."""
        with self._pumping:
            while True:
                try:
                    data = os.read(self._read_end, 1 << 16)
                except BlockingIOError:
                    return True
                if not data:
                    return False
                self._split(data)

    def _split(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[-_LONGEST_LINE:]
        for line in lines:
            event = read_line(line)
            if event is None:
                self._words = (self._words + line + b"\n")[-4096:]
            else:
                self._take(event)

    def kill(self) -> None:
        """End rclone now."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Let rclone end, or end it; no process of it is left on return."""
        while self._files:
            os.close(self._files.pop())
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            process.wait(_TERM_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join()
        os.close(self._read_end)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CALL_SECONDS)
        self.sock.connect(self._path)
