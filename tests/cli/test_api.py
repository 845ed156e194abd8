"""What the client's errors mean to a command: the exit code, and a remedy that a command has."""

from pathlib import Path

import pytest

from app.client import UnavailableError, calls
from app.client.types import TaskRef
from cli.api import connected, in_our_words, task_of
from cli.errors import CliError, ExitCode
from cli.up.plan import Reservation
from tests.support.scripted_server import Reply, ScriptedServer, problem

MINE = TaskRef("7", "sync", "alice")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ExitCode.ERROR),
        (401, ExitCode.AUTH),
        (403, ExitCode.AUTH),
        (404, ExitCode.NOT_FOUND),
        (409, ExitCode.ERROR),
        (422, ExitCode.ERROR),
        (429, ExitCode.ERROR),
        (500, ExitCode.ERROR),
        (503, ExitCode.UNREACHABLE),
    ],
)
def test_a_refusal_is_told_in_the_services_words(status: int, code: ExitCode) -> None:
    with (
        ScriptedServer([problem(status, "because of x")]) as server,
        pytest.raises(CliError, match="because of x") as caught,
        connected(server.base) as api,
    ):
        api.run(calls.get(MINE))
    assert caught.value.code is code


def test_an_operator_is_told_the_option() -> None:
    with (
        ScriptedServer([problem(401, "no token")]) as server,
        pytest.raises(CliError) as caught,
        connected(server.base) as api,
    ):
        api.run(calls.services())
    assert "--operator-token" in caught.value.remedy


@pytest.mark.parametrize(
    "reply",
    [Reply(404, b"nginx"), problem(404, "no such route", kind="not-found")],
    ids=["another server", "DMS below another prefix"],
)
def test_the_wrong_root_is_recognised(reply: Reply) -> None:
    with (
        ScriptedServer([reply]) as server,
        pytest.raises(CliError, match="not the root of a DMS API") as caught,
        connected(server.base) as api,
    ):
        api.run(calls.get(MINE))
    assert caught.value.code is ExitCode.NOT_FOUND
    assert "--api-base" in caught.value.remedy


def test_an_answer_that_is_not_ours() -> None:
    with (
        ScriptedServer([Reply(200, b"<html>")]) as server,
        pytest.raises(CliError, match="something that is not DMS's") as caught,
        connected(server.base) as api,
    ):
        api.run(calls.get(MINE))
    assert caught.value.code is ExitCode.ERROR


def test_nobody_there() -> None:
    reserved = Reservation(0)
    with (
        pytest.raises(CliError, match="cannot reach") as caught,
        connected(f"http://127.0.0.1:{reserved.port}/api/v1") as api,
    ):
        api.run(calls.submit("sync", "alice", {}))
    reserved.close()
    assert caught.value.code is ExitCode.UNREACHABLE
    assert "dms-frontend up" in caught.value.remedy


def test_an_unknown_outcome_names_the_key_as_an_option() -> None:
    with (
        ScriptedServer([Reply(drop=True)]) as server,
        pytest.raises(CliError, match="unknown") as caught,
        connected(server.base) as api,
    ):
        api.run(calls.submit("sync", "alice", {}, idempotency_key="the-key"))
    assert caught.value.code is ExitCode.UNREACHABLE
    assert "--idempotency-key the-key" in caught.value.remedy


@pytest.mark.parametrize("base", ["localhost:8000", "", "http://h/?a=1", "http://h:x/"])
def test_an_address_that_is_none(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DMS_API_BASE", raising=False)
    with pytest.raises(CliError, match="not the address") as caught, connected(base):
        pytest.fail("connected")
    assert caught.value.code is ExitCode.USAGE
    assert "--api-base" in caught.value.remedy


@pytest.mark.parametrize("token", ["canary비밀", "canary\n", "can\tary"])
def test_a_token_that_no_header_can_carry(token: str) -> None:
    with (
        pytest.raises(CliError, match="token") as caught,
        connected("http://127.0.0.1/api/v1", token),
    ):
        pytest.fail("connected")
    assert caught.value.code is ExitCode.USAGE
    assert "ary" not in f"{caught.value.cause} {caught.value.remedy}"


@pytest.mark.parametrize("key", ["한글", "x ", "a\nb"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with (
        ScriptedServer([Reply()]) as server,
        pytest.raises(CliError, match="idempotency key") as caught,
        connected(server.base) as api,
    ):
        api.run(calls.submit("sync", "alice", {}, idempotency_key=key))
    assert caught.value.code is ExitCode.USAGE
    assert server.asked == []


def test_a_password_in_the_address_is_not_shown() -> None:
    reserved = Reservation(0)
    with (
        pytest.raises(CliError) as caught,
        connected(f"http://user:canary@127.0.0.1:{reserved.port}/api/v1") as api,
    ):
        api.run(calls.get(MINE))
    reserved.close()
    assert "canary" not in f"{caught.value.cause} {caught.value.remedy}"


def test_the_environments_token_is_the_options_business(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option has read it: a command that has no such option sends none."""
    monkeypatch.setenv("DMS_OPERATOR_TOKEN", "of-the-environment")
    with ScriptedServer([problem(401, "no")]) as server:
        with pytest.raises(CliError), connected(server.base) as api:
            api.run(calls.services())
        with pytest.raises(CliError), connected(server.base, "given") as api:
            api.run(calls.services())
    assert [asked.headers.get("x-operator-token") for asked in server.asked] == [None, "given"]


def test_a_task_is_named_by_its_owner_or_by_an_operator() -> None:
    assert task_of("7", "sync", "alice") == MINE
    assert task_of("7", None, None) == "7"
    for service, user in (("sync", None), (None, "alice"), ("", "alice")):
        with pytest.raises(CliError, match="belong together"):
            task_of("7", service, user)


def test_a_remedy_is_never_that_of_a_library() -> None:
    """No error that a command may show speaks of arguments in Python."""
    found = in_our_words(UnavailableError("x", "pass base_url, or set DMS_API_BASE", status=503))
    assert "base_url" not in found.remedy


def test_no_second_http_client() -> None:
    """`up` asks its own parts whether they are ready, by the standard library's client."""
    folder = Path(__file__).parents[2] / "cli"
    users = {path.name for path in folder.rglob("*.py") if "httpx2" in path.read_text("utf-8")}
    assert users == {"entry.py"}, "which only looks whether it is installed"
