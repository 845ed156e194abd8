"""Bandwidths as people write and read them."""

import pytest

from app.core.bandwidth import parse_bandwidth, shown_bandwidth


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("500000", 500_000), ("512K", 512 * 1024), ("10M", 10 * 2**20), (" 1 GiB ", 2**30),
        ("2tb", 2 * 2**40), ("3b", 3), ("7 MiB/s", 7 * 2**20), ("0", 0),
        ("1.5M", 3 * 2**19), ("0.1 KiB/s", 103), ("0.0001", 1),
    ],
)  # fmt: skip
def test_what_people_write(text: str, limit: int) -> None:
    assert parse_bandwidth(text) == limit


@pytest.mark.parametrize(
    "text", ["", "fast", "10 Mbit", "-1", "1.M", ".5M", "1,5M", "M", "9" * 17, "10M/min"]
)
def test_what_means_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        parse_bandwidth(text)


@pytest.mark.parametrize(
    ("limit", "text"),
    [(0, "0 B/s"), (1023, "1023 B/s"), (1536, "1.5 KiB/s"), (10 * 2**20, "10 MiB/s"),
     (2**52, "4096 TiB/s")],
)  # fmt: skip
def test_what_people_read(limit: int, text: str) -> None:
    assert shown_bandwidth(limit) == text
