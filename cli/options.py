"""The options that several commands share, and what their texts mean."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.output import Format, ListFormat

DEFAULT_API_BASE = "http://127.0.0.1:8000/api/v1"

Service = Annotated[str, typer.Option("--service", help="The service (a task definition's id).")]
User = Annotated[str, typer.Option("--user", help="The user it belongs to.")]
TaskId = Annotated[str, typer.Option("--task-id", help="The task's id.")]
OptionalService = Annotated[
    str | None, typer.Option("--service", help="The service; operators may leave it out.")
]
OptionalUser = Annotated[
    str | None, typer.Option("--user", help="The user; operators may leave it out.")
]
ApiBase = Annotated[
    str, typer.Option("--api-base", envvar="DMS_API_BASE", help="The API's root, with its prefix.")
]
Token = Annotated[
    str | None,
    typer.Option(
        "--operator-token",
        envvar="DMS_OPERATOR_TOKEN",
        help="The operator's token, for what no single user may do.",
    ),
]
Output = Annotated[
    Format, typer.Option("--output", "-o", help="table for people; json or jsonl for programs.")
]
ListOutput = Annotated[
    ListFormat,
    typer.Option(
        "--output",
        "-o",
        help="table or wide for people; json or jsonl for programs.",
        case_sensitive=False,
    ),
]
Status = Annotated[
    list[str] | None,
    typer.Option("--status", help="Only tasks with this status, in any case; repeatable."),
]
Since = Annotated[
    str | None,
    typer.Option("--since", help="Only tasks created since: an age (2h, 7d) or an ISO time."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", help="Only tasks created before: an age (2h, 7d) or an ISO time."),
]
ById = Annotated[str | None, typer.Option("--id", help="The task with this id.")]
OneService = Annotated[str | None, typer.Option("--service", help="Only this service's.")]
OneUser = Annotated[str | None, typer.Option("--user", help="Only this user's.")]
Text = Annotated[
    str | None,
    typer.Option("--text", "-q", help="Text to find in the id, the user or the parameters."),
]
UpdatedAfter = Annotated[
    str | None, typer.Option("--updated-after", help="Changed since: an age or a time.")
]
UpdatedBefore = Annotated[
    str | None, typer.Option("--updated-before", help="Not changed since: an age or a time.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, max=200, help="Tasks a page.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="Where the page before ended.")]
AllPages = Annotated[bool, typer.Option("--all", help="Every page, each printed when it comes.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Param = Annotated[
    list[str] | None,
    typer.Option("--param", help="A parameter: name=value. A repeated name makes a list."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse parameters that do not fit the definition.")
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.0, help="Seconds to wait at most; then exit code 124."),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        help="Repeating a command with the same key makes no second task; made up by default.",
    ),
]

_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parameters(pairs: Sequence[str]) -> dict[str, str | list[str]]:
    """`k=v` pairs as a task's parameters; a repeated name becomes a list."""
    found: dict[str, str | list[str]] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{pair!r} is not of the form name=value")
        _must_be_text(name, value)
        earlier = found.get(name)
        if earlier is None:
            found[name] = value
        elif isinstance(earlier, list):
            earlier.append(value)
        else:
            found[name] = [earlier, value]
    return found


def _must_be_text(*texts: str) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise typer.BadParameter(
                f"{text!r} is not valid UTF-8, so JSON cannot carry it; "
                "name a folder above it whose name is"
            ) from None


def since(text: str | None) -> str | None:
    """An instant in ISO form: given as such (UTC if it names no zone), or as an age such as 2h."""
    if text is None:
        return None
    instant = moment(text)
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).isoformat()


def as_written(text: str | None) -> str | None:
    """A moment in ISO form, which names no zone if the text does not: the reader has its own."""
    return None if text is None else moment(text).isoformat()


def moment(text: str) -> datetime:
    """A time, as it is written (it may name no zone), or given as an age such as 2h."""
    if age := _AGE.fullmatch(text.strip()):
        try:
            past = timedelta(**{_UNITS[age.group(2)]: float(age.group(1))})
            return datetime.now(UTC) - past
        except OverflowError:
            raise typer.BadParameter(f"{text!r} is before the year 1") from None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither an age (90s, 15m, 2h, 7d) nor a time (2026-01-31T09:00+09:00)"
        ) from None
