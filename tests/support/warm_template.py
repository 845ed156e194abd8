"""The process that `tests.support.warm` forks commands from; its argument is its socket's number.

It imports what most commands of `dms-frontend` need, once, and waits. Each request makes a child of
it, which becomes that command. It ends with its socket, and its children end with it.
"""

import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_MAX_REQUEST = 1 << 20
_DESCRIPTORS = 4  # of a request: the three standard streams, and the socket for the answers


def main() -> None:
    """Serve; what comes after that is a forked child alone, as the command that was asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a test interrupts its command, not this
    _rehearse()
    gc.collect()
    gc.freeze()  # so that a child's collections leave the shared pages alone
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        requests.set_inheritable(False)
        if not _serve(requests):
            return
    from cli.entry import main as entry

    entry()


def _rehearse() -> None:
    """Run a command that finds nobody, which imports what commands import late."""
    from cli.main import run

    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        run(["tasks", "users", "--help"])
        run(["tasks", "users", "--service", "sync", "--api-base", "http://127.0.0.1:1/api/v1"])


def _serve(requests: socket.socket) -> bool:
    """Start what is asked for, tell of its end. True in a child, False once nobody can ask."""
    with selectors.DefaultSelector() as ready:
        ready.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.data is not None:
                    ready.unregister(key.fd)
                    _tell_end(key.fd, *key.data)
                    continue
                message, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST, _DESCRIPTORS)
                if not message:
                    return False
                if not (pid := os.fork()):
                    _become(json.loads(message), descriptors)
                    return True
                *streams, answers = descriptors
                for descriptor in streams:
                    os.close(descriptor)
                with suppress(BrokenPipeError):  # the asker was interrupted
                    os.write(answers, str(pid).encode())
                ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers))


def _tell_end(ended: int, pid: int, answers: int) -> None:
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(answers, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(answers)
    os.close(ended)


def _become(request: Mapping[str, Any], descriptors: list[int]) -> None:
    """Make this child what a process is that was started with these arguments."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number, descriptor in enumerate(descriptors[:-1]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    sys.argv = ["dms-frontend", *request["arguments"]]


if __name__ == "__main__":
    main()
