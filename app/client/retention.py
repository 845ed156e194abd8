"""What an operator asks of the API to export tasks and to remove finished ones."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from app.client import _flow as flows
from app.client._flow import Flow, Json
from app.client._request import Answer, Request, request, route
from app.client.errors import UnexpectedAnswerError

NEXT_CURSOR: Final = "x-next-cursor"


class BriefPage(NamedTuple):
    """Tasks in brief, as pruning needs them, and the cursor of the page after them."""

    tasks: Sequence[Json]
    next_cursor: str | None


def export_request(form: str, options: Mapping[str, Any]) -> Request:
    """The request for one page of an export, to be read by `Client.download`; `options` are those
    of the route. The header NEXT_CURSOR names the next page, if there is one."""
    return request(
        "GET", route("admin", "export"), params={**options, "format": form}, operator=True
    )


def brief_page(options: Mapping[str, Any]) -> Flow[BriefPage]:
    """One page of an export in brief."""
    answer: Answer = yield flows.Send(export_request("brief", options))
    try:
        tasks = [json.loads(line) for line in answer.body.splitlines()]
    except ValueError:
        raise UnexpectedAnswerError(
            f"{answer.where} exports what is no JSON", "is this a DMS?"
        ) from None
    return BriefPage(tasks, answer.headers.get(NEXT_CURSOR))


def prune(tasks: Sequence[Json], *, dry_run: bool = False) -> Flow[Json]:
    """`{"removed", "skipped", "dry_run"}`; each task with its `task_id`, `revision`, `logs_total`,
    `output_bytes` and `updated_at`, at most 200."""
    names = ("task_id", "revision", "logs_total", "output_bytes", "updated_at")
    seen = [{name: task[name] for name in names if name in task} for task in tasks]
    body = {"tasks": seen, "dry_run": dry_run}
    return flows.call(request("POST", route("admin", "prune"), body=body, operator=True))
