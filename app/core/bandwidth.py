"""Bandwidths as people write and read them: for task parameters, the API and the command line."""

import math
import re
from fractions import Fraction
from typing import Final

MAX_BANDWIDTH: Final = 1 << 50

_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?(?:/s)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def parse_bandwidth(text: str) -> int:
    """Bytes a second from a text such as `500000`, `512K` or `1.5M` (MiB); raises ValueError.

    A part of a byte counts as one: 0 means no limit, which nobody means who gives more than 0.
    """
    match = _TEXT.fullmatch(text.strip())
    if not match or len(match[1]) > 16:
        raise ValueError("give bytes a second, such as 500000, 512K or 10M")
    return math.ceil(Fraction(match[1]) * 1024 ** _POWERS[match[2].lower()])


def shown_bandwidth(limit: int) -> str:
    """`limit` (bytes a second) for people: 10485760 as `10 MiB/s`."""
    amount, unit = float(limit), 0
    while amount >= 1024 and unit + 1 < len(_UNITS):
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f}".removesuffix(".0") + f" {_UNITS[unit]}/s"
