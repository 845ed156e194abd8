"""`tasks list`, `tasks search`, `tasks counts`: which tasks there are, and how many."""

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from app.client import calls
from app.client.types import SearchOptions
from cli import options
from cli.api import connected
from cli.errors import CliError, ExitCode
from cli.listing import Page, show_pages
from cli.output import Format, ListFormat, show_json, show_table

if TYPE_CHECKING:
    from app.client import Client


class Sort(StrEnum):
    """What orders a search."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    ID = "id"


class Order(StrEnum):
    """Which end of the order comes first."""

    ASC = "asc"
    DESC = "desc"


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("list")(list_tasks)
    app.command("search")(search)
    app.command("counts")(counts)


def list_tasks(
    *,
    service: options.OptionalService = None,
    user: options.OptionalUser = None,
    status: options.Status = None,
    since: options.Since = None,
    until: options.Until = None,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
    everything: options.AllPages = False,
    token: options.Token = None,
    output: options.ListOutput = ListFormat.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """List tasks: a user's, or an operator's view of all.

    Newest first. Operators name their token and leave out --user, or --service too.
    """
    if user and not service:
        raise CliError(
            "a user's tasks are listed by service",
            "add --service; operators may instead use: dms-frontend tasks search --user",
            ExitCode.USAGE,
        )
    wanted: SearchOptions = {
        "service": service,
        "user": user,
        "status": status,
        "created_after": options.since(since),
        "created_before": options.since(until),
        "limit": limit,
        "cursor": cursor,
    }
    with connected(api_base, token) as api:
        show_pages(_pages(api, wanted, everything=everything), output)


def search(
    *,
    task_id: options.ById = None,
    service: Annotated[
        str | None, typer.Option("--service", "--type", help="Only tasks of this definition.")
    ] = None,
    status: options.Status = None,
    user: Annotated[str | None, typer.Option("--user", help="Only this user's tasks.")] = None,
    text: options.Text = None,
    created_after: Annotated[
        str | None,
        typer.Option("--created-after", "--since", help="Created since: an age (2h) or a time."),
    ] = None,
    created_before: Annotated[
        str | None,
        typer.Option("--created-before", "--until", help="Created before: an age or a time."),
    ] = None,
    updated_after: options.UpdatedAfter = None,
    updated_before: options.UpdatedBefore = None,
    sort: Annotated[
        Sort, typer.Option("--sort", help="What orders them.", case_sensitive=False)
    ] = Sort.CREATED_AT,
    order: Annotated[
        Order, typer.Option("--order", help="Newest first is desc.", case_sensitive=False)
    ] = Order.DESC,
    limit: options.Limit = None,
    offset: Annotated[
        int | None,
        typer.Option("--offset", min=0, max=1_000_000, help="Leave out so many at first."),
    ] = None,
    cursor: options.Cursor = None,
    everything: options.AllPages = False,
    token: options.Token = None,
    output: options.ListOutput = ListFormat.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Find tasks by id, service, status, user, text and times.

    All that are named must hold. With --service and --user it finds that user's own tasks; any
    other search is an operator's and needs the token. Ages such as 90s, 15m, 2h, 7d count back
    from now; a time is ISO 8601, in UTC if it names no zone.
    """
    wanted: SearchOptions = {
        "task_id": task_id,
        "service": service,
        "user": user,
        "status": status,
        "text": text,
        "created_after": options.since(created_after),
        "created_before": options.since(created_before),
        "updated_after": options.since(updated_after),
        "updated_before": options.since(updated_before),
        "sort": sort.value,
        "order": order.value,
        "limit": limit,
        "offset": offset,
        "cursor": cursor,
    }
    with connected(api_base, token) as api:
        show_pages(_pages(api, wanted, everything=everything), output)


def _pages(api: "Client", wanted: SearchOptions, *, everything: bool) -> Iterator[Page]:
    if everything:
        return api.stream(calls.search_pages(**wanted))
    return iter([api.run(calls.search(**wanted))])


def counts(
    *,
    service: options.OptionalService = None,
    user: options.OptionalUser = None,
    token: options.Token = None,
    output: options.Output = Format.TABLE,
    api_base: options.ApiBase = options.DEFAULT_API_BASE,
) -> None:
    """Count tasks by status, service and user.

    With --service and --user it counts that user's own tasks; all else is an operator's.
    """
    with connected(api_base, token) as api:
        found = api.run(calls.counts(service, user))
    if output is not Format.TABLE:
        show_json(found, output)
        return
    show_table(("STATUS", "TASKS"), [*found["by_status"].items(), ("total", found["total"])])
    for title in ("service", "user"):
        _show_counts(title.upper(), found.get(f"by_{title}") or {})


def _show_counts(title: str, numbers: dict[str, int]) -> None:
    """The largest first; nothing where the service did not count."""
    rows = numbers.items()
    if rows:
        print()
        show_table((title, "TASKS"), sorted(rows, key=_largest_first))


def _largest_first(row: tuple[str, int]) -> tuple[int, str]:
    return -row[1], row[0]
