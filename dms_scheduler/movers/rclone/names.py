"""How rclone spells names inside itself: control characters as the pictures that Unicode has."""

from __future__ import annotations

import re

_PICTURES = {chr(code): chr(0x2400 + code) for code in range(0x20)} | {"\x7f": "\u2421"}
_CHARACTERS = {picture: character for character, picture in _PICTURES.items()}
_QUOTE = "\u201b"
_QUOTED = re.compile(rf"{_QUOTE}(?P<literal>.)|(?P<picture>[\u2400-\u241f\u2421])", re.DOTALL)


def spelled(character: str) -> str:
    """Return a character of a name as rclone spells it."""
    return _PICTURES.get(character, character)


def plain(path: str) -> str:
    """Return a path of rclone as it is on disk. (Bytes that are no UTF-8 stay replaced: U+FFFD.)"""
    return _QUOTED.sub(lambda match: match["literal"] or _CHARACTERS[match["picture"]], path)
