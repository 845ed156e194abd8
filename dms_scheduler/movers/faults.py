"""What a fault means for a run, whoever told of it: the system (`oserrors`) or rclone.

Not `rclone.faults`, which reads rclone's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dms_scheduler.movers.errors import MoverError, NoSpace

_FULL = {"no_space", "quota_exceeded"}


@dataclass(frozen=True, slots=True)
class Fault:
    """A word for programs, whether another attempt may help, whether the whole run ends."""

    error_class: str
    retryable: bool = False
    fatal: bool = False


def ending(what: str, reason: str, fault: Fault, remedies: Mapping[str, str]) -> MoverError:
    """Return the error that ends a run because of `fault` at `what` (a path, a remote).

    `remedies` says for classes of errors what people can do.
    """
    text = f"{what}: {reason}. {remedies.get(fault.error_class, '')}".rstrip()
    kind = NoSpace if fault.error_class in _FULL else MoverError
    return kind(text, error_class=fault.error_class, retryable=fault.retryable)
