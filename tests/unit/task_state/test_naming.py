"""Names and ids: the patterns, their lengths, and words that were misspelled."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from task_state.models import Name, TaskId
from task_state.naming import is_name, is_task_id, meant

NAME = TypeAdapter[str](Name)
TASK_ID = TypeAdapter[str](TaskId)
TEXTS = st.one_of(st.text(), st.text("ab.@-_ \n", max_size=140))


def _takes(adapter: TypeAdapter[str], text: str) -> bool:
    try:
        adapter.validate_python(text)
    except ValidationError:
        return False
    return True


@given(TEXTS)
def test_a_name_has_its_letters_and_is_no_step_in_a_path(text: str) -> None:
    wanted = re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", text) is not None and bool(text.strip("."))
    assert is_name(text) == wanted
    assert _takes(NAME, text) == wanted


@given(TEXTS)
def test_an_id_has_its_letters_and_is_no_step_in_a_path(text: str) -> None:
    wanted = re.fullmatch(r"[A-Za-z0-9._-]{1,128}", text) is not None and bool(text.strip("."))
    assert is_task_id(text) == wanted
    assert _takes(TASK_ID, text) == wanted


@pytest.mark.parametrize("length", [1, 2, 3, 64, 128])
def test_dots_alone_are_neither(length: int) -> None:
    assert not is_name("." * length)
    assert not is_task_id("." * length)


@pytest.mark.parametrize(("text", "fits"), [("a" * 64, True), ("a" * 65, False), ("..a", True)])
def test_the_ends_of_a_name(text: str, fits: bool) -> None:
    assert is_name(text) is fits


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("createdAfter", "created_after"),
        ("create_after", "created_after"),
        ("created-after", "created_after"),
        ("Status", "status"),
        ("x" * 100_000, None),
        ("", None),
        ("zzz", None),
    ],
)
def test_the_word_that_was_meant(word: str, wanted: str | None) -> None:
    assert meant(word, ("status", "created_after", "created_before")) == wanted
