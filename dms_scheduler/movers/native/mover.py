"""The native mover: posix to posix on this machine, with descriptors all the way.

A call plans in one pass over both trees (`plan`), acts on what that wrote down (`copying`, in this
process or in forked `executors`), deletes what was planned (`removal`), finishes directories
(`finishing`), and waits for the storage (`durable`).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing, contextmanager

from dms_scheduler.movers.contract import Control, Fsync, MoveRequest, RemoveRequest, Verify
from dms_scheduler.movers.durable import Devices
from dms_scheduler.movers.errors import Refused
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.native import checking, removing
from dms_scheduler.movers.native.batches import BatchRunner
from dms_scheduler.movers.native.chain import Chain
from dms_scheduler.movers.native.copying import Copying, Hands, OwnHands
from dms_scheduler.movers.native.endpoints import Source, Target, open_source, open_target
from dms_scheduler.movers.native.executors import Executors
from dms_scheduler.movers.native.filecopy import TemporaryNames
from dms_scheduler.movers.native.finishing import Finisher
from dms_scheduler.movers.native.handling import make_handler
from dms_scheduler.movers.native.meter import Reporter
from dms_scheduler.movers.native.plan import Plan, Planner
from dms_scheduler.movers.native.recheck import Recheck
from dms_scheduler.movers.native.records import FinishPlan, HardlinkPlan, RemovalPlan
from dms_scheduler.movers.native.removal import Backup, Remover
from dms_scheduler.movers.native.session import ENGINE, VERSION, Session
from dms_scheduler.movers.native.throttle import LiveBucket
from dms_scheduler.movers.native.tree import Item, Opener, Visit, walk
from dms_scheduler.movers.paths import identity, locate, root_identities
from dms_scheduler.movers.patterns import Filters
from dms_scheduler.movers.results import CheckResult, MovePlan, MoveResult, Phase

_OWN_FILES = 64
_OWN_BYTES = 8 << 20


class NativeMover:
    """Moves between directories and files that this process can open; it has no state."""

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return ENGINE

    @property
    def version(self) -> str:
        """Version of the engine: of what it does with a tree, not of the program."""
        return VERSION

    def plan(self, request: MoveRequest, control: Control) -> MovePlan:
        """Say what `run` would do; nothing is written and nothing locked. Raises MoverError."""
        return _Move(request, control).plan()

    def run(self, request: MoveRequest, control: Control) -> MoveResult:
        """Do it, and wait until all of it is on storage.

        Raises:
            MoverError: with `result`; and whatever `control.check` raises, as it is.

        """
        return _Move(request, control).run()

    def check(self, request: MoveRequest, control: Control) -> CheckResult:
        """Compare both ends and change nothing. Raises MoverError."""
        return checking.check(request, control)

    def remove(self, request: RemoveRequest, control: Control) -> MoveResult | MovePlan:
        """Remove an entry, or say what that would remove. Raises MoverError."""
        return removing.remove(request, control)


class _Move:
    """One call of the mover."""

    def __init__(self, request: MoveRequest, control: Control) -> None:
        self._request = request
        self._options = request.options
        self._control = control
        self._session = Session(control)
        self._guard = self._session.guard
        self._meter = self._session.meter
        self._filters = Filters.compiled(request.options.include, request.options.exclude)
        bucket = LiveBucket(request.options.bandwidth or 0, lambda: control.bandwidth)
        own = request.options.transfers + 1  # executors take the numbers between its multiples
        names = TemporaryNames(request, own, own)
        self._handler, self._copier = make_handler(
            request, self._guard, self._meter, bucket, names, exact_modes=False
        )
        self._devices = Devices()
        self._roots = root_identities(request.roots)

    def plan(self) -> MovePlan:
        planner = self._planner()

        def result(_: str | None) -> MovePlan:
            return self._session.move_plan(planner.totals, planner.sample)

        with self._session.errors_told(result), ExitStack() as stack:
            source, target = self._open(stack, create=False)
            with Reporter(self._meter, self._control, self._guard):
                planner.plan(source, target, stack)
            return result(None)

    def run(self) -> MoveResult:
        with self._session.errors_told(self._session.move_result), ExitStack() as stack:
            source, target = self._open(stack, create=True)
            stack.callback(self._devices.close)
            with Reporter(self._meter, self._control, self._guard):
                self._run(source, target, stack)
            self._session.refuse_partial("the rest is done")
            result = self._session.move_result(None)
            self._session.log(result.totals.done())
            return result

    def _run(self, source: Source, target: Target, stack: ExitStack) -> None:
        planner = self._planner()
        plan = planner.plan(source, target, stack)
        expected = planner.totals
        self._session.log(f"plan: {expected.files} files, {expected.bytes} bytes to copy")
        if target.fd is None:
            message = "the destination of a run is always open"
            raise AssertionError(message)
        self._meter.enter(Phase.COPY)
        tops = (stack.enter_context(Chain(source.fd)), stack.enter_context(Chain(target.fd)))
        self._act(plan, tops, (source.fd, target.fd), planner.doomed_failures)
        self._meter.enter(Phase.VERIFY)
        if self._options.fsync is not Fsync.NONE:
            self._devices.flush(self._guard)
        if self._options.verify is Verify.ALL:
            self._recheck(source, target)

    def _planner(self) -> Planner:
        return Planner(
            self._request, self._session, self._filters, self._handler, self._devices, self._roots
        )

    def _open(self, stack: ExitStack, *, create: bool) -> tuple[Source, Target]:
        self._guard.check()
        src = locate(self._request.src, self._request.roots)
        dst = locate(self._request.dst, self._request.roots)
        source = open_source(src, stack)
        if self._options.delete and source.name is not None:
            message = "delete=true needs a directory as src; a single file has nothing to mirror"
            raise Refused(message, error_class="bad_source")
        locks = Locks(self._roots, self._session.log)
        stack.callback(locks.close)
        if create:
            locks.read(source.fd, at_rest=self._options.delete)
        target = open_target(
            dst, source, self._roots, stack, create=create, before_making=locks.write_in
        )
        if create and target.fd is not None:
            claim = locks.write if target.name is None else locks.write_in
            claim(target.fd)
        if self._options.delete and target.is_root:
            message = f"{dst.text} is an allowed root, never deleted from; use a folder in it"
            raise Refused(message, error_class="root_refused")
        return source, target

    def _act(
        self, plan: Plan, tops: tuple[Chain, Chain], fds: tuple[int, int], forgiven: int
    ) -> None:
        remover = Remover(self._session, *tops)
        if self._options.backup_deleted:
            remover.backup = Backup(fds[1], self._request)
        finisher = Finisher(self._options, self._session, *tops)
        try:
            self._copy(plan, tops, fds, remover)
            if len(plan.removals):
                self._delete(plan, remover, forgiven)
            finisher.run(map(FinishPlan._make, plan.finish.read()))
        except BaseException:
            finisher.restore(map(FinishPlan._make, plan.finish.read()))
            raise

    def _copy(
        self, plan: Plan, tops: tuple[Chain, Chain], fds: tuple[int, int], remover: Remover
    ) -> None:
        tools = (self._handler, self._copier)
        copying = Copying(self._options, self._session, tops, remover, self._devices, tools)
        hands = self._hands(plan, copying, tops, fds)
        try:
            copying.run(plan.work.read(), hands)
        except BaseException as error:
            self._guard.stop(error)
            raise
        finally:
            hands.stop()
        copying.join_all(map(HardlinkPlan._make, plan.hardlinks.read()))

    def _hands(
        self, plan: Plan, copying: Copying, tops: tuple[Chain, Chain], fds: tuple[int, int]
    ) -> Hands:
        if plan.files <= _OWN_FILES and plan.bytes <= _OWN_BYTES:
            return OwnHands(BatchRunner(self._handler, *tops), copying)
        return Executors(
            self._request,
            fds,
            self._control,
            self._guard,
            self._meter,
            copying.take,
            copying.take_big,
        )

    def _delete(self, plan: Plan, remover: Remover, forgiven: int) -> None:
        if self._meter.failed_count > forgiven:
            self._session.log("nothing was deleted, because some paths failed")
            return
        self._meter.enter(Phase.DELETE)
        for body in plan.removals.read():
            remover.remove(RemovalPlan._make(body))

    def _recheck(self, source: Source, target: Target) -> None:
        if self._meter.failed_count:
            self._session.log("nothing was verified once more, because some paths failed")
            return
        recheck = Recheck(self._options, self._guard, self._meter, self._copier, self._session.fail)
        opener = Opener(
            forbidden=None if target.fd is None else identity(os.fstat(target.fd)),
            counterpart=recheck.counterpart,
            fail=self._session.fail,
        )
        with self._items(source, target, opener) as items:
            recheck.run(items)

    @contextmanager
    def _items(self, source: Source, target: Target, opener: Opener) -> Generator[Iterable[Item]]:
        """Yield what the task is about: the single file, or all of the tree."""
        top = opener.open_top(source.fd, target.fd)
        if source.name is not None:
            try:
                yield [Item(top, source.name, target.name or source.name, source.status)]
            finally:
                top.release()
            return
        visit = Visit(
            filters=self._filters,
            guard=self._guard,
            fail=self._session.fail,
            enter=opener.enter,
        )
        with closing(walk(top, visit)) as items:
            yield items
