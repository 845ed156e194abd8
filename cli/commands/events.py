"""`events ...`: the event broker's queues and dead letters, for operators.

Not `/api/v1/events`, the stream of changes of tasks: that is what `tasks follow` is about.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.client import event_queues as calls
from cli import options
from cli.api import connected
from cli.confirm import confirm
from cli.errors import CliError, ExitCode
from cli.output import Format, note, show_json, show_list

if TYPE_CHECKING:
    from app.client import Client

_QUEUES = ("PATTERN", "GROUP", "MEMBERS", "WAITING", "UNSETTLED", "DROPPED", "DEAD")
_LETTERS = ("ID", "TOPIC", "PATTERN", "GROUP", "TRIES", "REASON")

Ids = Annotated[
    list[str] | None, typer.Option("--id", help="The dead letter of this id; repeatable.")
]
Every = Annotated[bool, typer.Option("--all", help="All dead letters that there are now.")]
Pattern = Annotated[
    str | None, typer.Option("--pattern", help="All that died in queues of this pattern.")
]
Group = Annotated[str | None, typer.Option("--group", help="All that died in this group.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("queues")(queues)
    app.command("dead-letters")(dead_letters)
    app.command("replay")(replay)
    app.command("discard")(discard)
    app.command("drop-group")(drop_group)


def queues(
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """List the groups and subscriptions of the event broker, and what waits in each.

    DROPPED and DEAD count since the queue began. A subscription without a group ends with its
    program.
    """
    with connected(api_base, token) as api:
        found = api.run(calls.queues())
    show_list(found, "queues", _QUEUES, _queue_row, output)


def dead_letters(
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="Letters a page.")] = 50,
    cursor: options.Cursor = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """List the events that could not be used, oldest first, each with the reason.

    json and jsonl have the events themselves.
    """
    with connected(api_base, token) as api:
        found = api.run(calls.dead_letters(limit=limit, cursor=cursor))
    show_list(found, "dead_letters", _LETTERS, _letter_row, output)
    if found["next_cursor"] and output is not Format.JSON:
        note(f"there are more: --cursor {found['next_cursor']}")


def replay(
    ids: Ids = None,
    everything: Every = False,
    pattern: Pattern = None,
    group: Group = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Deliver dead letters again, to the queue that they died in.

    Name each by --id, or say --all, or a --pattern, a --group. Those whose group is gone stay dead.
    """
    _check_chosen(ids, everything=everything, pattern=pattern, group=group)
    with connected(api_base, token) as api:
        _settle(api, "replay", ids, pattern, group, output)


def discard(
    ids: Ids = None,
    everything: Every = False,
    pattern: Pattern = None,
    group: Group = None,
    yes: options.Yes = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Remove dead letters for good.

    Name each by --id, or say --all, or a --pattern, a --group.
    """
    _check_chosen(ids, everything=everything, pattern=pattern, group=group)
    confirm("Remove these dead letters for ever?", yes=yes)
    with connected(api_base, token) as api:
        _settle(api, "discard", ids, pattern, group, output)


def drop_group(
    pattern: Annotated[str, typer.Option("--pattern", help="The group's pattern of topics.")],
    group: Annotated[str, typer.Option("--group", help="The group's name.")],
    yes: options.Yes = False,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """End a group that nobody consumes any more, with all that waits in it.

    A program that still consumes starts it anew, and empty.
    """
    confirm(f"End the group {group} of {pattern}, and lose what waits in it?", yes=yes)
    with connected(api_base, token) as api:
        found = api.run(calls.drop_group(pattern, group))
    if output is Format.TABLE:
        note(f"group {group} of {pattern} is gone")
    else:
        show_json(found, output)


def _settle(
    api: "Client",
    how: calls.Settling,
    ids: list[str] | None,
    pattern: str | None,
    group: str | None,
    output: Format,
) -> None:
    everything = not ids and pattern is None and group is None
    flow = calls.settle(how, ids or None, everything=everything, pattern=pattern, group=group)
    found = api.run(flow)
    if output is not Format.TABLE:
        show_json(found, output)
        return
    done = "replayed" if how == "replay" else "discarded"
    note(f"{found['count']} dead letters {done}")


def _check_chosen(
    ids: list[str] | None, *, everything: bool, pattern: str | None, group: str | None
) -> None:
    """Nothing named is not everything, and what is named by id is named wholly."""
    general = pattern is not None or group is not None
    if sum((bool(ids), everything, general)) != 1:
        raise CliError(
            "which dead letters are meant is not clear",
            "name each by --id, or say --all, or --pattern and --group",
            ExitCode.USAGE,
        )


def _queue_row(queue: dict[str, Any]) -> tuple[object, ...]:
    names = ("members", "waiting", "unsettled", "dropped", "dead")
    return (queue["pattern"], queue["group"] or "-", *(queue[name] for name in names))


def _letter_row(letter: dict[str, Any]) -> tuple[object, ...]:
    names = ("id", "topic", "pattern")
    rest = (letter["group"] or "-", letter["deliveries"], letter["reason"])
    return (*(letter[name] for name in names), *rest)
