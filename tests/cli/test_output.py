"""What is shown cannot command the terminal, and stays aligned and whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.output import Format, clean, short_time, show_json, show_pairs, show_table, to_json


@given(st.text())
def test_clean_text_has_nothing_that_acts(text: str) -> None:
    shown = clean(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown)
    shown.encode()


def test_escape_sequences_become_visible() -> None:
    assert clean("\x1b[2J안녕\n\x9b31m\u202e") == r"\x1b[2J안녕\x0a\x9b31m\u202e"
    assert clean("name\udcff") == r"name\udcff"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_safe_and_means_the_same(value: object) -> None:
    for indent in (None, 2):
        text = to_json(value, indent=indent)
        assert json.loads(text) == value
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text.replace("\n", ""))


def test_json_keeps_readable_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"이름": "값"}, Format.JSONL)
    assert capsys.readouterr().out == '{"이름": "값"}\n'


def test_columns_align_by_cells_not_by_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("USER", "STATUS"), [("김철수", "RUNNING"), ("bob", "FAILED")])
    assert capsys.readouterr().out.splitlines() == [
        "USER    STATUS",
        "김철수  RUNNING",
        "bob     FAILED",
    ]


def test_nothing_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("ID",), [("x" * 500,)])
    assert "x" * 500 in capsys.readouterr().out


def test_pairs_leave_out_what_is_not_set(capsys: pytest.CaptureFixture[str]) -> None:
    show_pairs([("Task", "7"), ("Error", None), ("Jobs", []), ("Attempts", 0)])
    assert capsys.readouterr().out.splitlines() == ["Task      7", "Attempts  0"]


def test_short_time() -> None:
    assert short_time("2025-11-17T10:00:16.515926+09:00") == "2025-11-17 10:00:16+09:00"
    assert short_time("soon") == "soon"
    assert short_time(None) == ""
