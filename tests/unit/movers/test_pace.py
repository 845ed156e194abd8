"""The bandwidth limit, the meter, the reporter and the crew, with an injected clock."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dms_scheduler.movers import Phase, Progress
from dms_scheduler.movers.guard import Guard, Stopped
from dms_scheduler.movers.native.content import copy_content
from dms_scheduler.movers.native.crew import Crew
from dms_scheduler.movers.native.filecopy import FilePace
from dms_scheduler.movers.native.meter import Meter, Reporter, Tally
from dms_scheduler.movers.native.throttle import TokenBucket, chunk_size
from tests.unit.movers.support import Recorder


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.longest = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        self.now += seconds


@given(
    rate=st.integers(1, 10**9),
    takes=st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 3)), max_size=40),
)
def test_the_bucket_never_lets_more_pass_than_its_rate_in_any_stretch_of_time(
    rate: int, takes: list[tuple[int, float]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    asked: list[float] = []
    for count, (amount, idle) in enumerate(takes):
        clock.now += idle
        asked.append(clock.now)
        clock.now += bucket.reserve(amount)
        for first in range(count + 1):
            passed = sum(taken for taken, _ in takes[first : count + 1])
            assert passed <= rate * (clock.now - asked[first] + 0.1) * (1 + 1e-6) + 1e-3


def test_the_bucket_does_not_hold_back_without_need() -> None:
    clock = Clock()
    bucket = TokenBucket(1000, clock)
    for _ in range(50):
        clock.now += bucket.reserve(100)
    assert clock.now - 100.0 == pytest.approx(5.0)


@pytest.mark.parametrize("hashed", [False, True])
def test_copying_keeps_to_the_bandwidth_and_checks_often(tmp_path: Path, hashed: bool) -> None:
    rate, size = 50_000, 1_000_000
    clock, recorder = Clock(), Recorder()
    (tmp_path / "source").write_bytes(os.urandom(size))
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    meter = Meter(clock)
    guard = Guard(recorder, clock, clock.sleep)
    pace = FilePace(guard, meter, TokenBucket(rate, clock), chunk_size(rate))
    copy_content(source, target, size, pace, hashed=hashed)
    os.close(source)
    os.close(target)
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert clock.now - 100.0 == pytest.approx(size / rate, rel=0.02)
    assert clock.longest <= 0.1
    assert recorder.checks >= (clock.now - 100.0) / 0.1
    assert meter.snapshot().bytes == size


@pytest.mark.parametrize(
    ("rate", "size"), [(None, 1 << 20), (1, 1), (100_000, 10_000), (10**12, 1 << 20)]
)
def test_chunks_are_small_when_the_limit_is_low(rate: int | None, size: int) -> None:
    assert chunk_size(rate) == size


def test_speed_and_eta() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.enter(Phase.COPY)
    meter.expect(2, 10_000, known=True)
    assert meter.snapshot().eta is None
    clock.now += 1
    meter.moved(2000)
    meter.add(Tally.FILES)
    progress = meter.snapshot()
    assert (progress.speed, progress.eta, progress.bytes, progress.files) == (2000.0, 4.0, 2000, 1)
    for _ in range(20):  # the speed forgets what is long ago
        clock.now += 0.5
        progress = meter.snapshot()
    assert (progress.speed, progress.eta) == (0.0, None)
    meter.expect(2, 10_000, known=False)
    clock.now += 1
    meter.moved(4000)
    progress = meter.snapshot()
    assert progress.speed > 0
    assert progress.eta is None


def test_a_total_is_never_below_what_was_done() -> None:
    meter = Meter(Clock())
    meter.expect(1, 10, known=True)
    meter.moved(25)
    assert meter.snapshot().total_bytes == 25
    meter.expect_more(100)
    assert meter.snapshot().total_bytes == 110


def test_names_are_readable_whatever_they_are() -> None:
    progress = Progress(phase=Phase.COPY, current="한글/\udcff\x1b[31m\n\u202e")
    assert progress.to_dict()["current"] == "한글/\\xff\\x1b[31m\\x0a\\u202e"


def test_progress_comes_by_itself_while_work_goes_on() -> None:
    """However long one system call takes: at least three reports, without anybody asking."""
    enough = threading.Event()

    class Counting(Recorder):
        def progress(self, progress: Progress) -> None:
            super().progress(progress)
            if len(self.reports) >= 3:
                enough.set()

    recorder = Counting()
    with Reporter(Meter(), recorder, Guard(recorder)):
        assert enough.wait(60)
    assert len(recorder.reports) >= 4


def test_a_crew_does_every_job_once() -> None:
    done: list[int] = []
    with Crew[int](4, Guard(Recorder()), done.append, done.append) as crew:
        for number in range(200):
            crew.submit(number)
    assert sorted(done) == list(range(200))


def test_a_crew_discards_what_is_left_after_an_error() -> None:
    done: list[int] = []
    discarded: list[int] = []
    guard = Guard(Recorder())

    def work(number: int) -> None:
        if number == 5:
            raise ValueError(number)
        done.append(number)

    submitted: list[int] = []

    def submit_all() -> None:
        with Crew[int](2, guard, work, discarded.append) as crew:
            for number in range(200):
                submitted.append(number)
                crew.submit(number)

    with pytest.raises(Stopped):
        submit_all()
    assert isinstance(guard.cause, ValueError)
    assert sorted([*done, *discarded, 5]) == submitted
