"""The retention policy: how long finished tasks are kept, by service and state. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from task_state.errors import ConfigurationError
from task_state.models import TaskStatus
from task_state.naming import is_name

TERMINAL = tuple(status for status in TaskStatus if status.is_terminal)
EXAMPLE = "COMPLETED=30d,FAILED=60d,sync:COMPLETED=7d"

_RULE = re.compile(r"(?:(?P<service>[^:=]+):)?(?P<status>[^:=]+)=(?P<age>[^:=]+)")
_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)")
_LONGEST = timedelta(days=36_525)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Finished tasks leave at that age, counted from their end. None stands for every service, or
    for every terminal state."""

    age: timedelta
    status: TaskStatus | None = None
    service: str | None = None

    @classmethod
    def parse(cls, text: str) -> "RetentionRule":
        """A rule `[service:]STATUS=age`; raises ConfigurationError, which names what is wrong."""
        found = _RULE.fullmatch(text.strip())
        if found is None:
            raise _bad(text, "it is not of the form [service:]STATUS=age")
        service = found["service"]
        if service is not None and not is_name(service.strip()):
            raise _bad(text, f"{service!r} is no service's name")
        return cls(
            _age(text, found["age"]),
            _status(text, found["status"].strip()),
            None if service is None else service.strip(),
        )

    @property
    def rank(self) -> int:
        """The rule of the highest rank is the one that counts: a service outweighs a state."""
        return 2 * (self.service is not None) + (self.status is not None)

    def covers(self, service: str, status: TaskStatus) -> bool:
        """Whether it speaks of tasks of that service in that state."""
        return self.service in {None, service} and self.status in {None, status}


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """All rules; without any, nothing is removed before its time to live is over."""

    rules: Sequence[RetentionRule] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "RetentionPolicy":
        """The policy of those rules; raises ConfigurationError for a bad one, and for two of one
        service and state."""
        rules: list[RetentionRule] = []
        for text in texts:
            rule = RetentionRule.parse(text)
            if any((rule.service, rule.status) == (old.service, old.status) for old in rules):
                raise _bad(text, "there is a rule of that service and state already")
            rules.append(rule)
        return cls(tuple(rules))

    def age(self, service: str, status: TaskStatus) -> timedelta | None:
        """How old such tasks may become; None keeps them."""
        fitting = [rule for rule in self.rules if rule.covers(service, status)]
        return max(fitting, key=lambda rule: rule.rank).age if fitting else None


def parse_age(text: str) -> timedelta:
    """An age such as 90s, 15m, 2h, 30d or 4w; raises ValueError, also for nothing and for more
    than a hundred years."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no age: use one such as 90s, 15m, 2h, 30d or 4w")
    try:
        age = timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        age = timedelta.max
    if not timedelta() < age <= _LONGEST:
        raise ValueError(f"{text!r} is out of range: name an age above zero and below 100 years")
    return age


def _age(rule: str, text: str) -> timedelta:
    try:
        return parse_age(text)
    except ValueError as error:
        raise _bad(rule, str(error)) from None


def _status(rule: str, text: str) -> TaskStatus | None:
    if text == "*":
        return None
    try:
        status = TaskStatus(text)
    except ValueError:
        raise _bad(rule, f"{text!r} is no status") from None
    if not status.is_terminal:
        names = ", ".join(TERMINAL)
        raise _bad(rule, f"{status} tasks have not ended: name one of {names}, or *")
    return status


def _bad(rule: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the retention rule {rule.strip()!r} means nothing: {reason}; rules look like {EXAMPLE}"
    )
