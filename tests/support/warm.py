"""Processes of `dms-frontend` that begin at once: forked from one that has imported everything.

They are real processes, with streams, signals and an exit code of their own. What they spare is
the start of Python and the imports, which is nearly all that a short command costs. How a process
starts (arguments of Python, its encoding, what cannot be imported) is not to be seen by them.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Self

_TEMPLATE = Path(__file__).with_name("warm_template.py")
_ANSWER_BYTES = 32
_lock = Lock()


class Warm:
    """`with Warm(["tasks", "list"], environment, stdout, stderr) as it:` kills it at the end."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdout: IO[bytes],
        stderr: IO[bytes],
    ) -> None:
        request = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": str(Path.cwd()),
        }
        self.returncode: int | None = None
        self._answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, Path(os.devnull).open("rb") as stdin:
            streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
            with _lock:
                template = _template()
            socket.send_fds(template, [json.dumps(request).encode()], [*streams, theirs.fileno()])
        self.pid = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait(None)
        self._answers.close()

    def wait(self, seconds: float | None) -> int:
        """Its exit code, or minus the signal that killed it; TimeoutError if it goes on."""
        if self.returncode is None:
            self._answers.settimeout(seconds)
            self.returncode = self._answer()
        return self.returncode

    def _answer(self) -> int:
        answer = self._answers.recv(_ANSWER_BYTES)
        assert answer, "the process that commands are forked from has ended"
        return int(answer)


@cache
def _template() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own = {name: value for name, value in os.environ.items() if not name.startswith("DMS_")}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", str(_TEMPLATE), str(theirs.fileno())],
            env=own,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    atexit.register(process.wait)
    atexit.register(process.terminate)  # the last one registered comes first
    return ours
