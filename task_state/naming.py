"""What may be the name of a service or user or the id of a task, and which word was meant instead
of one that nobody knows."""

import re
from collections.abc import Iterable
from typing import Final

# The engine of pydantic's patterns cannot look ahead, so the lengths stand apart. A name of dots
# alone is a step in a path: clients and proxies resolve it, and would ask for something else.
NAME_PATTERN: Final = r"^\.*[A-Za-z0-9_@-][A-Za-z0-9._@-]*$"
MAX_NAME: Final = 64
NAME_WORDS: Final = "1 to 64 letters of A-Z a-z 0-9 . _ @ - make one, and not dots alone"
TASK_ID_PATTERN: Final = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
MAX_TASK_ID: Final = 128
TASK_ID_WORDS: Final = "1 to 128 letters of A-Z a-z 0-9 . _ - make one, and not dots alone"

_NAME: Final = re.compile(NAME_PATTERN)
_TASK_ID: Final = re.compile(TASK_ID_PATTERN)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_name(text: str) -> bool:
    """Whether a service or a user may have this name."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


def is_task_id(text: str) -> bool:
    """Whether a task may have this id."""
    return len(text) <= MAX_TASK_ID and _TASK_ID.fullmatch(text) is not None


def meant(word: str, known: Iterable[str]) -> str | None:
    """The one of the `known` words (in snake_case) that is spelled almost like that one, be it in
    camelCase or with hyphens; None without one."""
    from difflib import get_close_matches  # late: only errors need it

    snake = _HUMP.sub("_", word[:100]).lower().replace("-", "_")
    return next(iter(get_close_matches(snake, list(known), n=1)), None)
