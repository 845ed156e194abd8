"""What an operator asks of the API about the event broker's queues and its dead letters."""

from collections.abc import Sequence
from typing import Any, Literal

from app.client import _flow as flows
from app.client._flow import Flow, Json
from app.client._request import request, route
from app.client.errors import UsageError

Settling = Literal["replay", "discard"]

MOST_IDS = 200


def queues() -> Flow[Json]:
    """`{"queues"}`, each with its pattern, its group (or null) and what it holds."""
    return flows.call(request("GET", route("admin", "queues"), operator=True))


def drop_group(pattern: str, group: str) -> Flow[Json]:
    """`{"pattern", "group"}` of the group that was ended, with all that waited in it."""
    query = {"pattern": pattern, "group": group}
    return flows.call(request("DELETE", route("admin", "queues"), params=query, operator=True))


def dead_letters(*, limit: int | None = None, cursor: str | None = None) -> Flow[Json]:
    """`{"dead_letters", "next_cursor"}`, oldest first."""
    query = {"limit": limit, "cursor": cursor}
    return flows.call(request("GET", route("admin", "dead-letters"), params=query, operator=True))


def settle(
    how: Settling,
    ids: Sequence[str] | None = None,
    *,
    everything: bool = False,
    pattern: str | None = None,
    group: str | None = None,
) -> Flow[Json]:
    """`{"count"}` of the letters that were replayed or discarded: those with these ids, or
    `everything`, or all of a pattern and group."""
    general = everything or pattern is not None or group is not None
    if general == (ids is not None):
        raise UsageError(
            "which dead letters are meant is not clear", "name ids, or a pattern or group, or all"
        )
    if ids is not None:
        return (yield from _settle_ids(how, ids))
    wanted: dict[str, Any] = {"all": True, "pattern": pattern, "group": group}
    count = 0
    while True:
        answer = yield from _ask(how, wanted)
        count += answer["count"]
        if not answer.get("left"):
            return {"count": count}
        wanted["part"] = answer["left"]


def _settle_ids(how: Settling, ids: Sequence[str]) -> Flow[Json]:
    count = 0
    for at in range(0, len(ids), MOST_IDS):
        answer = yield from _ask(how, {"ids": list(ids[at : at + MOST_IDS])})
        count += answer["count"]
    return {"count": count}


def _ask(how: Settling, body: Json) -> Flow[Json]:
    path = route("admin", "dead-letters", how)
    return flows.call(request("POST", path, body=body, operator=True))
