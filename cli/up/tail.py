"""Shows what the parts log, each line with its part's name: `up --verbose`."""

import codecs
from collections.abc import Callable, Iterable
from pathlib import Path


class Tails:
    """Reads what has been added to each log since the last look."""

    def __init__(self, logs: Iterable[tuple[str, Path]], say: Callable[[str], None]) -> None:
        self._tails = [_Tail(name, log) for name, log in logs]
        self._say = say

    def look(self) -> None:
        """Say every whole line that is new."""
        for tail in self._tails:
            for line in tail.new_lines():
                self._say(f"[{tail.name}] {line}")


class _Tail:
    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def new_lines(self) -> list[str]:
        try:
            with self._log.open("rb") as file:
                if self._log.stat().st_size < self._offset:
                    self._offset = 0  # it was rotated
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        return lines
