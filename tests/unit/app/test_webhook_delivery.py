"""What a delivery is known by, and what of it an event carries."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.core.errors import BadInputError, PayloadTooLargeError
from app.event_system import MAX_EVENT_BYTES
from app.event_system.domain.events import encode_event
from app.services.webhook_delivery import Call, Delivery, event_of, identify
from app.services.webhook_file import load_webhooks
from tests.support.webhooks import PAYLOAD, Sent, by_github, by_standard, by_token, webhooks_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the file of webhooks."""
    webhooks_file(tmp_path)
    return tmp_path


def delivery(folder: Path, name: str, sent: Sent) -> Delivery:
    """The delivery of a call."""
    webhook = load_webhooks(folder / "webhooks.toml")[name]
    return identify(Call(webhook, sent.lines, sent.body), PAYLOAD)


def test_the_event_is_another_for_another_task_webhook_or_delivery(folder: Path) -> None:
    first = delivery(folder, "deploys", by_github(delivery="d-1"))
    others = [
        replace(first, task_id="17"),
        replace(first, task_id="18"),
        delivery(folder, "deploys", by_github(delivery="d-2")),
        delivery(folder, "plain", by_github(delivery="d-1")),
        delivery(folder, "bodies", by_github(delivery="d-1")),
    ]
    ids = {one.event_id for one in (first, *others)}
    assert len(ids) == len(others) + 1
    again = delivery(folder, "deploys", by_github(delivery="d-1", event="release"))
    assert (again.event_id, again.key) == (first.event_id, first.key)
    assert not first.key.isascii()  # so it is no client's


def test_a_call_without_a_key_is_a_delivery_of_its_own(folder: Path) -> None:
    names = {delivery(folder, "simple", by_token()).delivery_id for _ in range(3)}
    assert len(names) == 3
    assert delivery(folder, "simple", by_token(delivery="run 17")).delivery_id == "run 17"
    for odd in ("", "\t", "실행", "x" * 256):
        with pytest.raises(BadInputError, match="Idempotency-Key"):
            delivery(folder, "simple", by_token(delivery=odd))


def test_bodies_are_known_by_every_byte(folder: Path) -> None:
    ids = [
        delivery(folder, "bodies", by_github(body)).delivery_id for body in (b"{}", b"{} ", b"{}")
    ]
    assert ids[0] == ids[2] != ids[1]


def test_an_event_has_room_for_the_task(folder: Path) -> None:
    """What passes without a task's id passes with one: the task is stored by then."""
    sent = by_standard(delivery="m" * 255)
    webhook = load_webhooks(folder / "webhooks.toml")["orders"]
    call = Call(webhook, sent.lines, sent.body)
    largest = 0
    for size in range(MAX_EVENT_BYTES - 2000, MAX_EVENT_BYTES, 7):
        try:
            made = identify(call, {"x": "x" * size})
        except PayloadTooLargeError:
            break
        largest = size
        encode_event(event_of(replace(made, task_id="t" * 128)))
    assert MAX_EVENT_BYTES - 2000 < largest < MAX_EVENT_BYTES - 500


def test_headers_are_cut_and_made_text(folder: Path) -> None:
    sent = by_github().with_headers(x_extra="x" * 5000)
    kept = delivery(folder, "deploys", sent).headers
    assert kept["x-extra"] == "x" * 1000
    lines = [(name, b"\xff\xfe" if name == b"x-extra" else value) for name, value in sent.lines]
    webhook = load_webhooks(folder / "webhooks.toml")["deploys"]
    kept = identify(Call(webhook, lines, b""), {}).headers
    assert kept["x-extra"] == "\ufffd\ufffd"
    assert not {"authorization", "x-hub-signature-256"} & kept.keys()
