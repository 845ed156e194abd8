"""Events: made once, never changed, the same after their journey as JSON."""

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.event_system import (
    MAX_EVENT_BYTES,
    EventBase,
    EventDecodeError,
    EventEncodeError,
    TopicError,
    next_event_id,
)
from app.event_system.domain.events import as_type, decode_event, encode_event

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


class Order(EventBase):
    amount: float
    note: str = ""


class BigOrder(Order):
    approved_by: str


class Renamed(EventBase, type_name="shop.renamed"):
    what: str


class Anything(EventBase):
    value: Any = None


def test_what_an_event_has_of_itself() -> None:
    event = EventBase(topic="a.b")
    assert event.occurred_at.utcoffset() == timedelta(0)
    assert event.headers == {}
    assert event.event_id != EventBase(topic="a.b").event_id


def test_ids_are_unique_and_sorted() -> None:
    ids = [next_event_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    assert {(len(each), each[14], each[19] in "89ab") for each in ids} == {(36, "7", True)}


def test_events_do_not_change() -> None:
    event = Order(topic="a", amount=1, headers={"k": "v"})
    with pytest.raises(ValidationError, match="frozen"):
        event.amount = 2
    changes: list[Any] = [
        lambda: event.headers.update(k="w"),
        lambda: event.headers.pop("k"),
        event.headers.clear,
        lambda: event.headers.setdefault("x", "y"),
        event.headers.popitem,
        lambda: event.headers.__setitem__("k", "w"),
        lambda: event.headers.__delitem__("k"),
        lambda: event.headers.__ior__({"k": "w"}),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="make another event"):
            change()
    assert event.headers == {"k": "v"}


def test_headers_are_a_copy_of_what_was_given() -> None:
    given_headers = {"k": "v"}
    event = EventBase(topic="a", headers=given_headers)
    given_headers["k"] = "w"
    assert event.headers == {"k": "v"}


def test_copies_are_equal() -> None:
    event = Order(topic="a", amount=1, headers={"k": "v"})
    assert copy.copy(event) == copy.deepcopy(event) == event
    assert event.model_copy(deep=True) == pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic": "a.*"},
        {"topic": "a", "occurred_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - naive on purpose
        {"topic": "a", "headers": {"k": 1}},
        {"topic": "a", "event_id": ""},
        {"topic": "a", "event_id": "x" * 129},
        {},
    ],
)
def test_what_is_no_event(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EventBase(**wrong)


def test_names_that_are_left_to_users() -> None:
    class Reading(EventBase):
        timestamp: datetime
        source: str
        priority: str
        type: str

    event = Reading(
        topic="a", timestamp=datetime.now(UTC), source="api", priority="HIGH", type="reading"
    )
    assert decode_event(encode_event(event), Reading.type_name, Reading) == event


@given(JSON_VALUES, st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_the_journey_changes_nothing(value: object, headers: dict[str, str]) -> None:
    event = Anything(topic="a", value=value, headers=headers)
    encoded = encode_event(event)
    json.loads(encoded)
    assert decode_event(encoded, Anything.type_name, Anything) == event


def test_times_keep_their_instant() -> None:
    seoul = timezone(timedelta(hours=9))
    event = EventBase(topic="a", occurred_at=datetime(2026, 3, 1, 9, 30, 0, 123456, seoul))
    decoded = decode_event(encode_event(event), EventBase.type_name, EventBase)
    assert decoded.occurred_at == event.occurred_at
    assert decoded.occurred_at.utcoffset() == timedelta(hours=9)


def test_an_event_of_an_unknown_type_keeps_its_fields() -> None:
    encoded = encode_event(Order(topic="a", amount=2.5, note="메모"))
    decoded = decode_event(encoded, "elsewhere.Order", EventBase)
    assert type(decoded) is EventBase
    assert decoded.model_extra == {"amount": 2.5, "note": "메모"}
    assert json.loads(encode_event(decoded)) == json.loads(encoded)


def test_an_event_of_a_known_type_has_it() -> None:
    big = BigOrder(topic="a", amount=1, approved_by="kim")
    for wanted in (EventBase, Order, BigOrder):
        decoded = decode_event(encode_event(big), BigOrder.type_name, wanted)
        assert decoded == big
        assert type(decoded) is BigOrder


def test_an_event_of_another_type_becomes_what_was_asked_for() -> None:
    decoded = decode_event(encode_event(Order(topic="a", amount=1)), Order.type_name, Anything)
    assert type(decoded) is Anything
    with pytest.raises(EventDecodeError, match="no Renamed: what: Field required"):
        decode_event(encode_event(Order(topic="a", amount=1)), Order.type_name, Renamed)


def test_a_known_type_that_has_changed_since_is_no_obstacle() -> None:
    decoded = decode_event(b'{"topic": "a", "other": 1}', Order.type_name, EventBase)
    assert type(decoded) is EventBase
    assert decoded.model_extra == {"other": 1}
    with pytest.raises(EventDecodeError, match="no Order: amount"):
        decode_event(b'{"topic": "a", "amount": "many"}', Order.type_name, Order)


@pytest.mark.parametrize("garbage", [b"", b"null", b"[]", b"{", b"\xff", b'{"topic": "a b"}'])
def test_garbage_is_no_event(garbage: bytes) -> None:
    with pytest.raises(EventDecodeError, match="the event is no EventBase"):
        decode_event(garbage, "x", EventBase)


def test_type_names() -> None:
    assert Order.type_name == f"{__name__}.Order"
    assert Renamed.type_name == "shop.renamed"
    assert EventBase.type_name == "EventBase"


def test_the_largest_event() -> None:
    empty = len(encode_event(Order(topic="a", amount=1)))
    fits = Order(topic="a", amount=1, note="x" * (MAX_EVENT_BYTES - empty))
    assert len(encode_event(fits)) == MAX_EVENT_BYTES
    large = fits.model_copy(update={"note": fits.note + "x"})
    with pytest.raises(EventEncodeError, match=f"has {MAX_EVENT_BYTES + 1} bytes"):
        encode_event(large)


def test_what_has_no_json_says_so() -> None:
    for value in (object(), "\ud800"):
        with pytest.raises(EventEncodeError, match="cannot travel as JSON"):
            encode_event(Anything(topic="a", value=value))


def test_another_topic_is_another_event() -> None:
    event = Order(topic="a", amount=1)
    assert event.on("a") is event
    moved = event.on("b.c")
    assert (moved.topic, moved.event_id, event.topic) == ("b.c", event.event_id, "a")
    with pytest.raises(TopicError):
        event.on("b.*")


def test_as_type() -> None:
    big = BigOrder(topic="a", amount=1, approved_by="kim")
    assert as_type(big, Order) is big
    made = as_type(EventBase.model_validate({"topic": "a", "amount": 3}), Order)
    assert (type(made), made.amount) == (Order, 3)
    with pytest.raises(EventDecodeError, match="approved_by"):
        as_type(made, BigOrder)
