"""The two faces are one client: the same methods, what they import, what they read and show."""

import ast
import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import app.client
from app.client import (
    AsyncClient,
    Client,
    ClientError,
    Lost,
    TaskRef,
    UnexpectedAnswerError,
    UsageError,
)
from app.client import _results as results
from task_state import TaskStatus

FOLDER = Path(app.client.__file__).parent
MINE = TaskRef("7", "sync", "alice")
TASK: dict[str, Any] = {
    "task_id": "7",
    "service": "sync",
    "user_id": "alice",
    "status": "running",
    "created_at": "2026-11-21T12:00:00.000001+09:00",
    "result": {"data": {"이름": [1]}, "error": None},
}


# --------------------------------------------------------------------------------------- the same
def _methods(face: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in vars(face).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


def _as_sync(signature: inspect.Signature) -> str:
    return str(signature).replace("Async", "").replace("Awaitable[None]", "None")


def test_both_faces_have_the_same_methods_and_arguments() -> None:
    sync, other = _methods(Client), _methods(AsyncClient)
    other["close"] = other.pop("aclose")
    assert sync.keys() == other.keys()
    assert len(sync) > 20
    assert [name for name in sync if _as_sync(sync[name]) != _as_sync(other[name])] == []
    assert list(inspect.signature(Client).parameters) == list(
        inspect.signature(AsyncClient).parameters
    )


def test_both_faces_say_the_same_of_each_method() -> None:
    for name in _methods(Client).keys() - {"close"}:
        assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name))


# ------------------------------------------------------------------------------- what they import
def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_it_needs_task_state_and_httpx2_alone() -> None:
    """pydantic comes with task_state, whose models need it."""
    allowed = {"task_state", "httpx2", "pydantic"}
    found = {name for path in FOLDER.glob("*.py") for name in _imports(path)}
    outside = {
        name
        for name in found
        if name.split(".")[0] not in sys.stdlib_module_names | allowed
        and not name.startswith("app.client")
    }
    assert outside == set()


@pytest.mark.parametrize(
    ("program", "never"),
    [
        ("import app.client", ("pydantic", "httpx2", "asyncio", "task_state")),
        ("from app.client import Client", ("pydantic", "asyncio", "task_state")),
        ("import cli.main", ("pydantic", "httpx2", "asyncio", "task_state", "rich.console")),
    ],
    ids=["the package", "the client that blocks", "the command line"],
)
def test_a_short_command_does_not_load_what_it_does_not_need(
    program: str, never: tuple[str, ...]
) -> None:
    code = f"{program}\nimport sys\nprint(*[name for name in {never!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clients"):
        _ = app.client.Clients  # pyright: ignore[reportAttributeAccessIssue]


# ---------------------------------------------------------------------------------- what they show
def answering(value: Any, status: int = 200) -> httpx2.MockTransport:
    """A network that answers everything so."""
    return httpx2.MockTransport(lambda _: httpx2.Response(status, json=value))


def test_the_token_is_not_shown() -> None:
    with Client("http://u:canary-1@h/api", token="canary-2", transport=answering({})) as client:
        assert "canary" not in repr(client)
        assert client.base_url == "http://u:***@h/api"


@pytest.mark.parametrize("token", ["canary비밀", "canary\n", "canary ", " canary", "can\tary"])
def test_a_token_that_no_header_can_carry(token: str) -> None:
    with pytest.raises(UsageError, match="token") as caught:
        Client("http://127.0.0.1/api/v1", token=token)
    assert "ary" not in str(caught.value)


def test_address_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx2.Request] = []

    def network(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, json={"services": [], "users": []})

    monkeypatch.setenv("DMS_API_BASE", "http://dms.example/prefix/")
    monkeypatch.setenv("DMS_OPERATOR_TOKEN", "of-the-environment")
    with Client(transport=httpx2.MockTransport(network)) as client:
        client.services()
        client.users("sync")
    with Client(token="", transport=httpx2.MockTransport(network)) as client:
        client.services()
    assert [str(request.url) for request in asked[:2]] == [
        "http://dms.example/prefix/admin/services",
        "http://dms.example/prefix/services/sync/users",
    ]
    tokens = [request.headers.get("x-operator-token") for request in asked]
    assert tokens == ["of-the-environment", None, None]
    monkeypatch.delenv("DMS_API_BASE")
    assert Client().base_url == "http://127.0.0.1:8000/api/v1"


def test_a_proxy_of_the_environment_is_asked_for_other_machines_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []

    class Spy(httpx2.Client):
        def __init__(self, **options: Any) -> None:
            seen.append(options["trust_env"])
            super().__init__(**options)

    monkeypatch.setattr(httpx2, "Client", Spy)
    Client("http://127.0.0.1/api").close()
    Client("http://dms.example/api").close()
    assert seen == [False, True]


# ---------------------------------------------------------------------------------- what they read
def test_what_a_newer_service_adds_does_no_harm() -> None:
    newer = {
        **TASK,
        "colour": "red",
        "queue_position": 3,
        "result": {**TASK["result"], "checksum": "x"},
        "history": [
            {
                "epoch": 1,
                "attempt": 1,
                "worker": "w",
                "ended_at": "2026-11-21T12:00:00Z",
                "outcome": "evicted",
                "reason": "새 이유",
                "node": "n",
            }
        ],
    }
    with Client("http://h/api", transport=answering({"task": newer, "more": 1})) as client:
        task = client.get(MINE)
    assert (task.status, task.queue_position) == (TaskStatus.RUNNING, 3)
    assert task.result.data == {"이름": [1]}
    assert [(note.outcome, note.reason) for note in task.history] == [("evicted", "새 이유")]


def test_what_an_older_service_lacks_has_its_default() -> None:
    with Client("http://h/api", transport=answering({"task": TASK})) as client:
        task = client.get(MINE)
    assert (task.logs, task.history, task.queue_position) == ([], [], None)
    assert task.created_at.microsecond == 1


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"task": None},
        {"task": []},
        {"task": {"status": "RUNNING"}},
        {"task": {**TASK, "status": 1}},
    ],
    ids=["none", "null", "a list", "without an id", "a status that is none"],
)
def test_an_answer_of_another_form_is_told(answer: Any) -> None:
    with (
        Client("http://h/api", transport=answering(answer)) as client,
        pytest.raises(UnexpectedAnswerError),
    ):
        client.get(MINE)


CALLS: dict[str, Callable[[Client], object]] = {
    "search": lambda client: client.search(),
    "search_all": lambda client: list(client.search_all()),
    "counts": lambda client: client.counts(),
    "users": lambda client: client.users("s"),
    "definitions": lambda client: client.definitions(),
    "services": lambda client: client.services(),
    "service": lambda client: client.service("s"),
    "pause": lambda client: client.pause("s"),
    "wait_idle": lambda client: client.wait_idle("s"),
    "health": lambda client: client.health(),
    "get": lambda client: client.get(MINE),
    "get by id": lambda client: client.get("7"),
    "wait": lambda client: client.wait(MINE),
    "logs": lambda client: client.logs(MINE),
    "cancel": lambda client: client.cancel(MINE),
    "delete": lambda client: client.delete(MINE),
    "submit": lambda client: client.submit("s", "u"),
    "retry": lambda client: client.retry(MINE),
}
NONSENSE: dict[str, Any] = {
    "nothing": {},
    "other types": {"tasks": 1, "users": 1, "services": [1], "definitions": [{}], "task": 1},
    "a list": [],
    "null": None,
}


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("call", CALLS)
def test_no_answer_raises_anything_but_a_client_error(call: str, nonsense: str) -> None:
    with (
        Client("http://h/api", transport=answering(NONSENSE[nonsense])) as client,
        pytest.raises(ClientError),
    ):
        CALLS[call](client)


def test_counts_name_the_states_that_this_client_knows() -> None:
    found = {
        "total": 3,
        "by_status": {"FAILED": 2, "FROZEN": 1},
        "by_service": {"sync": 3},
        "by_user": None,
    }
    counts = results.counts(found)
    assert counts.total == 3
    assert counts.by_status == {TaskStatus.FAILED: 2}
    assert (counts.by_service, counts.by_user) == ({"sync": 3}, None)


def test_a_change_or_what_was_lost() -> None:
    data = {**dict.fromkeys(("kind", "task_id", "service", "user_id", "status"), "x"), "a": 1}
    assert results.change(("9-0", "task.status", data)) == app.client.Change(
        "9-0", "x", "x", "x", "x", "x"
    )
    assert results.change(("", "lost", {})) == Lost()


def test_a_change_is_told_once() -> None:
    told: list[str] = []
    seen = results.when_changed(lambda task: told.append(task.status))
    for status in ("PENDING", "PENDING", "RUNNING", "RUNNING"):
        seen({**TASK, "status": status})
    assert told == ["PENDING", "RUNNING"]


async def test_waiting_can_be_given_up() -> None:
    """A cancelled wait ends at once, in the pause or in a request, and stays cancelled."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"task": TASK}))
    async with AsyncClient("http://h/api", transport=transport) as client:
        waiting = asyncio.create_task(client.wait(MINE))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
