"""How the command line shows things: text that cannot command the terminal, tables, JSON."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from rich.cells import cell_len

# C0 and C1 controls move cursors and start escape sequences; line and paragraph separators and the
# bidirectional controls make a line read as another one; a lone surrogate cannot be written at all.
_CONTROL = "\u0000-\u001f\u007f-\u009f"
_DECEIVING = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROL}{_DECEIVING}]")


class Format(StrEnum):
    """What `-o` chooses."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


class ListFormat(StrEnum):
    """What `-o` chooses for a list."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"


def clean(value: object) -> str:
    """Text that is safe on a terminal: what could act on it is shown as an escape."""
    return _UNSAFE.sub(_escape, str(value))


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON in readable characters, save those that could act on a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # json escapes what is below 0x20 itself; a newline here is layout, not data.
    return _UNSAFE.sub(
        lambda m: m.group() if m.group() == "\n" else f"\\u{ord(m.group()):04x}", text
    )


def mapping(value: Any) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def show_json(value: Any, output: Format) -> None:
    """Print one value: over several lines as `json`, on one as `jsonl`."""
    print(to_json(value, indent=2 if output is Format.JSON else None))


def show_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns; nothing is cut off, and wide characters count as two cells."""
    cells = [list(headers), *([clean(value) for value in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)
        )
        print("  ".join(padded).rstrip())


def show_list(
    found: dict[str, Any],
    name: str,
    headers: Sequence[str],
    row: Callable[[dict[str, Any]], Sequence[object]],
    output: Format,
) -> None:
    """Print an answer that lists things under `name`: as it is, a line each, or as a table."""
    if output is Format.JSON:
        show_json(found, output)
    elif output is Format.JSONL:
        for each in found[name]:
            print(to_json(each))
    else:
        show_table(headers, map(row, found[name]))


def show_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print `name  value` lines, leaving out what is not set."""
    shown = [(name, clean(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name:<{width}}  {value}")


def note(text: str) -> None:
    """A line for the person at the terminal: to stderr, so that stdout stays data."""
    print(clean(text), file=sys.stderr, flush=True)


def short_time(value: str | None) -> str:
    """An API time to the second; anything else unchanged."""
    try:
        return datetime.fromisoformat(value or "").isoformat(sep=" ", timespec="seconds")
    except ValueError:
        return value or ""
