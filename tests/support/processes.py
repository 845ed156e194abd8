"""What the tests ask of processes that may end at any moment."""

import os

import psutil


def command_of(process: psutil.Process) -> list[str]:
    """The command line; nothing of one that is gone, or all but gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def living_group(leader: int) -> list[int]:
    """The processes of a process group that have not ended; zombies have."""
    return [pid for pid in psutil.pids() if _lives_in(pid, leader)]


def is_alive(pid: int) -> bool:
    """Whether a process runs: it is neither gone nor a zombie that waits to be buried."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _lives_in(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group and is_alive(pid)
    except ProcessLookupError:
        return False
