"""Who copies which part when: first different files, then the parts of one; never too many."""

from __future__ import annotations

from collections.abc import Callable

from dms_scheduler.movers.native.batches import Folder
from dms_scheduler.movers.native.bigfiles import BigFile, BigFiles, Step
from dms_scheduler.movers.native.records import Failure, FilePlan, Outcome

PARTS = 4
WIDTH = 5
HERE = Folder("", (1, 1), (1, 2))
SOURCE = (1, 2, PARTS, 0, 0)


class Move:
    """A move whose executors are this test."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.ended: list[str] = []
        self.files = BigFiles(0, WIDTH, self.steps.append, self._told, self._discard)

    def _told(self, file: BigFile, _: Outcome | Failure) -> None:
        self.ended.append(file.plan.name)

    def _discard(self, _: Folder, target: str) -> None:
        self.ended.append(f"{target} is discarded")

    def start(self, *names: str) -> None:
        for name in names:
            self.files.start(HERE, FilePlan(name, name, 0, PARTS))

    def answer(self, wanted: Callable[[Step], bool] = lambda _: True) -> None:
        """Do the steps that are there by now, and are wanted."""
        for step in [step for step in self.steps if wanted(step)]:
            self.steps.remove(step)
            layout = (SOURCE, 1, False)
            answers = {
                "begin": ["begin", layout, list(range(PARTS))],
                "part": ["part", 1],
                "end": ["end", "copy", PARTS],
            }
            self.files.take(step, answers[step.kind])

    def waiting(self) -> list[str]:
        return [f"{step.kind} {step.file.plan.name}" for step in self.steps]


def test_parts_of_different_files_come_first() -> None:
    move = Move()
    move.start("a", "b", "c", "d")
    move.answer()
    assert move.waiting() == ["part a", "part b", "part c", "part d"]
    for _ in range(PARTS - 1):
        move.answer()
        assert sorted(move.waiting()) == ["part a", "part b", "part c", "part d"]
    move.answer()
    assert sorted(move.waiting()) == ["end a", "end b", "end c", "end d"]


def test_one_file_alone_has_all_executors() -> None:
    move = Move()
    move.start("a")
    move.answer()
    assert move.waiting() == ["part a"] * PARTS


def test_the_last_files_get_what_the_others_leave() -> None:
    move = Move()
    move.start("a", "b", "c")
    move.answer(lambda step: step.file.plan.name == "a")
    move.answer(lambda step: step.file.plan.name == "b")
    for _ in range(PARTS + 1):
        move.answer(lambda step: step.file.plan.name == "a")
    assert move.ended == ["a"]
    move.answer(lambda step: step.file.plan.name == "b")
    assert move.waiting().count("part b") == WIDTH // 2


def test_no_more_files_are_begun_than_parts_are_copied_at_once() -> None:
    move = Move()
    for name in "abcde":
        assert not move.files.full
        move.start(name)
    assert move.files.full
    while not move.ended:
        move.answer(lambda step: step.file.plan.name == "c")
    assert move.ended == ["c"]
    assert not move.files.full
