"""A report on its way: lines into blocks, blocks into the store, and nobody's memory filled."""

import asyncio
import gzip
import json
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from app.tasks import TasksError
from dms_scheduler.report import Block, Reporter
from dms_scheduler.report_journal import ReportJournal
from task_state import FencedError, TaskReport
from task_state.managed import ReportState


def lines(blocks: list[Block]) -> list[dict[str, Any]]:
    packed = b"".join(block.data for block in blocks)
    return [json.loads(line) for line in gzip.decompress(packed).splitlines()]


def reporter(send: Callable[[Block], None], **options: Any) -> Reporter:
    return Reporter(send, attempt=2, epoch=3, **options)


def test_failures_go_in_blocks_of_their_own() -> None:
    sent: list[Block] = []
    made = reporter(sent.append)
    for number in range(10):
        made.add({"action": "failed" if number % 5 == 0 else "copy", "size": number})
    made.close()
    assert [(block.lines, block.failed) for block in sent] == [(8, False), (2, True)]
    assert [line["size"] for line in lines(sent[1:])] == [0, 5]
    assert all((line["attempt"], line["epoch"]) == (2, 3) for line in lines(sent))


def test_a_line_after_the_end_is_nobodys() -> None:
    sent: list[Block] = []
    made = reporter(sent.append)
    made.close()
    made.add({"action": "copy"})
    made.close()
    assert sent == []


def test_the_handlers_own_attempt_does_not_count() -> None:
    sent: list[Block] = []
    made = reporter(sent.append)
    made.add({"attempt": 9, "epoch": 9, "path": "a"})
    made.close()
    assert gzip.decompress(sent[0].data) == b'{"path":"a","attempt":2,"epoch":3}\n'


def test_whoever_reports_too_quickly_waits() -> None:
    """Nothing is lost, and no more than a few MiB wait."""
    sent: list[Block] = []
    go = threading.Event()

    def slow(block: Block) -> None:
        assert go.wait(60)
        sent.append(block)

    made = reporter(slow)
    added: list[int] = []

    def report() -> None:
        for number in range(300):
            made.add({"size": number, "path": "x" * 60_000})
            added.append(number)

    thread = threading.Thread(target=report)
    thread.start()
    thread.join(0.2)
    assert len(added) < 200, "it takes 4 MiB, and what is being sent"
    go.set()
    thread.join(60)
    made.close()
    assert [line["size"] for line in lines(sent)] == list(range(300))


def test_where_nobody_may_wait_lines_are_counted_instead() -> None:
    sent: list[Block] = []
    go = threading.Event()

    def slow(block: Block) -> None:
        assert go.wait(60)
        sent.append(block)

    made = reporter(slow, may_wait=lambda: False)
    for number in range(300):
        made.add({"size": number, "path": "x" * 60_000})
    go.set()
    made.close()
    omitted = sum(block.lines for block in sent if not block.data)
    assert omitted > 0
    assert len(lines([block for block in sent if block.data])) == 300 - omitted


def test_a_channel_that_is_gone_stops_nobody() -> None:
    def broken(block: Block) -> None:
        raise BrokenPipeError(str(block.lines))

    made = reporter(broken)
    for _ in range(300):
        made.add({"path": "x" * 60_000})
    made.close()


@pytest.mark.parametrize(
    "nonsense", [5, None, "text", [("a", 1)], {"a": object()}, {"a": "x" * 66_000}]
)
def test_what_is_no_line_is_refused(nonsense: Any) -> None:
    made = reporter(lambda _: None)
    with pytest.raises(TasksError):
        made.add(nonsense)
    made.close()


# ------------------------------------------------------------------------------------ the journal
class Store:
    """Takes blocks when it is let, and counts as the real one does."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.taken: list[tuple[bytes, int, bool, int]] = []
        self.limit = 1 << 30
        self.fenced = False
        self.state = ReportState(10, 0, full=False)

    async def append_report(
        self, _task: str, epoch: int, block: bytes, lines: int, *, failed: bool, before: int
    ) -> ReportState:
        await self.go.wait()
        if self.fenced:
            raise FencedError("1", epoch)
        self.taken.append((block, lines, failed, before))
        fits = bool(block) and (failed or len(block) <= self.limit)
        kept, omitted = self.state.lines, self.state.omitted
        self.state = ReportState(
            kept + lines * fits, omitted + lines * (not fits), full=not fits or self.state.full
        )
        return self.state


def journal(store: Store) -> ReportJournal:
    return ReportJournal(cast("Any", store), "1", 1, TaskReport(lines=10))


async def test_blocks_come_in_order_with_the_count_before_them() -> None:
    store = Store()
    store.go.set()
    made = journal(store)
    made.add(Block(b"a", 3))
    made.add(Block(b"f", 2, failed=True))
    await made.flush()
    assert store.taken == [(b"a", 3, False, 10), (b"f", 2, True, 13)]


async def test_what_cannot_fit_is_not_sent_but_counted() -> None:
    store = Store()
    store.go.set()
    store.limit = 0
    made = journal(store)
    made.add(Block(b"full", 1))
    await made.flush()
    store.go.clear()
    for _ in range(50):
        made.add(Block(b"more", 2))
    made.add(Block(b"f", 1, failed=True))
    store.go.set()
    await made.flush()
    assert all(not data for data, _, failed, _ in store.taken[1:] if not failed)
    assert store.state == ReportState(11, 101, full=True)
    assert len(store.taken) < 10, "those that were left out are told together"


async def test_there_is_no_room_while_a_mebibyte_waits() -> None:
    store = Store()
    made = journal(store)
    running = asyncio.create_task(made.run())
    for _ in range(16):
        await asyncio.wait_for(made.room(), 60)
        made.add(Block(b"x" * 65_536, 1))
    waiting = asyncio.create_task(made.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    store.go.set()
    await asyncio.wait_for(waiting, 60)
    await made.flush()
    running.cancel()
    assert [lines for _, lines, _, _ in store.taken] == [1] * 16


async def test_a_write_that_was_cut_off_is_repeated_as_it_was() -> None:
    store = Store()
    made = journal(store)
    made.add(Block(b"a", 3))
    cut = asyncio.create_task(made.flush())
    await asyncio.sleep(0)
    cut.cancel()
    await asyncio.gather(cut, return_exceptions=True)
    store.go.set()
    await made.flush()
    assert store.taken == [(b"a", 3, False, 10)]


async def test_an_attempt_that_is_over_writes_nothing_more() -> None:
    store = Store()
    store.fenced = True
    store.go.set()
    made = journal(store)
    for _ in range(40):
        made.add(Block(b"x" * 65_536, 1))
    await made.flush()
    await asyncio.wait_for(made.room(), 60)
    await asyncio.wait_for(made.run(), 60)
    made.add(Block(b"a", 1))
    await made.flush()
    assert store.taken == []
