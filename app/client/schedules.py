"""What an operator asks of the API about stored schedules, as flows whose results are its JSON.

`client.run(schedules.create("nightly", {"cron": "0 3 * * *", ...}))` carries one out.
"""

from collections.abc import Mapping
from typing import Any

from app.client import _flow as flows
from app.client._flow import Flow, Json, Stream
from app.client._request import Request, request, route
from app.client.errors import UnexpectedAnswerError


def create(
    schedule_id: str,
    fields: Mapping[str, Any],
    *,
    paused: bool = False,
    reason: str | None = None,
    strict: bool = False,
) -> Flow[Json]:
    """The new schedule. `fields` are those of its spec: cron, service, user_id, parameters ...
    With `strict` the parameters have to fit the service's definition."""
    body = {"schedule_id": schedule_id, **fields}
    if paused:
        body |= {"paused": True, "reason": reason}
    return _schedule(_request("POST", body=body, headers=_handling(strict=strict)))


def update(
    schedule_id: str,
    changes: Mapping[str, Any],
    *,
    revision: int | None = None,
    strict: bool = False,
) -> Flow[Json]:
    """The schedule with these fields changed; None sets one to its default."""
    body = dict(changes) if revision is None else {"revision": revision, **changes}
    headers = _handling(strict=strict)
    return _schedule(_request("PATCH", schedule_id, body=body, headers=headers))


def get(schedule_id: str) -> Flow[Json]:
    """The schedule."""
    return _schedule(_request("GET", schedule_id))


def page(*, limit: int | None = None, cursor: str | None = None) -> Flow[Json]:
    """`{"schedules", "next_cursor"}`, by name."""
    return flows.call(_page(limit, cursor))


def pages(*, limit: int | None = None, cursor: str | None = None) -> Stream[Json]:
    """All pages, one after another."""
    return flows.pages(lambda after: _page(limit, cursor if after is None else after))


def pause(schedule_id: str, reason: str | None = None) -> Flow[Json]:
    """The schedule, which fires nothing any more."""
    body = None if reason is None else {"reason": reason}
    return _schedule(_request("POST", schedule_id, "pause", body=body))


def resume(schedule_id: str) -> Flow[Json]:
    """The schedule, which fires again."""
    return _schedule(_request("POST", schedule_id, "resume"))


def delete(schedule_id: str) -> Flow[Json]:
    """`{"schedule_id", "deleted"}`."""
    return flows.call(_request("DELETE", schedule_id))


def run(schedule_id: str, *, idempotency_key: str | None = None) -> Flow[Json]:
    """`{"fire", "idempotency_key"}`: the task that was started by hand."""
    return flows.submission(_request("POST", schedule_id, "run"), idempotency_key)


def backfill(
    schedule_id: str,
    start: str,
    end: str | None = None,
    *,
    overlap: str | None = None,
    dry_run: bool = False,
) -> Flow[Json]:
    """`{"dry_run", "fires"}` of the slots from `start` to before `end` (now), times in ISO 8601."""
    more = {"end": end, "overlap": overlap}
    body = {"start": start, "dry_run": dry_run} | _given(more)
    return flows.call(_request("POST", schedule_id, "backfill", body=body))


def preview(schedule_id: str, *, count: int | None = None, after: str | None = None) -> Flow[Json]:
    """`{"words", "timezone", "fires"}`: what a stored schedule will do."""
    return flows.call(
        _request("GET", schedule_id, "preview", query={"count": count, "after": after})
    )


def preview_new(
    fields: Mapping[str, Any], *, count: int | None = None, after: str | None = None
) -> Flow[Json]:
    """The same of one that is not stored."""
    more = _given({"count": count, "after": after})
    return flows.call(_request("POST", "preview", body={**fields, **more}))


def fires(schedule_id: str, *, limit: int | None = None, cursor: int | None = None) -> Flow[Json]:
    """`{"fires", "next_cursor"}`: what became of its slots, newest first."""
    query = {"limit": limit, "cursor": cursor}
    return flows.call(_request("GET", schedule_id, "fires", query=query))


def _page(limit: int | None, cursor: str | None) -> Request:
    return _request("GET", query={"limit": limit, "cursor": cursor})


def _request(
    method: str,
    *segments: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    path = route("admin", "schedules", *segments)
    return request(method, path, params=query, body=body, headers=headers, operator=True)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _handling(*, strict: bool) -> Mapping[str, str] | None:
    return {"Prefer": "handling=strict"} if strict else None


def _schedule(sent: Request) -> Flow[Json]:
    found = yield from flows.call(sent)
    try:
        schedule: Json = found["schedule"]
        schedule["schedule_id"]
    except (KeyError, TypeError):
        raise UnexpectedAnswerError("the answer holds no schedule", "is this a DMS?") from None
    return schedule
