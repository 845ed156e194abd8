"""Requests are built whole and safe, answers are read for what they mean."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from app.client import calls
from app.client._flow import Send
from app.client._request import (
    Answer,
    Request,
    address,
    check,
    json_object,
    request,
    route,
)
from app.client.errors import (
    AddressError,
    AuthError,
    ClientError,
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    UnavailableError,
    UnexpectedAnswerError,
    UsageError,
)
from app.client.types import TaskRef

GET = request("GET", "/x")
POST = request("POST", "/x")


def first(flow: Any) -> Request:
    """The request that a call begins with."""
    step = next(flow)
    assert isinstance(step, Send)
    return step.request


# ----------------------------------------------------------------------------------------- requests
def test_user_data_in_a_path_is_quoted() -> None:
    assert route("services", "a b?c", "users", "김") == "/services/a%20b%3Fc/users/%EA%B9%80"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\udcff"])
def test_what_would_be_another_path_is_no_name(name: str) -> None:
    with pytest.raises(UsageError):
        route("services", name, "users")


def test_a_query_keeps_what_it_is_given() -> None:
    params = {"q": "한글 &=+", "status": ["a", "b"], "follow": True, "limit": 5, "cursor": None}
    sent = request("GET", "/x", params=params)
    assert sent.query == "q=%ED%95%9C%EA%B8%80+%26%3D%2B&status=a&status=b&follow=true&limit=5"


def test_a_body_is_json_in_utf_8() -> None:
    sent = request("POST", "/x", body={"parameters": {"이름": "값", "n": 10**30}})
    assert sent.body == '{"parameters":{"이름":"값","n":%d}}'.encode() % 10**30
    assert sent.headers == {"Content-Type": "application/json"}


def _circle() -> dict[str, Any]:
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    return circle


@pytest.mark.parametrize(
    "value", [{"a": {1, 2}}, {"a": float("nan")}, {"a": "\udcff"}, _circle(), {"a": b"bytes"}]
)
def test_what_json_cannot_carry_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="parameter"):
        request("POST", "/x", body=value)


def test_what_a_query_cannot_carry_is_refused() -> None:
    with pytest.raises(UsageError, match="UTF-8") as caught:
        request("GET", "/x", params={"service": "sync", "q": "a\udcff"})
    assert r"'a\udcff'" in caught.value.cause
    assert "sync" not in caught.value.cause


# ---------------------------------------------------------------------------- who is told the token
MINE = TaskRef("7", "sync", "alice")


OF_A_USER: dict[str, Callable[[], Any]] = {
    "submit": lambda: calls.submit("sync", "alice", {}),
    "get": lambda: calls.get(MINE),
    "cancel": lambda: calls.cancel(MINE),
    "delete": lambda: calls.delete(MINE),
    "search": lambda: calls.search(service="sync", user="alice"),
    "counts": lambda: calls.counts("sync", "alice"),
    "users": lambda: calls.users("sync"),
    "definitions": calls.definitions,
    "health": calls.health,
}
OF_AN_OPERATOR: dict[str, Callable[[], Any]] = {
    "get": lambda: calls.get("7"),
    "cancel": lambda: calls.cancel("7"),
    "delete": lambda: calls.delete("7"),
    "search": calls.search,
    "search a service": lambda: calls.search(service="sync"),
    "search a user": lambda: calls.search(user="alice"),
    "counts": lambda: calls.counts("sync"),
    "services": calls.services,
    "pause": lambda: calls.change_mode("sync", "pause"),
}


@pytest.mark.parametrize("name", OF_A_USER)
def test_no_user_is_told_the_token(name: str) -> None:
    assert not first(OF_A_USER[name]()).operator


@pytest.mark.parametrize("name", OF_AN_OPERATOR)
def test_an_operators_request_carries_the_token(name: str) -> None:
    assert first(OF_AN_OPERATOR[name]()).operator


def test_a_search_is_asked_for_by_the_names_of_the_api() -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    sent = first(
        calls.search(
            task_id="7", service="sync", status=["FAILED", "x"], text="a", created_after=noon
        )
    )
    assert sent.path == "/admin/services/sync/tasks"
    assert sent.query == (
        "id=7&status=FAILED&status=x&q=a&created_after=2026-11-21T12%3A00%3A00%2B00%3A00"
    )
    assert first(calls.search(user="alice")).query == "user_id=alice"
    assert first(calls.search(user="alice", service="s")).path == "/services/s/users/alice/tasks"


def test_an_option_that_a_search_does_not_have() -> None:
    with pytest.raises(UsageError, match="colour"):
        calls.search(colour="red")
    with pytest.raises(UsageError) as caught:
        calls.search(createdAfter="2026-01-01")
    assert "did you mean created_after?" in str(caught.value)


def test_a_users_changes_need_the_service() -> None:
    with pytest.raises(UsageError, match="service"):
        calls.changes(user="alice")


# ------------------------------------------------------------------------------------------ address
@pytest.mark.parametrize(
    "base",
    [
        *("localhost:8000", "ftp://x/", "http://", "", "http://[::1/api", "http://h/?a=1"),
        *("http://h/#a", "http://h:99999/", "http://h:x/"),
    ],
)
def test_an_address_that_is_none(base: str) -> None:
    with pytest.raises(AddressError, match="not the address"):
        address(base)


@pytest.mark.parametrize("base", ["http://user:can:a/ry@h/", "http://user:canary@h/?x=1"])
def test_a_password_is_not_shown_where_the_address_is_wrong(base: str) -> None:
    with pytest.raises(AddressError) as caught:
        address(base)
    assert "ary" not in str(caught.value)


def test_an_address_is_taken_apart() -> None:
    found = address("http://user:canary@127.0.0.1:8000/api/v1/")
    assert found.shown == "http://user:***@127.0.0.1:8000/api/v1"
    assert found.url(GET) == "http://user:canary@127.0.0.1:8000/api/v1/x"
    plain = address("https://dms.example/dms/api/v1")
    assert plain.url(GET) == "https://dms.example/dms/api/v1/x"
    assert plain.url(Request("GET", "/readyz", at_origin=True)) == "https://dms.example/readyz"


@pytest.mark.parametrize(
    ("base", "loopback"),
    [
        ("http://127.0.0.1/", True),
        ("http://127.9.9.9:1/", True),
        ("http://[::1]:80/", True),
        ("http://localhost/", True),
        ("http://dms.localhost/", True),
        ("http://localhost.example/", False),
        ("http://10.0.0.1/", False),
    ],
)
def test_no_proxy_is_asked_for_loopback(base: str, loopback: bool) -> None:
    assert address(base).loopback is loopback


# ------------------------------------------------------------------------------------------ answers
def problem(status: int, slug: str = "of-a-test", **more: Any) -> Answer:
    """A problem as DMS tells it."""
    body = {"type": f"urn:dms:problem:{slug}", "title": "t", "detail": "because of x", **more}
    kind = {"content-type": "application/problem+json"}
    return Answer("here", status, kind, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "sent", "kind"),
    [
        (400, GET, RefusedError),
        (401, GET, AuthError),
        (403, POST, AuthError),
        (404, GET, NotFoundError),
        (409, POST, ConflictError),
        (413, POST, RefusedError),
        (422, POST, RefusedError),
        (429, GET, RefusedError),
        (500, GET, UnexpectedAnswerError),
        (502, GET, UnavailableError),
        (503, GET, UnavailableError),
        (503, POST, OutcomeUnknownError),
        (504, POST, OutcomeUnknownError),
    ],
)
def test_a_refusal_is_told_in_the_services_words(
    status: int, sent: Request, kind: type[ClientError]
) -> None:
    with pytest.raises(ClientError, match="because of x") as caught:
        check(problem(status, request_id="r-1"), sent)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.kind) == (status, "of-a-test")
    assert caught.value.request_id == "r-1"
    assert "r-1" in str(caught.value)


def test_nothing_was_stored_where_the_schema_could_not_be_asked_for() -> None:
    with pytest.raises(UnavailableError) as caught:
        check(problem(503, "scheduler-unavailable"), POST)
    assert not isinstance(caught.value, OutcomeUnknownError)


@pytest.mark.parametrize(
    "answer",
    [Answer("here", 404, {}, b"nginx"), problem(404, "not-found"), Answer("here", 302, {}, b"")],
    ids=["another server", "DMS below another prefix", "a redirect"],
)
def test_the_wrong_root_is_recognised(answer: Answer) -> None:
    with pytest.raises(AddressError):
        check(answer, GET)


@pytest.mark.parametrize("after", [("7", 7.0), ("soon", 0.0), ("-3", 0.0), ("nan", 0.0)])
def test_retry_after(after: tuple[str, float]) -> None:
    text, seconds = after
    answer = Answer("here", 503, {"retry-after": text}, b"")
    with pytest.raises(UnavailableError) as caught:
        check(answer, GET)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"\xff", b"[" * 100_000, b"null"])
def test_an_answer_that_is_not_ours(body: bytes) -> None:
    with pytest.raises(UnexpectedAnswerError, match="not DMS's"):
        json_object(Answer("here", 200, {}, body))


def test_every_error_is_a_client_error_with_a_cause() -> None:
    error = NotFoundError("no task '7'", "look", status=404)
    assert isinstance(error, ClientError)
    assert str(error) == "no task '7': look"
