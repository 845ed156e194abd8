"""Log lines: one object a line, fields beside the message, nothing that steers a terminal."""

import json
import logging
import sys
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.config import Settings
from app.core.logging import (
    JsonFormatter,
    PrettyFormatter,
    clean,
    configure_logging,
    request_id_var,
)
from tests.support.frontend import logging_restored

HOSTILE = 'x\x1b[31m\x1b]0;title\x07\n{"level": "ERROR"}\r\x00\u2028\x9b31m 한글'


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.getLogger("t").makeRecord("t", logging.INFO, "f", 1, message, (), None)
    made.__dict__.update(fields)
    return made


@pytest.fixture
def request_id() -> Generator[str]:
    token = request_id_var.set("abc-123")
    yield "abc-123"
    request_id_var.reset(token)


def test_fields_stand_beside_a_constant_message(request_id: str) -> None:
    line = JsonFormatter().format(
        record("Task accepted", action="task.submit", task_id="1", ms=1.5)
    )
    entry = json.loads(line)
    assert entry["message"] == "Task accepted"
    assert entry["level"] == "INFO"
    assert (entry["action"], entry["task_id"], entry["ms"]) == ("task.submit", "1", 1.5)
    assert entry["request_id"] == request_id
    assert entry["time"].endswith("+09:00")


@pytest.mark.parametrize("formatter", [JsonFormatter(), PrettyFormatter()])
def test_user_data_cannot_forge_a_line(formatter: logging.Formatter) -> None:
    line = formatter.format(record(HOSTILE, user_id=HOSTILE, deep={"k\x1b[1m": [HOSTILE]}))
    assert line.isprintable()
    assert "title" not in line
    assert "한글" in line


def test_a_traceback_is_one_field() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        made = record("It failed")
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exception"]
    pretty = PrettyFormatter().format(made)
    assert all(part.isprintable() for part in pretty.split("\n"))


def test_odd_values_are_texts_and_reserved_names_stay() -> None:
    nested: list[object] = []
    nested.append(nested)
    entry = json.loads(
        JsonFormatter().format(record("m", level="forged", value={1, 2}, loop=nested, bad="\ud800"))
    )
    assert entry["level"] == "INFO"
    assert sorted(entry["value"]) == [1, 2]
    assert entry["bad"] == "?"


@given(st.text())
def test_clean_is_one_printable_line_and_keeps_plain_text(text: str) -> None:
    result = clean(text)
    assert not set(result) & set("\n\r\x1b\x07\x9b\u2028")
    if text.isprintable():
        assert result == text


def test_configuring_twice_writes_once(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_restored():
        configure_logging(Settings(log_json=False))
        configure_logging(Settings(log_json=True, log_level="WARNING"))
        logging.getLogger("some.module").warning("Once", extra={"action": "test"})
        logging.getLogger("some.module").info("Never")
        logging.getLogger("uvicorn.error").error("Adopted")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["message"] for line in lines] == ["Once", "Adopted"]
