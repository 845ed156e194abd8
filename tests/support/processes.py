"""What the tests ask of processes that may end at any moment."""

import psutil


def command_of(process: psutil.Process) -> list[str]:
    """The command line; nothing of one that is gone, or all but gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
