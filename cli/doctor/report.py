"""What the doctor found: one result a check, with few examples however much was found."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

EXAMPLES = 5


class Verdict(StrEnum):
    """How a check went, from good to bad."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass
class Result:
    """One check. `count` is how many things were found, of which `repaired` are mended; `what`
    describes them, `remedy` is what to do, `examples` name some of them."""

    name: str
    what: str
    remedy: str = ""
    severity: Verdict = Verdict.PROBLEM
    count: int = 0
    repaired: int = 0
    examples: list[str] = field(default_factory=list[str])

    @property
    def verdict(self) -> Verdict:
        """Good when nothing was found, or all of it was mended."""
        return self.severity if self.count > self.repaired else Verdict.OK

    def add(self, example: str, *, repaired: bool = False) -> None:
        """One more finding."""
        self.count += 1
        self.repaired += repaired
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def plain(self) -> Mapping[str, Any]:
        """As JSON has it."""
        return {
            "check": self.name,
            "status": self.verdict.value,
            "count": self.count,
            "repaired": self.repaired,
            "what": self.what,
            "examples": self.examples,
            "remedy": self.remedy if self.count else "",
        }


def good(name: str, what: str) -> Result:
    """A check that found nothing; `what` says what is so."""
    return Result(name, what)


def bad(name: str, what: str, remedy: str, severity: Verdict = Verdict.PROBLEM) -> Result:
    """A check of one thing, which is not as it should be."""
    return Result(name, what, remedy, severity, count=1)


def warn(name: str, what: str, remedy: str) -> Result:
    """The same, of less weight."""
    return bad(name, what, remedy, Verdict.WARNING)


def worst(results: Iterable[Result]) -> Verdict:
    """The worst verdict of all."""
    order = list(Verdict)
    return max((result.verdict for result in results), key=order.index, default=Verdict.OK)
