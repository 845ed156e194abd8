"""The client of the API: what each kind of answer, and none, means to the caller."""

import json

import pytest

from cli.client import Api, OutcomeUnknownError, UnreachableError, route
from cli.errors import CliError, ExitCode
from cli.follow import follow_logs
from cli.up.plan import Reservation
from tests.support.scripted_server import Reply, ScriptedServer, answer, problem

ACCEPTED = answer({"task_id": "7", "status": "PENDING"}, 202)


def quick(base: str, token: str | None = None) -> Api:
    """A client whose pauses take no time."""
    return Api(base, token, pause=lambda _: None)


def test_user_data_in_a_path_is_quoted() -> None:
    assert route("services", "a b?c", "users", "김") == "/services/a%20b%3Fc/users/%EA%B9%80"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_what_would_be_another_path_is_no_name(name: str) -> None:
    with pytest.raises(CliError, match="is not a name") as caught:
        route("services", name, "users")
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ExitCode.ERROR),
        (401, ExitCode.AUTH),
        (403, ExitCode.AUTH),
        (404, ExitCode.NOT_FOUND),
        (409, ExitCode.ERROR),
        (422, ExitCode.ERROR),
        (500, ExitCode.ERROR),
        (503, ExitCode.UNREACHABLE),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(status: int, code: ExitCode) -> None:
    with (
        ScriptedServer([problem(status, "because of x")]) as server,
        quick(server.base) as api,
        pytest.raises(CliError, match="because of x") as caught,
    ):
        api.call("GET", "/x")
    assert caught.value.code is code


@pytest.mark.parametrize(
    "reply",
    [Reply(404, b"nginx"), problem(404, "no such route", kind="not-found")],
    ids=["another server", "DMS below another prefix"],
)
def test_the_wrong_root_is_recognised(reply: Reply) -> None:
    with (
        ScriptedServer([reply]) as server,
        quick(server.base) as api,
        pytest.raises(CliError, match="not the root of a DMS API"),
    ):
        api.call("GET", "/x")


def test_an_answer_that_is_not_ours() -> None:
    with (
        ScriptedServer([Reply(200, b"<html>")]) as server,
        quick(server.base) as api,
        pytest.raises(CliError, match="something that is not DMS's"),
    ):
        api.call("GET", "/x")


def test_nobody_there() -> None:
    reserved = Reservation(0)
    with (
        quick(f"http://127.0.0.1:{reserved.port}/api/v1") as api,
        pytest.raises(UnreachableError, match="cannot reach") as caught,
    ):
        api.create("/x", key="k")
    reserved.close()
    assert caught.value.code is ExitCode.UNREACHABLE
    assert "dms-frontend up" in caught.value.remedy


@pytest.mark.parametrize(
    "base",
    [
        "localhost:8000",
        "ftp://x/",
        "http://",
        "",
        "http://[::1/api",
        "http://h/?a=1",
        "http://h/#a",
    ],
)
def test_an_address_that_is_none(base: str) -> None:
    with pytest.raises(CliError, match="not the address") as caught:
        Api(base)
    assert caught.value.code is ExitCode.USAGE


def test_a_create_is_repeated_with_the_same_key() -> None:
    replies = [Reply(drop=True), problem(503, "away", **{"Retry-After": "1"}), ACCEPTED]
    with ScriptedServer(replies) as server, quick(server.base) as api:
        assert api.create("/x", key="the-key", body={"parameters": {"a": "1"}})["task_id"] == "7"
    assert [asked.headers["idempotency-key"] for asked in server.asked] == ["the-key"] * 3
    assert {asked.body for asked in server.asked} == {
        json.dumps({"parameters": {"a": "1"}}, separators=(",", ":")).encode()
    }


def test_a_create_is_not_repeated_for_ever() -> None:
    with (
        ScriptedServer([problem(503, "away")]) as server,
        quick(server.base) as api,
        pytest.raises(OutcomeUnknownError, match="unknown") as caught,
    ):
        api.create("/x", key="the-key")
    assert len(server.asked) == 5
    assert "--idempotency-key the-key" in caught.value.remedy


def test_a_refused_create_is_not_repeated() -> None:
    with (
        ScriptedServer([problem(422, "no")]) as server,
        quick(server.base) as api,
        pytest.raises(CliError),
    ):
        api.create("/x", key="k")
    assert len(server.asked) == 1


@pytest.mark.parametrize("token", ["canary비밀", "canary\n", "canary ", " canary", "can\tary"])
def test_a_token_that_no_header_can_carry(token: str) -> None:
    with pytest.raises(CliError, match="token") as caught:
        Api("http://127.0.0.1/api/v1", token)
    assert caught.value.code is ExitCode.USAGE
    assert "ary" not in f"{caught.value.cause} {caught.value.remedy}"


@pytest.mark.parametrize("key", ["한글", "x ", "a\nb"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with (
        ScriptedServer([ACCEPTED]) as server,
        quick(server.base) as api,
        pytest.raises(CliError, match="idempotency key") as caught,
    ):
        api.create("/x", key=key)
    assert caught.value.code is ExitCode.USAGE
    assert server.asked == []


def test_a_password_in_the_address_is_not_shown() -> None:
    reserved = Reservation(0)
    with (
        quick(f"http://user:can:a/ry@127.0.0.1:{reserved.port}/api/v1") as api,
        pytest.raises(CliError) as caught,
    ):
        api.call("GET", "/x")
    reserved.close()
    assert "ary" not in f"{caught.value.cause} {caught.value.remedy}"


def event_stream(*events: tuple[str, str, object]) -> Reply:
    """A stream of (id, name, data), which then breaks off."""
    body = "".join(
        f"id: {number}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        for number, name, data in events
    )
    return Reply(200, body.encode(), {"Content-Type": "text/event-stream"})


def test_a_broken_stream_is_taken_up_after_the_last_line() -> None:
    replies = [
        event_stream(
            ("1", "log", {"n": 1, "line": "t,하나"}),
            ("2", "log", {"n": 2, "line": "t,with \u2028 inside"}),
        ),
        Reply(drop=True),
        problem(503, "starting"),
        event_stream(
            ("3", "log", {"n": 3, "line": "t,three"}), ("3", "end", {"status": "COMPLETED"})
        ),
    ]
    with ScriptedServer(replies) as server, quick(server.base) as api:
        lines = list(follow_logs(api, "/logs", "alice", pause=lambda _: None))
    assert lines == ["t,하나", "t,with \u2028 inside", "t,three"]
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "2", "2", "2"]


def test_following_a_task_that_is_not_there() -> None:
    with (
        ScriptedServer([problem(404, "no task '7'")]) as server,
        quick(server.base) as api,
        pytest.raises(CliError, match="no task") as caught,
    ):
        list(follow_logs(api, "/logs", "alice", pause=lambda _: None))
    assert caught.value.code is ExitCode.NOT_FOUND


def test_a_task_that_is_deleted_while_it_is_followed() -> None:
    with (
        ScriptedServer([event_stream(("1", "end", {"status": None}))]) as server,
        quick(server.base) as api,
        pytest.raises(CliError, match="deleted") as caught,
    ):
        list(follow_logs(api, "/logs", "alice", pause=lambda _: None))
    assert caught.value.code is ExitCode.NOT_FOUND
