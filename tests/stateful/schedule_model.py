"""A plain model of stored schedules: which slot becomes a task, which waits, which is skipped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from task_state import TaskStatus
from task_state.schedules import MAX_BUFFERED, FireKind, FireOutcome, Overlap

Told = tuple[int | None, FireKind, FireOutcome, int]
"""Slot, kind, outcome, how many slots."""


@dataclass
class Task:
    """A task of a schedule; `step` is the call that created it."""

    task_id: str
    step: int
    status: TaskStatus = TaskStatus.PENDING


@dataclass
class Schedule:
    """A schedule and all that its slots depend on. `waiting`: slot to kind and service."""

    name: str
    overlap: Overlap
    service: str
    pause_after: int | None
    paused: bool
    cursor: int
    totals: Counter[str] = field(default_factory=Counter[str])
    failures: int = 0
    active: list[Task] = field(default_factory=list[Task])
    waiting: dict[int, tuple[FireKind, str]] = field(
        default_factory=dict[int, tuple[FireKind, str]]
    )
    history: Counter[tuple[FireKind, FireOutcome]] = field(
        default_factory=Counter[tuple[FireKind, FireOutcome]]
    )
    told: list[Told] = field(default_factory=list[Told])

    def first(self) -> list[Task]:
        """Its active tasks, oldest first."""
        return sorted(self.active, key=lambda task: (task.step, task.task_id))


@dataclass
class Model:
    """All schedules and their tasks."""

    schedules: dict[str, Schedule] = field(default_factory=dict[str, Schedule])
    tasks: dict[str, Task] = field(default_factory=dict[str, Task])
    draining: set[str] = field(default_factory=set[str])
    step: int = 0

    def settle(self, schedule: Schedule, slots: Sequence[int], missed: int, to: int) -> list[Told]:
        """What settling tells."""
        self.step += 1
        schedule.told = []
        self._release(schedule)
        if missed:
            self._tell(schedule, None, "slot", "missed", missed)
        self._place_all(schedule, "slot", slots, schedule.overlap)
        schedule.cursor = to
        return schedule.told

    def backfill(self, schedule: Schedule, slots: Sequence[int], overlap: Overlap) -> list[Told]:
        """What making up slots tells."""
        self.step += 1
        schedule.told = []
        self._release(schedule)
        self._place_all(schedule, "backfill", slots, overlap)
        return schedule.told

    def run(self, schedule: Schedule, task_id: str) -> None:
        """A run by hand."""
        self.step += 1
        self._fire(schedule, "run", None, task_id)

    def release(self) -> list[Told]:
        """What releasing tells, of all schedules."""
        self.step += 1
        told: list[Told] = []
        for schedule in self.schedules.values():
            schedule.told = []
            self._release(schedule)
            told += schedule.told
        return told

    def end(self, task: Task, status: TaskStatus) -> None:
        """A task ends."""
        task.status = status
        schedule = self._leave(task)
        if schedule is None:
            return
        if status is TaskStatus.COMPLETED:
            schedule.failures = 0
        elif status is TaskStatus.FAILED:
            schedule.failures += 1
            if schedule.pause_after and schedule.failures >= schedule.pause_after:
                schedule.paused = True

    def forget(self, task: Task) -> None:
        """A task is removed."""
        self._leave(task)
        del self.tasks[task.task_id]

    def _leave(self, task: Task) -> Schedule | None:
        for schedule in self.schedules.values():
            if task in schedule.active:
                schedule.active.remove(task)
                return schedule
        return None

    def _tell(
        self,
        schedule: Schedule,
        slot: int | None,
        kind: FireKind,
        outcome: FireOutcome,
        count: int = 1,
    ) -> None:
        schedule.told.append((slot, kind, outcome, count))
        schedule.history[kind, outcome] += count
        if outcome in {"fired", "missed", "skipped"}:
            schedule.totals[outcome] += count

    def _fire(self, schedule: Schedule, kind: FireKind, slot: int | None, task_id: str) -> None:
        task = Task(task_id, self.step)
        self.tasks[task_id] = task
        schedule.active.append(task)
        self._tell(schedule, slot, kind, "fired")

    def _release(self, schedule: Schedule) -> None:
        for slot in sorted(schedule.waiting):
            if schedule.active:
                return
            kind, service = schedule.waiting[slot]
            if (schedule.paused and kind != "backfill") or service in self.draining:
                continue
            del schedule.waiting[slot]
            self._fire(schedule, kind, slot, f"s.{schedule.name}.{slot}")

    def _place_all(
        self, schedule: Schedule, kind: FireKind, slots: Sequence[int], overlap: Overlap
    ) -> None:
        for slot in slots:
            self._place(schedule, kind, slot, overlap, last=slot == slots[-1])

    def _place(
        self, schedule: Schedule, kind: FireKind, slot: int, overlap: Overlap, *, last: bool
    ) -> None:
        task_id = f"s.{schedule.name}.{slot}"
        if task_id in self.tasks or slot in schedule.waiting:
            return self._tell(schedule, slot, kind, "existing")
        if overlap is Overlap.CANCEL_OTHER and not last:
            return self._tell(schedule, slot, kind, "skipped")
        if overlap is Overlap.CANCEL_OTHER:
            self._clear(schedule)
        if overlap is Overlap.ALLOW or not (schedule.active or schedule.waiting):
            return self._fire(schedule, kind, slot, task_id)
        room = {Overlap.SKIP: 0, Overlap.BUFFER_ONE: 1}.get(overlap, MAX_BUFFERED)
        if len(schedule.waiting) >= room:
            return self._tell(schedule, slot, kind, "skipped")
        schedule.waiting[slot] = (kind, schedule.service)
        return self._tell(schedule, slot, kind, "buffered")

    def _clear(self, schedule: Schedule) -> None:
        for task in schedule.first():
            if task.status is TaskStatus.PENDING:
                self.end(task, TaskStatus.CANCELLED)
            else:
                task.status = TaskStatus.CANCEL_REQUESTED
        for slot in sorted(schedule.waiting):
            self._tell(schedule, slot, schedule.waiting[slot][0], "skipped")
        schedule.waiting.clear()
