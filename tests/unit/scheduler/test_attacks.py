"""Handlers that do what they must not, each in a real child process: the worker's side hears an
outcome or a clear end, never nonsense, and never waits for ever."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from dms_scheduler.children import Child, ChildDied, ChildSettings, protocol
from dms_scheduler.children.child import Link
from dms_scheduler.handler import MOST_LINE_CHARACTERS, Outcome
from dms_scheduler.shown import MAX_PROGRESS_BYTES
from tests.unit.scheduler.test_children import LATER, Words, view

SETTINGS = ChildSettings(modules=("tests.support.attacks",))


@pytest.fixture
async def child() -> AsyncGenerator[Child]:
    started = await Child.start(SETTINGS)
    yield started
    await started.kill()


async def run(child: Child, service: str, words: Words | None = None, **given: Any) -> Outcome:
    """Run one job to its end, within a minute."""
    async with asyncio.timeout(60):
        return await child.run(view(service, given), LATER, words or Words())


@pytest.mark.parametrize("then", ["return", "open"])
async def test_a_handler_that_closes_the_channel_is_told_so(
    child: Child, tmp_path: Path, then: str
) -> None:
    with pytest.raises(ChildDied, match="the handler closed its process's channel"):
        await run(child, "a.close-all", folder=str(tmp_path), then=then)
    assert all(each.read_bytes() == b"" for each in tmp_path.glob("mine.*")), "no word in its files"


@pytest.mark.parametrize("what", ["text", "a wrong end"])
async def test_nonsense_in_the_channel_ends_the_attempt(child: Child, what: str) -> None:
    """At once, although the handler itself would go on for an hour."""
    with pytest.raises(ChildDied, match="the child's words make no sense"):
        await run(child, "a.nonsense", what=what, seconds=3600)
    assert not child.usable


FORGED: list[Any] = [
    {"hello": 1},
    {"kind": "dance"},
    {"kind": "log"},
    {"kind": "log", "message": 5},
    {"kind": "progress", "values": 5, "advanced": True},
    {"kind": "progress", "values": {}, "advanced": "yes"},
    {"kind": "report", "data": "!", "lines": 1, "failed": False},
    {"kind": "report", "data": "", "lines": 0, "failed": False},
    {"kind": "report", "data": "", "lines": 1},
    {"kind": "end"},
    {"kind": "end", "outcome": 7},
    {"kind": "end", "outcome": {}},
    {"kind": "end", "outcome": {"kind": "dance"}},
    {"kind": "end", "outcome": {"kind": "failure", "colour": "red"}},
    {"kind": "end", "outcome": {"kind": "failure", "error": 5}},
    {"kind": "end", "outcome": {"kind": "failure", "retryable": "no"}},
    {"kind": "end", "outcome": {"kind": "failure", "delay_seconds": "soon"}},
    {"kind": "ready", "pid": "7"},
    [1],
]


@pytest.mark.parametrize("number", range(len(FORGED)))
async def test_what_a_child_cannot_have_said_is_refused(number: int) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(protocol.encode(FORGED[number]))
    with pytest.raises(ValueError, match=r"message|outcome|argument"):
        await protocol.read(reader)


async def test_what_a_child_says_is_read_as_it_was_said() -> None:
    reader = asyncio.StreamReader()
    outcome = Outcome(kind="failure", error="\udcff", delay_seconds=2.0, data={"a": [1]})
    reader.feed_data(protocol.encode({"kind": "log", "message": "파일 \udcff"}))
    reader.feed_data(protocol.encode({"kind": "progress", "values": None, "advanced": True}))
    reader.feed_data(protocol.encode({"kind": "end", "outcome": outcome.to_json()}))
    reader.feed_eof()
    assert await protocol.read(reader) == protocol.Log("파일 \udcff")
    assert await protocol.read(reader) == protocol.Progress(None, advanced=True)
    assert await protocol.read(reader) == protocol.End(outcome)
    assert await protocol.read(reader) is None


async def test_a_few_bytes_in_the_channel_are_noticed_with_the_next_word(child: Child) -> None:
    with pytest.raises(ChildDied, match="written to by somebody else"):
        await run(child, "a.nonsense", what="short")


async def test_forks_of_a_handler_may_log(child: Child) -> None:
    words = Words()
    outcome = await run(child, "a.fork-and-speak", words)
    assert (outcome.kind, outcome.data) == ("success", "spoken")
    expected = [f"fork {fork} line {line}" for fork in range(4) for line in range(50)]
    assert sorted(words.lines) == sorted(expected)


async def test_progress_that_is_too_large_is_left_out_with_one_line(child: Child) -> None:
    words = Words()
    outcome = await run(child, "a.show-much", words, characters=MAX_PROGRESS_BYTES // 3)
    assert (outcome.kind, outcome.data) == ("success", "done")
    told, shown = words.lines
    assert told.startswith("Progress of 16394 bytes of JSON is not shown, only up to 16384 are")
    assert shown == "shown"
    assert words.values[0]["phase"] == "before"
    assert words.values[-1]["advanced"], "it has advanced all the same"
    assert not any("blob" in values for values in words.values)


async def test_progress_that_just_fits_is_shown(child: Child) -> None:
    words = Words()
    await run(child, "a.show-much", words, characters=(MAX_PROGRESS_BYTES - 11) // 3)
    assert words.lines == ["shown"]
    assert len(words.values[-1]["blob"]) == (MAX_PROGRESS_BYTES - 11) // 3


def test_progress_under_way_is_never_overtaken_by_the_end() -> None:
    """It would be taken for the next task's."""
    told: list[str] = []
    in_send, go_on = threading.Event(), threading.Event()

    class SlowLink(Link):
        def send(self, message: dict[str, Any]) -> None:
            in_send.set()
            go_on.wait()
            told.append(message["kind"])

    here, there = socket.socketpair()
    with here, there:
        link = SlowLink(here)
        link.progress({"done": 1}, advanced=True)
        sender = threading.Thread(target=link.flush_progress)
        sender.start()
        in_send.wait()
        threading.Timer(0.2, go_on.set).start()
        link.flush_progress()
        told.append("end")
        sender.join()
    assert told == ["progress", "end"]


async def test_a_line_of_any_length_is_no_failure(child: Child) -> None:
    words = Words()
    assert (await run(child, "a.novel", words)).kind == "success"
    assert [len(line) for line in words.lines] == [MOST_LINE_CHARACTERS + 1], "the journal cuts it"


RAISED = {
    "SystemExit": "the handler left its process by sys.exit(3)",
    "KeyboardInterrupt": "KeyboardInterrupt",
    "GeneratorExit": "GeneratorExit",
    "StopIteration": "StopIteration: 5",
    "no words": "Unspeakable: (its message cannot be shown: ValueError in its __str__)",
    "worse than no words": "Unprintable: (its message cannot be shown: SystemExit in its __str__)",
    "recursion": "RecursionError: maximum recursion depth exceeded",
    "a long chain": "ValueError: link 1999",
}


async def test_whatever_is_raised_is_an_outcome(child: Child) -> None:
    for what, error in RAISED.items():
        outcome = await run(child, "a.raise", what=what)
        assert outcome.kind == "failure", what
        assert (outcome.error or "").startswith(error)


async def test_whatever_is_returned_is_an_outcome(child: Child) -> None:
    for what in ("NaN", "recursive", "deep", "bytes", "huge", "socket"):
        outcome = await run(child, "a.return", what=what)
        assert (outcome.kind, outcome.retryable) == ("failure", False), what
        assert (outcome.error or "").startswith("the handler's result "), what


async def test_threads_that_are_left_wear_the_child_out(child: Child) -> None:
    outcome = await run(child, "a.threads")
    assert (outcome.kind, outcome.worn) == ("success", True)
