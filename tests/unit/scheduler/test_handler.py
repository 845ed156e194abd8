"""What a handler's return values and exceptions mean, and what is hidden of them."""

import asyncio
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field

from app.tasks import (
    LeaseLost,
    PermanentFailure,
    RetryLater,
    Task,
    TaskCancelled,
    TaskControl,
    TaskDefinition,
    TaskOptions,
    TasksError,
)
from dms_scheduler.ending import retry_delay
from dms_scheduler.handler import MAX_RESULT_BYTES, TaskView, call_inline, failed, succeeded
from dms_scheduler.masking import mask
from dms_scheduler.plain import plain, plain_text

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VIEW = TaskView(
    id="1", service="t", user_id="u", parameters={}, created_at=MOMENT, updated_at=MOMENT,
    started_at=MOMENT, attempts=1, max_attempts=3, epoch=1, description=None,
)  # fmt: skip
NO_CONTROL = cast("TaskControl", None)


class Model(BaseModel):
    at: datetime


@pytest.mark.parametrize(
    ("returned", "data"),
    [
        (None, None),
        ("텍스트", "텍스트"),
        ({"at": MOMENT}, {"at": "2026-01-02T03:04:05Z"}),
        (Model(at=MOMENT), {"at": "2026-01-02T03:04:05Z"}),
        ([Path("/a"), {1}], ["/a", [1]]),
        ({"status": "success", "data": 5}, 5),
        ({"status": "success", "rows": 5}, {"status": "success", "rows": 5}),
        ({"status": "done"}, {"status": "done"}),
        ({"name": "a\udcff"}, {"name": "a\\udcff"}),
    ],
)
def test_results_become_json(returned: object, data: object) -> None:
    outcome = succeeded(returned)
    assert (outcome.kind, outcome.data) == ("success", data)


def test_a_message_of_success_goes_to_the_log() -> None:
    outcome = succeeded({"status": "success", "message": "all well", "data": [1]})
    assert (outcome.message, outcome.data) == ("all well", [1])


@pytest.mark.parametrize(
    ("returned", "error", "data"),
    [
        ({"status": "failure", "message": "full", "data": 1}, "full", 1),
        ({"status": "failure", "code": 3}, "without a message", {"code": 3}),
    ],
)
def test_a_returned_failure_is_final(returned: object, error: str, data: object) -> None:
    outcome = succeeded(returned)
    assert (outcome.kind, outcome.retryable, outcome.data) == ("failure", False, data)
    assert error in (outcome.error or "")


@pytest.mark.parametrize("returned", [object(), math.nan, [math.inf], b"\xff", {"f": print}])
def test_what_json_cannot_hold_is_a_failure(returned: object) -> None:
    outcome = succeeded(returned)
    assert (outcome.kind, outcome.retryable) == ("failure", False)
    assert "cannot be written as JSON" in (outcome.error or "")


def test_endless_nesting_is_a_failure() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert succeeded(endless).kind == "failure"


def test_a_huge_result_is_a_failure_that_says_what_to_do() -> None:
    outcome = succeeded("x" * MAX_RESULT_BYTES)
    assert "write large results to a file" in (outcome.error or "")


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (ValueError("v"), "failure", True),
        (PermanentFailure("p"), "failure", False),
        (RetryLater("r"), "failure", True),
        (TaskCancelled("c"), "cancelled", True),
        (asyncio.CancelledError(), "cancelled", True),
        (LeaseLost("l"), "lease_lost", True),
        (SystemExit(3), "failure", True),
        (KeyboardInterrupt(), "failure", True),
    ],
)
def test_exceptions_have_a_meaning(error: BaseException, kind: str, retryable: bool) -> None:
    outcome = failed(error)
    assert (outcome.kind, outcome.retryable, outcome.worn) == (kind, retryable, True)


def test_failures_carry_data_and_delay() -> None:
    assert failed(PermanentFailure("p", {"at": MOMENT})).data == {"at": "2026-01-02T03:04:05Z"}
    assert failed(RetryLater("r", delay_seconds=7)).delay_seconds == 7
    assert failed(RetryLater("r")).counted
    assert not failed(RetryLater("r", counted=False)).counted
    bad = failed(PermanentFailure("p", object()))
    assert (bad.error or "").startswith("p (the handler's result cannot be written")


def test_secrets_are_masked() -> None:
    parameters = {
        "password": "hunter2",
        "nested": {"api_key": ["k-1", "k-12"]},
        "dst": "/data",
        "AuthToken": "t0k",
    }
    text = "hunter2 k-1 k-12 /data t0k redis://user:p%40ss@host/0 https://h:1/x@y"
    assert mask(text, parameters) == "*** *** *** /data *** redis://user:***@host/0 https://h:1/x@y"


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_text_can_be_stored(text: str) -> None:
    plain_text(text).encode()
    assert plain({text: [text]}) == {plain_text(text): [plain_text(text)]}


@given(st.integers(1, 10_000), st.floats(0, 100), st.floats(0, 100), st.floats(0, 1))
def test_retries_wait_longer_up_to_a_limit(
    attempts: int, first: float, most: float, jitter: float
) -> None:
    given_: dict[str, Any] = {"retry_delay_seconds": first, "retry_max_delay_seconds": most}
    options = TaskOptions(**given_, jitter=jitter)
    delay = retry_delay(options, attempts)
    full = min(most, first * 2.0 ** min(attempts - 1, 32))
    assert (1 - jitter) * full - 1e-9 <= delay <= full
    fixed = TaskOptions(**given_, retry="fixed", jitter=jitter)
    assert (1 - jitter) * min(first, most) - 1e-9 <= retry_delay(fixed, attempts)
    assert retry_delay(fixed, attempts) <= min(first, most)
    assert retry_delay(TaskOptions(**given_, retry="fixed", jitter=0), 9) == min(first, most)


@pytest.mark.parametrize("retry", ["fixed", "exponential"])
def test_the_delay_varies_by_a_quarter_unless_told_otherwise(retry: Any) -> None:
    delays = [retry_delay(TaskOptions(retry=retry, retry_delay_seconds=8), 1) for _ in range(500)]
    assert 6 <= min(delays) < 6.5
    assert 7.5 < max(delays) <= 8


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rows: int
    at: datetime = MOMENT
    secret: str = Field(default="", exclude=True)

    @computed_field
    @property
    def twice(self) -> int:
        """A value that is written, and could not be read back."""
        return 2 * self.rows


def of(result: Any) -> TaskDefinition[Any, Any]:
    """A definition with that type of result."""
    return TaskDefinition("t", lambda _: None, TaskOptions(result=result))


ROWS = {"rows": 3, "at": "2026-01-02T03:04:05Z", "twice": 6}


@pytest.mark.parametrize(
    ("type_", "returned", "data"),
    [
        (Strict, Strict(rows=3), ROWS),
        (Strict, {"rows": "3"}, ROWS),
        (Strict, {"status": "success", "data": {"rows": 3}}, ROWS),
        (Strict, {"status": "success", "message": "m", "data": Strict(rows=3)}, ROWS),
        (list[Strict], [Strict(rows=3), {"rows": 3}], [ROWS, ROWS]),
        (Strict | None, None, None),
        (Strict | None, {"status": "success"}, None),
        (set[int], {1}, [1]),
        (dict[str, str], {"status": "success", "rows": "x"}, {"status": "success", "rows": "x"}),
        (Path, Path("/a\udcff"), "/a\\udcff"),
    ],
)
def test_a_result_that_fits_is_written_by_its_type(type_: Any, returned: Any, data: Any) -> None:
    outcome = succeeded(returned, of(type_))
    assert (outcome.kind, outcome.data) == ("success", data)


@pytest.mark.parametrize(
    ("type_", "returned", "where"),
    [
        (Strict, None, "result: Input should be"),
        (Strict, {"rows": "hunter2"}, "rows: Input should be a valid integer"),
        (Strict, {"rows": 1, "more": "hunter2"}, "more: Extra inputs are not permitted"),
        (Strict, {"status": "success"}, "result: Input should be"),
        (Strict, {"status": "success", "data": {"rows": None}}, "rows: Input should be"),
        (int, "hunter2", "result: Input should be a valid integer"),
    ],
)
def test_a_result_that_does_not_fit_is_final(type_: Any, returned: Any, where: str) -> None:
    outcome = succeeded(returned, of(type_))
    assert (outcome.kind, outcome.retryable, outcome.data) == ("failure", False, None)
    error = outcome.error or ""
    assert error.startswith("the handler's result does not fit its definition: ")
    assert where in error
    assert "hunter2" not in error


def test_a_result_that_was_spoilt_after_its_making_is_refused() -> None:
    outcome = succeeded([Strict.model_construct(rows="many")], of(list[Strict]))
    assert (outcome.kind, outcome.retryable) == ("failure", False)


def test_a_returned_failure_needs_no_fitting_data() -> None:
    outcome = succeeded({"status": "failure", "message": "full", "data": "x"}, of(Strict))
    assert (outcome.kind, outcome.error, outcome.data) == ("failure", "full", "x")


def test_a_model_that_looks_like_an_envelope_is_data() -> None:
    class Report(BaseModel):
        status: str

    outcome = succeeded(Report(status="failure"), of(Report))
    assert (outcome.kind, outcome.data) == ("success", {"status": "failure"})


def test_a_validator_that_breaks_is_a_final_failure_with_its_traceback() -> None:
    def explode(value: int) -> int:
        raise RuntimeError("a bug in the validator")

    outcome = succeeded(1, of(Annotated[int, AfterValidator(explode)]))
    assert (outcome.kind, outcome.retryable) == ("failure", False)
    assert outcome.error == "RuntimeError: a bug in the validator"
    assert "explode" in (outcome.traceback or "")


class Silent(Exception):
    """An exception whose message cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (Silent(), "Silent: (its message cannot be shown: RuntimeError in its __str__)"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "the handler left its process by sys.exit(3)"),
        (ValueError("x" * 10_000_000), "ValueError: " + "x" * 65_536),
    ],
    ids=["silent", "interrupt", "exit", "long"],
)
@pytest.mark.parametrize("sync", [True, False], ids=["thread", "coroutine"])
async def test_whatever_is_raised_inline_is_an_outcome(
    error: BaseException, shown: str, sync: bool
) -> None:
    """Nothing of it may reach the worker's event loop, which would end with it."""

    def function(task: Task[Any]) -> None:
        raise error

    async def coroutine(task: Task[Any]) -> None:
        raise error

    definition = TaskDefinition("t", function if sync else coroutine)
    outcome = await call_inline(definition, VIEW, NO_CONTROL)
    assert (outcome.kind, outcome.error, outcome.retryable) == ("failure", shown, True)
    assert len(outcome.traceback or "") <= 16_384


def test_a_long_traceback_begins_with_a_whole_line() -> None:
    def deep(number: int) -> None:
        if number == 0:
            raise ValueError("password " * 5000 + "\nlast line")
        deep(number - 1)

    with pytest.raises(ValueError, match="last line") as caught:
        deep(100)
    assert failed(caught.value).traceback == "last line\n"


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, 1e9])
def test_a_delay_that_is_none_fails_where_it_is_made(delay: float) -> None:
    with pytest.raises(TasksError, match="is no delay; give 0 to"):
        RetryLater("later", delay_seconds=delay)


class Busy(RetryLater):
    """A subclass that never calls its base."""

    def __init__(self, delay: object = None) -> None:
        Exception.__init__(self, "busy")
        if delay is not None:
            self.__dict__["delay_seconds"] = delay


@pytest.mark.parametrize("delay", [None, -1, math.nan, "soon", 1e9])
def test_a_careless_subclass_is_retried_as_its_definition_says(delay: object) -> None:
    outcome = failed(Busy(delay))
    assert (outcome.kind, outcome.error, outcome.retryable) == ("failure", "busy", True)
    assert (outcome.delay_seconds, outcome.data) == (None, None)


async def test_a_failure_in_a_task_group_is_what_it_is_outside_of_one() -> None:
    async def gone() -> None:
        raise PermanentFailure("there is no such thing", data=[1])

    async def handler(task: Task[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(gone())
            group.create_task(gone())

    outcome = await call_inline(TaskDefinition("t", handler), VIEW, NO_CONTROL)
    assert (outcome.error, outcome.retryable, outcome.data) == (
        "there is no such thing",
        False,
        [1],
    )


def test_a_group_of_different_errors_names_the_first() -> None:
    outcome = failed(ExceptionGroup("two", [ValueError("one"), KeyError("other")]))
    assert outcome.error == "ExceptionGroup: two (2 sub-exceptions): ValueError: one; ..."
