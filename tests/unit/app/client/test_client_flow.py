"""The client's decisions without any I/O: when it asks again, and when it gives up."""

import json
from collections.abc import Generator
from typing import Any

import pytest

from app.client._flow import (
    PATIENCE_SECONDS,
    Emit,
    Event,
    Listen,
    NextEvent,
    Pause,
    Send,
    changes,
    log_lines,
    pages,
    poll,
    submission,
)
from app.client._request import Answer, Request, request
from app.client.errors import (
    ClientError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
    UnexpectedAnswerError,
    UsageError,
    WaitTimeoutError,
)

POST = request("POST", "/tasks", body={"parameters": {}})
GET = request("GET", "/task")
AWAY = UnavailableError("away", status=503)
REFUSED = UnavailableError("cannot reach it", reached=False)
CUT = OutcomeUnknownError("cut")
END = None


class Script:
    """Plays the network for a flow: gives the outcomes in turn, and notes what was asked.

    A dictionary answers a request; text opens a stream; an Event or None (its end) is in it.
    """

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[Request] = []
        self.pauses: list[float] = []
        self.emitted: list[Any] = []
        self.now = 0.0

    def clock(self) -> float:
        """Seconds that only pauses let pass."""
        return self.now

    def run(self, flow: Generator[Any, Any, Any]) -> Any:
        """Carry the flow out; its result, or its error."""
        step = next(flow)
        try:
            while True:
                step = self._tell(flow, step)
        except StopIteration as done:
            return done.value

    def _tell(self, flow: Generator[Any, Any, Any], step: Any) -> Any:
        if isinstance(step, Pause):
            assert step.seconds > 0
            self.pauses.append(step.seconds)
            self.now += step.seconds
            return flow.send(None)
        if isinstance(step, Emit):
            self.emitted.append(step.item)  # pyright: ignore[reportUnknownMemberType]
            return flow.send(None)
        if isinstance(step, (Send, Listen)):
            self.asked.append(step.request)
        else:
            assert isinstance(step, NextEvent)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, ClientError):
            return flow.throw(outcome)
        if isinstance(outcome, dict):
            outcome = Answer("here", 200, {}, json.dumps(outcome).encode())
        return flow.send(outcome)


# -------------------------------------------------------------------------------------- submissions
def test_a_submission_is_repeated_with_one_key_until_the_outcome_is_known() -> None:
    script = Script(CUT, REFUSED, AWAY, {"task_id": "7"})
    found = script.run(submission(POST, "the-key"))
    assert found == {"task_id": "7", "idempotency_key": "the-key"}
    assert [sent.headers["Idempotency-Key"] for sent in script.asked] == ["the-key"] * 4
    assert {sent.body for sent in script.asked} == {POST.body}


def test_a_key_is_made_up_where_none_is_given() -> None:
    keys = {Script({"task_id": "7"}).run(submission(POST, None))["idempotency_key"] for _ in "ab"}
    assert len(keys) == 2


def test_a_submission_to_nobody_fails_at_once() -> None:
    script = Script(REFUSED)
    with pytest.raises(UnavailableError, match="cannot reach") as caught:
        script.run(submission(POST, "k"))
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert len(script.asked) == 1


def test_once_unknown_it_stays_unknown_although_nobody_answers_later() -> None:
    """The frontend died with the request in its hands, and is not back yet."""
    script = Script(CUT, *[REFUSED] * 9)
    with pytest.raises(OutcomeUnknownError, match="unknown") as caught:
        script.run(submission(POST, "the-key"))
    assert caught.value.idempotency_key == "the-key"
    assert "the-key" in caught.value.remedy
    assert len(script.asked) == 5


def test_what_certainly_did_nothing_is_repeated_and_told_as_such() -> None:
    script = Script(*[AWAY] * 9)
    with pytest.raises(UnavailableError) as caught:
        script.run(submission(POST, "k"))
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert len(script.asked) == 5


def test_the_service_is_given_the_time_it_asks_for_but_not_any_time() -> None:
    asks = [UnavailableError("away", status=503, retry_after=after) for after in (3.0, 9999.0)]
    script = Script(*asks, {"task_id": "7"})
    script.run(submission(POST, "k"))
    assert script.pauses == [3.0, 5.0]


@pytest.mark.parametrize("key", ["", "한글", "x ", "a\nb", "\udcff"])
def test_a_key_that_no_header_can_carry_is_not_sent(key: str) -> None:
    script = Script()
    with pytest.raises(UsageError, match="idempotency key"):
        script.run(submission(POST, key))
    assert script.asked == []


# -------------------------------------------------------------------------------------------- waits
def wait(script: Script, timeout: float | None = None) -> Any:
    """Wait for an answer that says `over`."""
    return script.run(
        poll(
            GET,
            over=lambda found: found["over"],
            timeout=timeout,
            what="it has not ended",
            clock=script.clock,
        )
    )


GOING: dict[str, Any] = {"over": False}
OVER: dict[str, Any] = {"over": True}


def test_a_restart_of_the_frontend_is_sat_out() -> None:
    assert wait(Script(GOING, *[AWAY, REFUSED] * 10, GOING, OVER)) == OVER


def test_each_new_silence_has_the_whole_patience() -> None:
    script = Script(*([AWAY] * 50 + [GOING]) * 3, OVER)
    assert wait(script) == OVER
    assert script.now > PATIENCE_SECONDS


def test_silence_for_long_is_said() -> None:
    with pytest.raises(UnavailableError, match="away"):
        wait(Script(GOING, *[AWAY] * 500))


def test_pauses_grow_to_a_second() -> None:
    script = Script(*[GOING] * 20, OVER)
    wait(script)
    assert script.pauses[0] == 0.1
    assert script.pauses == sorted(script.pauses)
    assert script.pauses[-1] == 1.0


def test_a_wait_ends_when_its_time_is_over() -> None:
    script = Script(*[GOING] * 100)
    with pytest.raises(WaitTimeoutError, match="within 5 seconds") as caught:
        wait(script, timeout=5)
    assert isinstance(caught.value, TimeoutError)
    assert script.now == pytest.approx(5)


def test_a_wait_of_no_time_looks_once() -> None:
    assert wait(Script(OVER), timeout=0) == OVER
    with pytest.raises(WaitTimeoutError):
        wait(Script(GOING), timeout=0)


def test_a_request_does_not_outlast_the_wait() -> None:
    script = Script(*[GOING] * 100)
    with pytest.raises(WaitTimeoutError):
        wait(script, timeout=3)
    assert script.asked[0].timeout == 3
    assert min(sent.timeout or 0 for sent in script.asked) == 1


def test_what_is_gone_ends_the_wait() -> None:
    with pytest.raises(NotFoundError):
        wait(Script(GOING, NotFoundError("no task")))


# -------------------------------------------------------------------------------------------- pages
def test_pages_follow_the_cursor_over_a_restart() -> None:
    script = Script({"tasks": [1], "next_cursor": "c1"}, AWAY, REFUSED, {"tasks": [2]})
    cursors: list[str | None] = []

    def sent(cursor: str | None) -> Request:
        cursors.append(cursor)
        return GET

    script.run(pages(sent, script.clock))
    assert [page["tasks"] for page in script.emitted] == [[1], [2]]
    assert cursors == [None, "c1"]
    assert len(script.asked) == 4


# --------------------------------------------------------------------------------------------- logs
def line(number: int) -> Event:
    """A log line's event."""
    return Event("log", json.dumps({"n": number, "line": f"t,줄 {number}"}), str(number))


def ended(status: str | None) -> Event:
    """A followed task's last event."""
    return Event("end", json.dumps({"status": status}))


def follow(script: Script, offset: int = 0) -> list[str]:
    """Follow to the end."""
    script.run(log_lines(lambda after: request("GET", "/logs", params={"o": after}), offset))
    return script.emitted


def test_a_broken_log_is_taken_up_after_its_last_line() -> None:
    script = Script(
        "s1", line(1), line(2), AWAY, REFUSED, AWAY, "s2", line(3), END, "s3", ended("FAILED")
    )
    assert follow(script, -5) == ["t,줄 1", "t,줄 2", "t,줄 3"]
    assert [sent.headers.get("Last-Event-ID") for sent in script.asked] == [
        *(None, "2", "2", "2", "3")
    ]
    assert [sent.query for sent in script.asked] == ["o=-5", "o=2", "o=2", "o=2", "o=3"]


def test_a_line_that_comes_twice_is_given_once() -> None:
    """A proxy that drops Last-Event-ID makes the service begin anew."""
    script = Script("s", line(1), line(2), AWAY, "s", line(1), line(2), line(3), ended("COMPLETED"))
    assert follow(script) == ["t,줄 1", "t,줄 2", "t,줄 3"]


def test_a_quiet_stream_keeps_the_whole_patience() -> None:
    """However long nothing was said, a break is sat out from when it came."""
    script = Script("s", line(1), *[AWAY] * 50, "s", *[AWAY] * 50, "s", ended("COMPLETED"))
    script.run(log_lines(lambda _: GET, 0, script.clock))
    assert script.emitted == ["t,줄 1"]
    silent = Script("s", *[AWAY] * 500)
    with pytest.raises(UnavailableError):
        silent.run(log_lines(lambda _: GET, 0, silent.clock))


def test_a_task_that_is_deleted_while_it_is_followed() -> None:
    with pytest.raises(NotFoundError, match="deleted"):
        follow(Script("s", line(1), ended(None)))


@pytest.mark.parametrize(
    "event",
    [
        Event("log", "[]"),
        Event("log", "{"),
        Event("log", '{"n": "1", "line": "x"}'),
        Event("end", "1"),
    ],
)
def test_a_stream_that_is_not_ours(event: Event) -> None:
    with pytest.raises(UnexpectedAnswerError):
        follow(Script("s", event))


# ------------------------------------------------------------------------------------------ changes
def test_changes_go_on_after_the_last_one() -> None:
    change = Event("task.status", '{"task_id": "7"}', "9-0")
    start = Event("message", "", "5-0")  # the id that a stream begins with
    script = Script("s", start, AWAY, "s", change, Event("lost", "{}"), END, "s", *[AWAY] * 500)
    with pytest.raises(UnavailableError):
        script.run(changes(GET, None, script.clock))
    assert script.emitted == [
        ("9-0", "task.status", {"task_id": "7"}),
        ("", "lost", {}),
    ]
    asked = [sent.headers.get("Last-Event-ID") for sent in script.asked]
    assert asked[:3] == [None, "5-0", "9-0"]
    assert set(asked[3:]) == {"9-0"}
