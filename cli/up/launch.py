"""Becomes a part's program, tied to the life of those who need it. Run as a script, stdlib only.

    python -I -S launch.py --parent PID --signal N -- PROGRAM ARGUMENTS...
    python -I -S launch.py --parent PID --lifeline FD -- PROGRAM ARGUMENTS...

`--signal`: the kernel sends it to the program when its parent dies, be it by SIGKILL.
`--lifeline`: the server must outlive the workers, which give their attempts back to it when the
supervisor dies. The supervisor and all other parts hold the write end of this pipe; when the last
of them has gone, a small keeper process, forked here, ends the server by SIGTERM.
"""

import argparse
import contextlib
import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Valkey syncs each write at once, so an end by force after this time loses nothing.
_SERVER_STOP_SECONDS = 60.0


def main() -> None:
    """Parse, bind, exec; exits with 127 when the program cannot be run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int)
    parser.add_argument("--lifeline", type=int)
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()
    if options.signal is not None:
        _die_with_parent(options.signal, options.parent)
    if options.lifeline is not None:
        _fork_keeper(options.lifeline)
        os.close(options.lifeline)
    try:
        os.execv(options.program[0], options.program)  # noqa: S606  (no shell is the point)
    except OSError as error:
        print(f"cannot run {options.program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def _die_with_parent(number: int, parent: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the kernel knew
        os.kill(os.getpid(), number)


def _fork_keeper(lifeline: int) -> None:
    """Fork twice: the keeper must not be a child that the server would have to wait for."""
    server = os.pidfd_open(os.getpid())
    first = os.fork()
    if first:
        os.close(server)
        os.waitpid(first, 0)
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    try:
        _keep(lifeline, server)
    finally:
        os._exit(0)


def _keep(lifeline: int, server: int) -> None:
    # The server's lock must end with the server, so all else that was inherited is closed.
    low, high = sorted((lifeline, server))
    os.closerange(0, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ended = {descriptor for descriptor, _ in _poll(lifeline, server).poll()}
    if server in ended:
        return
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(server, signal.SIGTERM)
        if not _poll(server).poll(_SERVER_STOP_SECONDS * 1000):
            signal.pidfd_send_signal(server, signal.SIGKILL)


def _poll(*descriptors: int) -> select.poll:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return poll


if __name__ == "__main__":
    main()
