"""Starts rclone in a sandbox: a small program that confines itself and then becomes rclone.

Run as `python -I -S confine.py PARENT LANDLOCK PERMISSIONS COMMAND...`: it dies with its parent,
can gain no rights, and reaches no file but those below the open directories and files in
PERMISSIONS (`fd=rights,...`). It imports nothing of this project, for it has to start quickly.
"""

import ctypes
import os
import signal
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

EXECUTE = 1 << 0
READ_FILE = 1 << 2
READ = READ_FILE | 1 << 3
_ALL_OF_FIRST = (1 << 13) - 1
_ADDED = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # rename across folders, truncate, device ioctl
_OF_FILES = EXECUTE | READ_FILE | 1 << 1 | 1 << 14 | 1 << 15


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the version of Landlock that this kernel has, 0 if it has none."""
    return max(0, _syscall(CREATE_RULESET, None, 0, 1))


def every_right(landlock: int) -> int:
    """Return all rights to files that this version of Landlock knows."""
    return _ALL_OF_FIRST | sum(right for since, right in _ADDED.items() if landlock >= since)


def confine(landlock: int, permissions: dict[int, int]) -> None:
    """Restrict this process to what `permissions` (descriptor: rights) allows; raises OSError."""
    handled = every_right(landlock)
    attributes = _Ruleset(handled)
    ruleset = _checked(_syscall(CREATE_RULESET, ctypes.byref(attributes), 8, 0))
    for fd, rights in permissions.items():
        if not rights & handled:  # it is only passed through
            continue
        rule = _PathBeneath(rights & handled, fd)
        _checked(_syscall(ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
    _checked(_syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def rights_to_file(rights: int) -> int:
    """Return what of `rights` may be given for a file that is no directory."""
    return rights & _OF_FILES


def die_with(parent: int) -> None:
    """Be killed when the thread that started this process ends; give up every way to more rights.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0))
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(0)


def _syscall(*arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(*(_as_c(argument) for argument in arguments)))


def _as_c(argument: object) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def main(arguments: list[str]) -> None:
    """Become the command; on failure the exit code is 126 and the reason is in the error output."""
    parent, landlock, permissions, *command = arguments
    try:
        die_with(int(parent))
        if int(landlock):
            pairs = (pair.split("=") for pair in permissions.split(",") if pair)
            confine(int(landlock), {int(fd): int(rights) for fd, rights in pairs})
        os.execv(command[0], command)  # noqa: S606 - this process becomes rclone
    except OSError as error:
        sys.stderr.write(f"rclone could not be started: {error.strerror}\n")
    sys.exit(126)


if __name__ == "__main__":
    main(sys.argv[1:])
