"""The locks of a data directory: of the `up` that uses it, and of the server that writes it."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from cli.errors import UpError


def hold_directory(data_dir: Path) -> int:
    """Take the directory for this process, as long as the returned descriptor is open.

    Raises UpError, which says who holds it. The kernel lets go when the holder dies.
    """
    path = data_dir / "up.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise UpError(
            f"{data_dir} is in use by {holder}",
            "use that one, stop it (Ctrl-C there, or kill it by this process id), "
            "or name another folder: --data-dir",
        ) from None
    me = {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(me).encode(), 0)
    return descriptor


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, 1000, 0))
        return f"another `up`: process {int(found['pid'])}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another `up` that has just started"


def hold_server(data_dir: Path, seconds: float, pause: Callable[[float], None]) -> int:
    """Take the lock that the server inherits and holds until its last write.

    After a SIGKILL of `up` the old server ends only after its workers: two servers on one file
    would ruin it. Waits so many seconds, `pause` between the looks; raises UpError.
    """
    path = data_dir / "server.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise UpError(
                    f"a server of an earlier `up` still writes to {data_dir}",
                    f"find it by: fuser {path}; and end it: kill -TERM <its process id>",
                ) from None
            pause(0.1)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return descriptor
