"""Both faces of the client against a server that cuts, stalls, redirects and talks nonsense."""

import json
import threading
from collections.abc import AsyncGenerator

import pytest

from app.client import (
    AddressError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    TaskRef,
    TaskShown,
    UnavailableError,
    UnexpectedAnswerError,
)
from cli.up.plan import Reservation
from tests.support.client_faces import FACES, Face, FaceName, face_of
from tests.support.scripted_server import Reply, ScriptedServer, answer, problem

MINE = TaskRef("7", "sync", "alice")
ACCEPTED = answer({"task_id": "7", "status": "PENDING"}, 202)
TASK = {"task_id": "7", "service": "sync", "user_id": "alice", "status": "COMPLETED"}
DONE = answer({"task": TASK})


@pytest.fixture(params=FACES)
def name(request: pytest.FixtureRequest) -> FaceName:
    """Every test is run on both faces."""
    return request.param


def stream(*events: tuple[str, str, object], cut: int | None = None) -> Reply:
    """A stream of (id, name, data), which then breaks off."""
    body = "".join(
        f"id: {number}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        for number, name, data in events
    ).encode()
    return Reply(200, body, {"Content-Type": "text/event-stream; charset=utf-8"}, cut=cut)


def line(number: int, text: str = "t,줄") -> tuple[str, str, object]:
    """A log line's event."""
    return (str(number), "log", {"n": number, "line": f"{text} {number}"})


async def lines(face: Face) -> list[str]:
    """The whole log as it is followed."""
    return [text async for text in face.each("follow", MINE)]


# --------------------------------------------------------------------------------------- one answer
async def test_a_submission_is_repeated_with_the_same_key(name: FaceName) -> None:
    cut = Reply(202, ACCEPTED.body, {"Content-Type": "application/json"}, cut=5)
    replies = [Reply(drop=True), cut, problem(503, "away", **{"Retry-After": "1"}), ACCEPTED]
    with ScriptedServer(replies) as server:
        async with face_of(name, server.base, quick=True) as face:
            made = await face.call("submit", "sync", "alice", {"이름": "값"}, idempotency_key="k")
    assert (made.task_id, made.idempotency_key) == ("7", "k")
    assert [asked.headers["idempotency-key"] for asked in server.asked] == ["k"] * 4
    assert {asked.body for asked in server.asked} == {'{"parameters":{"이름":"값"}}'.encode()}


async def test_a_submission_is_not_repeated_for_ever(name: FaceName) -> None:
    with ScriptedServer([problem(503, "away")]) as server:
        async with face_of(name, server.base, quick=True) as face:
            with pytest.raises(OutcomeUnknownError, match="unknown") as caught:
                await face.call("submit", "sync", "alice")
    assert len(server.asked) == 5
    assert server.asked[0].headers["idempotency-key"] == caught.value.idempotency_key


async def test_a_refused_submission_is_not_repeated(name: FaceName) -> None:
    with ScriptedServer([problem(422, "no")]) as server:
        async with face_of(name, server.base, quick=True) as face:
            with pytest.raises(RefusedError, match="no"):
                await face.call("submit", "sync", "alice")
    assert len(server.asked) == 1


async def test_nobody_there(name: FaceName) -> None:
    reserved = Reservation(0)
    async with face_of(name, f"http://127.0.0.1:{reserved.port}/api/v1", quick=True) as face:
        with pytest.raises(UnavailableError, match="cannot reach") as caught:
            await face.call("submit", "sync", "alice")
    reserved.close()
    assert not isinstance(caught.value, OutcomeUnknownError)


@pytest.mark.parametrize("call", ["get", "cancel"])
async def test_an_answer_that_does_not_come_in_time(name: FaceName, call: str) -> None:
    """What only reads is unavailable; of a change nobody knows whether it was made."""
    release = threading.Event()
    with ScriptedServer([Reply(after=release)]) as server:
        async with face_of(name, server.base, timeout=2.0) as face:
            with pytest.raises(UnavailableError, match="no whole answer") as caught:
                await face.call(call, MINE)
        release.set()
    assert isinstance(caught.value, OutcomeUnknownError) is (call == "cancel")


async def test_a_redirect_is_not_followed(name: FaceName) -> None:
    with ScriptedServer([DONE]) as other:
        away = Reply(307, b"", {"Location": f"{other.base}/x"})
        with ScriptedServer([away]) as server:
            async with face_of(name, server.base, token="t") as face:
                with pytest.raises(AddressError, match="redirect"):
                    await face.call("services")
    assert other.asked == []


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"\xff\xfe", b'{"task": 7}'])
async def test_an_answer_that_is_not_ours(name: FaceName, body: bytes) -> None:
    with ScriptedServer([Reply(200, body)]) as server:
        async with face_of(name, server.base) as face:
            with pytest.raises(UnexpectedAnswerError):
                await face.call("get", MINE)


async def test_a_wait_sits_out_what_passes(name: FaceName) -> None:
    running = answer({"task": {**TASK, "status": "RUNNING"}})
    replies = [running, Reply(drop=True), problem(503, "starting"), running, DONE]
    seen: list[TaskShown] = []
    with ScriptedServer(replies) as server:
        async with face_of(name, server.base, quick=True) as face:
            task = await face.call("wait", MINE, on_change=seen.append)
    assert task.status == "COMPLETED"
    assert [told.status for told in seen] == ["RUNNING", "COMPLETED"]
    assert len(server.asked) == 5


async def test_all_pages_come_over_a_break(name: FaceName) -> None:
    first = answer({"tasks": [TASK], "next_cursor": "c 1", "total": 2})
    last = answer({"tasks": [{**TASK, "task_id": "8"}], "next_cursor": None, "total": 2})
    with ScriptedServer([first, Reply(drop=True), last]) as server:
        async with face_of(name, server.base, quick=True) as face:
            found = [
                task.task_id
                async for task in face.each("search_all", service="s", user="u", offset=3)
            ]
    assert found == ["7", "8"]
    queries = [asked.path.partition("?")[2] for asked in server.asked]
    assert queries == ["offset=3", "cursor=c+1", "cursor=c+1"]


# ------------------------------------------------------------------------------------------ streams
async def test_a_broken_stream_is_taken_up_after_the_last_line(name: FaceName) -> None:
    whole = stream(line(1), line(2, "t,with \u2028 inside"))
    torn = stream(line(3), line(4), cut=len(stream(line(3)).body) + 20)
    replies = [
        *(whole, Reply(drop=True), problem(503, "starting"), torn),
        stream(line(4), ("4", "end", {"status": "COMPLETED"})),
    ]
    with ScriptedServer(replies) as server:
        async with face_of(name, server.base, quick=True) as face:
            found = await lines(face)
    assert found == ["t,줄 1", "t,with \u2028 inside 2", "t,줄 3", "t,줄 4"]
    asked = [asked.headers.get("last-event-id") for asked in server.asked]
    assert asked == [None, "2", "2", "2", "3"]
    assert {asked.headers["accept"] for asked in server.asked} == {"text/event-stream"}


async def test_following_a_task_that_is_not_there(name: FaceName) -> None:
    with ScriptedServer([problem(404, "no task '7'")]) as server:
        async with face_of(name, server.base, quick=True) as face:
            with pytest.raises(NotFoundError, match="no task"):
                await lines(face)


async def test_a_task_that_is_deleted_while_it_is_followed(name: FaceName) -> None:
    with ScriptedServer([stream(line(1), ("1", "end", {"status": None}))]) as server:
        async with face_of(name, server.base, quick=True) as face:
            with pytest.raises(NotFoundError, match="deleted"):
                await lines(face)


@pytest.mark.parametrize(
    "reply",
    [
        DONE,
        stream(("1", "log", ["x"])),
        Reply(200, b"data: " + b"x" * 3_000_000, {"Content-Type": "text/event-stream"}),
    ],
    ids=["no stream", "a line of another form", "an event without end"],
)
async def test_a_stream_that_is_not_ours(name: FaceName, reply: Reply) -> None:
    with ScriptedServer([reply]) as server:
        async with face_of(name, server.base, quick=True) as face:
            with pytest.raises(UnexpectedAnswerError):
                await lines(face)
    assert len(server.asked) == 1


async def test_a_follower_may_leave_early(name: FaceName) -> None:
    with ScriptedServer([stream(line(1), line(2), line(3))]) as server:
        async with face_of(name, server.base) as face:
            found = await _first(face.each("follow", MINE))
    assert found == "t,줄 1"


async def _first(items: AsyncGenerator[str]) -> str:
    try:
        return await anext(items)
    finally:
        await items.aclose()


async def test_changes_go_on_after_a_break(name: FaceName) -> None:
    def change(number: int, status: str) -> tuple[str, str, object]:
        data = {"kind": "status", "task_id": "7", "service": "s", "user_id": "u", "status": status}
        return (f"{number}-0", "task.status", data)

    replies = [
        stream(change(1, "RUNNING")),
        Reply(drop=True),
        stream(("2-0", "lost", {}), change(3, "COMPLETED")),
    ]
    with ScriptedServer(replies) as server:
        async with face_of(name, server.base, quick=True) as face:
            items = face.each("changes", "s", "u", after="0-7")
            found = [await anext(items) for _ in range(3)]
            await items.aclose()
    assert [getattr(item, "status", "lost") for item in found] == ["RUNNING", "lost", "COMPLETED"]
    asked = [asked.headers.get("last-event-id") for asked in server.asked[:3]]
    assert asked == ["0-7", "1-0", "1-0"]
