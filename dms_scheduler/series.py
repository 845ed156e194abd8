"""How a task's progress goes over time: few points, however long the task and its attempts take."""

import time
from typing import Any, Final, cast

import orjson

MOST_POINTS: Final = 240
_FIRST_INTERVAL_SECONDS = 1
_STORE_SECONDS = 5.0


class Series:
    """Points [ms since 1970, bytes, files], of the `bytes` and `files` of the progress.

    Over all attempts both only grow: an attempt that begins to count anew goes on from where the
    last one stood. The points are `interval_seconds` apart, the last one is the newest; when there
    are too many every second one goes, and the interval is doubled. It is stored (`due`, `stored`)
    every few seconds.
    """

    def __init__(self, begun_ms: int) -> None:
        self._points: list[list[int]] = []
        self._interval = _FIRST_INTERVAL_SECONDS
        self._last = [0, 0]
        self._begun = begun_ms
        self._version = self._given = self._stored = 0
        self._stored_at = float("-inf")

    def continue_from(self, stored: dict[str, Any] | None) -> None:
        """Go on from what earlier attempts have stored; before the first `add`."""
        if stored:
            self._points = cast("list[list[int]]", stored["points"])
            self._interval = cast("int", stored["interval_seconds"])
            self._last = cast("list[int]", stored["last"])

    def add(self, values: dict[str, Any], now_ms: int | None = None) -> None:
        """Take a progress; one that has neither bytes nor files is no point."""
        known = [_amount(values.get(name)) for name in ("bytes", "files")]
        if known == [None, None]:
            return
        seen = [
            before if now is None else now for now, before in zip(known, self._last, strict=True)
        ]
        if not self._points:
            self._points.append([self._begun, 0, 0])
        at = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        self._put(at, [_grown(*each) for each in zip(seen, self._last, strict=True)])
        self._last = seen
        self._version += 1

    def due(self, *, now: bool = False) -> bytes:
        """What is to be stored: nothing unless it has changed, and seconds have passed or it must
        be stored `now`."""
        waits = time.monotonic() - self._stored_at < _STORE_SECONDS
        if self._version == self._stored or (waits and not now):
            return b""
        self._given = self._version
        return orjson.dumps(
            {
                "interval_seconds": self._interval,
                "points": self._points,
                "last": self._last,
            }
        )

    def stored(self) -> None:
        """The store has what `due` gave last; what was added meanwhile is not in it."""
        self._stored = self._given
        self._stored_at = time.monotonic()

    def _put(self, at: int, more: list[int]) -> None:
        last = self._points[-1]
        point = [max(at, last[0]), last[1] + more[0], last[2] + more[1]]
        if len(self._points) > 1 and last[0] - self._points[-2][0] < self._interval * 1000:
            self._points[-1] = point  # the last one was only the newest
        else:
            self._points.append(point)
        if len(self._points) > MOST_POINTS:
            self._interval *= 2
            self._points = self._points[:-1:2] + self._points[-1:]


def _amount(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        return None
    return int(value)


def _grown(seen: int, before: int) -> int:
    """What came since; a number that is less than the last one was counted anew."""
    return seen - before if seen >= before else seen
