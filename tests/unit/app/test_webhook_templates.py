"""Templates of a webhook's parameters: what is filled in, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadInputError, ConfigurationError
from app.services.webhook_templates import MAX_FILLED_BYTES, Template

VALUES: dict[str, Any] = {
    "payload": {
        "repository": {"full_name": "octocat/Hello", "id": 17, "private": True},
        "commits": [{"id": "a1"}, {"id": "b2"}],
        "ratio": 0.5,
        "nothing": None,
        "이름": "값",
        "a-b": "dash",
        "tricky": "{{ payload.ratio }}",
    },
    "webhook": "deploys",
    "delivery": "d-1",
    "event": "push",
}


def fill(text: str) -> Any:
    """What becomes of one text."""
    return Template({"x": text}).fill(VALUES)["x"]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("/d/{{ payload.repository.full_name }}/x", "/d/octocat/Hello/x"),
        ("{{payload.repository.full_name}}", "octocat/Hello"),
        ("{{ payload.commits.1.id }}", "b2"),
        ("{{ payload.repository.id }}", 17),
        ("n{{ payload.repository.id }}", "n17"),
        ("{{ payload.repository.private }}", True),
        ("{{ payload.repository.private }}!", "true!"),
        ("{{ payload.ratio }}/{{ payload.ratio }}", "0.5/0.5"),
        ("{{ payload.commits }}", [{"id": "a1"}, {"id": "b2"}]),
        ("{{ payload.nothing }}", None),
        ("{{ payload.이름 }}을", "값을"),
        ("{{ payload.a-b }}", "dash"),
        ("{{ webhook }} {{ delivery }} {{ event }}", "deploys d-1 push"),
        ("{{{{ payload }}", "{{ payload }}"),
        ("}} {{{{{{ webhook }}", "}} {{deploys"),
        ("{{ payload.tricky }}", "{{ payload.ratio }}"),  # what is sent is not a template
    ],
)
def test_what_is_filled_in(text: str, filled: Any) -> None:
    assert fill(text) == filled
    assert type(fill(text)) is type(filled)


def test_texts_anywhere_and_names_as_they_are() -> None:
    parameters = {"{{ webhook }}": [{"a": ["{{ webhook }}", 1, None]}], "n": 3}
    filled = Template(parameters).fill(VALUES)
    assert filled == {"{{ webhook }}": [{"a": ["deploys", 1, None]}], "n": 3}
    assert parameters["{{ webhook }}"] == [{"a": ["{{ webhook }}", 1, None]}]


@pytest.mark.parametrize(
    "text",
    ["{{", "{{ webhook", "{{ }}", "{{ other }}", "{{ payload..a }}", "{{ .a }}", "{{ webhook.a }}",
     "{{ payload.a b }}", "{{ payload.a | upper }}", "{{ payload[0] }}x{{ }}", "{{ {webhook} }}"],
)  # fmt: skip
def test_what_means_nothing_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^p\.list\[1\]\.key: "):
        Template({"list": ["fine", {"key": text}]}, "p")


@pytest.mark.parametrize(
    "path",
    ["gone", "repository.gone", "commits.2.id", "commits.-1", "commits.x", "commits.²", "ratio.a",
     "nothing.a", "이름.0", "commits.999999999999"],
)  # fmt: skip
def test_what_was_not_sent_is_named(path: str) -> None:
    with pytest.raises(BadInputError, match=rf"^parameters\.x asks for {{{{ payload\.{path} }}}}"):
        fill(f"{{{{ payload.{path} }}}}")


@pytest.mark.parametrize("path", ["commits", "repository", "nothing"])
def test_only_texts_and_numbers_stand_in_texts(path: str) -> None:
    with pytest.raises(BadInputError, match="into a text"):
        fill(f"a{{{{ payload.{path} }}}}")


def test_what_grows_too_large_is_refused() -> None:
    template = Template(
        {"x": "{{ payload }}{{ payload }}"[: len("{{ payload }}")], "y": "{{ event }}" * 9}
    )
    with pytest.raises(BadInputError, match="bytes"):
        template.fill({"payload": {}, "event": "x" * (MAX_FILLED_BYTES // 8)})


@given(st.dictionaries(st.text(), st.recursive(st.text() | st.integers(), st.lists), max_size=5))
def test_what_has_no_placeholder_stays_itself(parameters: dict[str, Any]) -> None:
    try:
        template = Template(parameters)
    except ConfigurationError:
        assert "{{" in str(parameters)
        return
    if "{{" not in str(parameters):
        assert template.fill(VALUES) == parameters


@given(st.text())
def test_any_text_survives_being_sent(text: str) -> None:
    value = {"payload": {"t": text}}
    assert Template({"x": "{{ payload.t }}", "y": "<{{ payload.t }}>"}).fill(value) == {
        "x": text,
        "y": f"<{text}>",
    }
