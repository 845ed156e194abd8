"""The witness file: it only ever goes on, and a broken one does no harm."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dms_scheduler.witness import Witness


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dms.witness"


def ago(seconds: int) -> int:
    """That long ago, in µs."""
    return time.time_ns() // 1000 - seconds * 1_000_000


def test_it_gives_back_what_it_was_told(file: Path) -> None:
    seen = ago(5)
    assert Witness(file).read() == 0
    Witness(file).keep(seen)
    assert Witness(file).read() == seen
    assert file.read_text() == f"{seen}\n"
    assert list(file.parent.iterdir()) == [file], "no draft is left"


def test_it_never_goes_back_whoever_writes(file: Path) -> None:
    newer, older = ago(5), ago(500)
    Witness(file).keep(newer)
    Witness(file).keep(older)
    assert Witness(file).read() == newer


def test_processes_of_one_number_on_several_hosts_share_it(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Containers often run as process 1, and the file is on a volume of them all."""
    first = ago(1000)

    def keep(writer: int) -> None:
        witness = Witness(file)
        for step in range(50):
            witness.keep(first + step * 10 + writer, now=True)

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(4) as writers:
        list(writers.map(keep, range(4)))
    assert not caplog.records
    assert Witness(file).read() >= first + 490
    assert list(file.parent.iterdir()) == [file]


def test_it_is_written_now_and_then_and_at_the_end(file: Path) -> None:
    clock = Clock()
    witness = Witness(file, clock=clock)
    first, second, third = ago(30), ago(20), ago(10)
    witness.keep(first)
    clock.seconds += 4.9
    witness.keep(second)
    assert witness.read() == first
    clock.seconds += 0.2
    witness.keep(second)
    assert witness.read() == second
    witness.keep(third, now=True)
    assert witness.read() == third


def test_nothing_new_is_not_written(file: Path) -> None:
    seen = ago(5)
    witness = Witness(file)
    witness.keep(seen, now=True)
    file.unlink()
    witness.keep(seen, now=True)
    assert not file.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"soon\n", b"-5\n", b"1e9\n", b"\xff\xfe", b"9" * 17, b"9" * 5000, "٣".encode()],
)
def test_what_means_no_time_is_told_once_and_passed_over(
    file: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    file.write_bytes(content)
    witness = Witness(file)
    with caplog.at_level(logging.WARNING):
        assert witness.read() == witness.read() == 0
    assert [record.message for record in caplog.records] == [
        "The witness file cannot be used: a restored store may go unnoticed"
    ]
    seen = ago(5)
    witness.keep(seen)
    assert witness.read() == seen, "the next change makes it anew"


def test_a_folder_that_is_missing_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    file = tmp_path / "later" / "witness"
    witness = Witness(file, clock=clock)
    with caplog.at_level(logging.WARNING):
        for seconds in (30, 20):
            witness.keep(ago(seconds))
            clock.seconds += 6
    assert len(caplog.records) == 1
    file.parent.mkdir()
    seen = ago(10)
    witness.keep(seen)
    assert witness.read() == seen
