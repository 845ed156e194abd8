"""The HTTP client of the scheduler service: not the scheduler of triggers, which says when."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final, cast

import httpx2

from app.core.config import Settings, mask_url
from app.core.errors import SchedulerRejectedError, SchedulerUnavailableError

_MAX_ANSWER: Final = 1024 * 1024
_MAX_MESSAGE: Final = 500
# Refusals that say "not now" rather than "never": the call is repeated later.
_TRY_LATER: Final = frozenset({408, 421, 425, 429})


@dataclass(frozen=True, slots=True)
class TaskCall:
    """What the scheduler is told of a task."""

    task_id: str
    service: str
    user_id: str

    def body(self) -> dict[str, Any]:
        """The fields that both calls send."""
        return {"task_id": self.task_id, "service": self.service, "user_id": self.user_id}


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The scheduler took a task. `status` is None when it named none, as a foreign one may."""

    status: str | None = None
    job_id: str | None = None


class SchedulerClient:
    """Calls `POST /task`, `POST /cancel` and `GET /definitions` of the scheduler service.

    Each call ends within `request_timeout_seconds` in all. Raises SchedulerUnavailableError for
    what may work later (no connection, time-out, 5xx, 408, 421, 425, 429, a redirect, an answer
    that makes no sense) and SchedulerRejectedError, with the scheduler's words, for any other 4xx.
    Redirects are not followed: the address is the operator's choice alone.
    """

    def __init__(self, settings: Settings, transport: httpx2.AsyncBaseTransport | None = None):
        self._base = settings.scheduler_base_url
        self._task_url = self._base + settings.scheduler_task_endpoint
        self._cancel_url = self._base + settings.scheduler_cancel_endpoint
        self._definitions_url = self._base + "/definitions"
        self._timeout = settings.request_timeout_seconds
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(self._timeout),
            limits=httpx2.Limits(max_connections=settings.event_worker_count + 8),
            headers={"User-Agent": settings.app_name},
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    async def close(self) -> None:
        """Close every connection; calls after it fail."""
        await self._client.aclose()

    async def submit(self, call: TaskCall, parameters: dict[str, Any]) -> Acknowledgement:
        """Hand a task over. Repeating it is safe: the task's id is the idempotency key."""
        answer = await self._post(
            self._task_url,
            call.body() | {"parameters": parameters},
            {"Idempotency-Key": call.task_id},
        )
        status, job_id = answer.get("status"), answer.get("job_id")
        if not isinstance(status, str | None) or not isinstance(job_id, str | int | None):
            raise self._unusable("its status or job_id is not a text")
        return Acknowledgement(status, None if job_id is None else str(job_id))

    async def cancel(self, call: TaskCall) -> None:
        """Ask the scheduler to end a task."""
        await self._post(self._cancel_url, call.body(), {})

    async def definitions(self) -> list[dict[str, Any]]:
        """The task definitions that the scheduler's workers know."""
        answer = _parse(await self._send("GET", self._definitions_url, None, {}))
        found = answer.get("definitions") if answer is not None else None
        if not isinstance(found, list):
            raise self._unusable("it has no list of definitions")
        entries = cast("list[object]", found)
        return [cast("dict[str, Any]", entry) for entry in entries if isinstance(entry, dict)]

    async def _post(
        self, url: str, body: dict[str, Any], headers: dict[str, str]
    ) -> dict[str, Any]:
        # Written here and not by the client library: integers of any size must survive.
        content = json.dumps(
            body, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
        answer = _parse(await self._send("POST", url, content, headers))
        if answer is None:
            raise self._unusable("its body is not a JSON object")
        return answer

    async def _send(
        self, method: str, url: str, content: bytes | None, headers: dict[str, str]
    ) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        request = self._client.build_request(method, url, content=content, headers=headers)
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._opened(request)
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise self._unavailable(f"did not answer within {self._timeout:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self._unavailable(f"could not be called ({_reason(error)})") from error
        self._check(response.status_code, body)
        return body

    async def _opened(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._client.send(request, stream=True)
        except AttributeError as error:
            # With uvloop, the client library stumbles over a connection that the other side reset
            # as soon as it was made: it asks for the peer's name of a socket that is gone.
            raise httpx2.ConnectError("the connection was reset at once") from error

    def _check(self, status: int, body: bytes) -> None:
        if 200 <= status < 300:
            return
        if 400 <= status < 500 and status not in _TRY_LATER:
            raise SchedulerRejectedError(_message(body) or f"the scheduler answered {status}")
        raise self._unavailable(f"answered {status}")

    def _unavailable(self, what: str) -> SchedulerUnavailableError:
        return SchedulerUnavailableError(
            f"the scheduler at {mask_url(self._base)} {what}: check that it runs, and "
            "DMS_SCHEDULER_BASE_URL"
        )

    def _unusable(self, why: str) -> SchedulerUnavailableError:
        return self._unavailable(f"gave an answer that means nothing ({why})")


async def _read(response: httpx2.Response) -> bytes:
    """The body, or as much of it as any sensible answer has."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > _MAX_ANSWER:
            break
    return b"".join(parts)


def _parse(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body; an empty body is an empty object, anything else None."""
    if not body.strip():
        return {}
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _message(body: bytes) -> str | None:
    """The scheduler's own words in an error: a problem's detail, or what else it may call it."""
    answer = _parse(body)
    if answer is None:
        return None
    for name in ("detail", "message", "error", "title"):
        text = answer.get(name)
        if isinstance(text, str) and text:
            return text[:_MAX_MESSAGE]
    return None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
