"""Which keys of the store a comparison of schedules is about; the comparing is done in a script."""

import re
from collections.abc import Iterable
from typing import Final

# A comparison of `audit_schedules` to the keys whose names give it the names to look at.
_KINDS: Final = {
    "schedule": re.compile(r"schedule:(.+)"),
    "part": re.compile(r"schedule-(?:active|buffer|fires):(.+)"),
    "task": re.compile(r"task:(s\..+\.r?\d+)"),
}
_ACTIVE: Final = re.compile(r"schedule-active:(.+)")


def named_for_comparison(names: Iterable[str]) -> dict[str, list[str]]:
    """Comparison to what it is to look at, of the names of keys (without their prefix)."""
    found: dict[str, dict[str, None]] = {}
    for name in names:
        for kind, pattern in _KINDS.items():
            if match := pattern.fullmatch(name):
                found.setdefault(kind, {})[match[1]] = None
    return {kind: list(rest) for kind, rest in found.items()}


def schedules_with_active(names: Iterable[str]) -> list[str]:
    """The schedules that have a set of active tasks among those keys."""
    return [match[1] for name in names if (match := _ACTIVE.fullmatch(name))]
