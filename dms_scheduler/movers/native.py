"""The native mover: posix to posix on this machine, with descriptors all the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, contextmanager

from dms_scheduler.movers.contract import Control, MoveRequest, Verify
from dms_scheduler.movers.copying import Copying
from dms_scheduler.movers.durable import Devices
from dms_scheduler.movers.endpoints import Source, Target, lock_target, open_source, open_target
from dms_scheduler.movers.errors import MoverError, PartialFailure, Refused, RunnerLost
from dms_scheduler.movers.filecopy import FileCopier, FileProblem
from dms_scheduler.movers.guard import Guard, Stopped
from dms_scheduler.movers.meter import Meter, Reporter
from dms_scheduler.movers.oserrors import as_mover_error, classify, reason_of
from dms_scheduler.movers.paths import identity, locate, root_identities
from dms_scheduler.movers.patterns import Filters, is_leftover
from dms_scheduler.movers.plan import Survey
from dms_scheduler.movers.recheck import Recheck
from dms_scheduler.movers.removal import Backup, Removal
from dms_scheduler.movers.results import MovePlan, MoveResult, Phase, readable
from dms_scheduler.movers.tree import Folder, Item, Opener, Visit, walk

ENGINE = "native"
VERSION = "1"
Fail = Callable[[str, OSError | FileProblem], None]


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
        return _Session(request, control).plan()

    def run(self, request: MoveRequest, control: Control) -> MoveResult:
        """Do it, and wait until all of it is on storage.

        Raises:
            MoverError: with `result`; and whatever `control.check` raises, as it is.

        """
        return _Session(request, control).run()


class _Session:
    """One call of the mover."""

    def __init__(self, request: MoveRequest, control: Control) -> None:
        self._request = request
        self._options = request.options
        self._control = control
        self._guard = Guard(control)
        self._meter = Meter()
        self._filters = Filters.compiled(request.options.include, request.options.exclude)
        self._copier = FileCopier(request, self._guard, self._meter)
        self._removal = Removal(request, self._filters, self._guard, self._meter, self._fail)
        self._devices = Devices()

    def plan(self) -> MovePlan:
        with self._errors_told(), ExitStack() as stack:
            source, target = self._open(stack, create=False)
            with Reporter(self._meter, self._control, self._guard):
                survey = self._survey(source, target, self._fail)
            return MovePlan(
                engine=ENGINE,
                version=VERSION,
                totals=survey.counts.totals,
                sample=tuple(survey.sample),
                failed=self._meter.failed,
                failed_count=self._meter.failed_count,
            )

    def run(self) -> MoveResult:
        with self._errors_told(), ExitStack() as stack:
            source, target = self._open(stack, create=True)
            lock_target(target, self._log)
            stack.callback(self._devices.close)
            with Reporter(self._meter, self._control, self._guard):
                self._run(source, target)
            result = self._checked_result()
            done = result.totals
            self._log(
                f"done: {done.files} files and {done.links} links copied, {done.bytes} bytes, "
                f"{done.skipped} skipped, {done.deleted} deleted"
            )
            return result

    def _run(self, source: Source, target: Target) -> None:
        survey = self._survey(source, target, self._fail_if_fatal)
        expected = survey.counts.totals
        self._log(f"plan: {expected.files} files, {expected.bytes} bytes to copy")
        self._meter.enter(Phase.COPY)
        if self._options.backup_deleted and target.fd is not None:
            self._removal.backup = Backup(target.fd, self._request)
        self._copy(source, target)
        if self._options.delete:
            self._delete(source, target)
        self._meter.enter(Phase.VERIFY)
        self._devices.flush(self._guard)
        if self._options.verify is Verify.ALL:
            self._recheck(source, target)

    def _open(self, stack: ExitStack, *, create: bool) -> tuple[Source, Target]:
        self._guard.check()
        src = locate(self._request.src, self._request.roots)
        dst = locate(self._request.dst, self._request.roots)
        source = open_source(src, stack)
        if self._options.delete and source.name is not None:
            message = "delete=true needs a directory as src; a single file has nothing to mirror"
            raise Refused(message, error_class="bad_source")
        self._removal.roots = root_identities(self._request.roots)
        target = open_target(dst, source, self._removal.roots, stack, create=create)
        if self._options.delete and target.is_root:
            message = f"{dst.text} is an allowed root, never deleted from; use a folder in it"
            raise Refused(message, error_class="root_refused")
        return source, target

    def _survey(self, source: Source, target: Target, fail: Fail) -> Survey:
        survey = Survey(self._options, self._meter, self._copier, self._removal, fail)
        opener = Opener(
            forbidden=_identity(target),
            counterpart=survey.counterpart,
            fail=fail,
            entered=self._sweep,
        )
        with self._items(source, target, opener, fail) as items:
            survey.count(items)
        self._refuse_empty(survey)
        if self._options.delete and target.fd is not None:
            self._removal.plan(source.fd, target.fd, survey.note_delete, fail)
        return survey

    def _sweep(self, folder: Folder) -> None:
        """Remove what a killed attempt of this task left; the lock says that it is dead."""
        first = self._request.epoch <= 1
        if first or self._options.dry_run or folder.target_fd is None:
            return
        task_id, epoch = self._request.task_id, self._request.epoch
        with os.scandir(folder.target_fd) as entries:
            left = [entry.name for entry in entries if is_leftover(entry.name, task_id, epoch)]
        for name in left:
            self._guard.check()
            os.unlink(name, dir_fd=folder.target_fd)

    def _refuse_empty(self, survey: Survey) -> None:
        options = self._options
        if options.delete and not survey.seen and not options.allow_empty_src:
            message = (
                "the source holds no files, so delete=true would empty the destination; "
                "check that it is mounted, or set allow_empty_src=true"
            )
            raise Refused(message, error_class="empty_source")

    def _copy(self, source: Source, target: Target) -> None:
        copying = Copying(
            options=self._options,
            filters=self._filters,
            guard=self._guard,
            meter=self._meter,
            copier=self._copier,
            removal=self._removal,
            devices=self._devices,
            fail=self._fail,
        )
        opener = Opener(
            forbidden=_identity(target),
            counterpart=copying.counterpart,
            fail=self._fail,
            entered=copying.entered,
            on_done=copying.finish,
        )
        # A root, and the directory that a single file goes to, are not what the task is about.
        keeps_attributes = source.name is not None or target.is_root
        top_done = copying.restore if keeps_attributes else None
        with self._items(source, target, opener, self._fail, top_done) as items:
            copying.run(items)

    def _delete(self, source: Source, target: Target) -> None:
        if self._meter.failed_count:
            self._log("nothing was deleted, because some paths failed")
        elif target.fd is not None:
            self._meter.enter(Phase.DELETE)
            self._removal.extras(source.fd, target.fd)

    def _recheck(self, source: Source, target: Target) -> None:
        if self._meter.failed_count:
            self._log("nothing was verified once more, because some paths failed")
            return
        recheck = Recheck(self._options, self._guard, self._meter, self._copier, self._fail)
        opener = Opener(
            forbidden=_identity(target), counterpart=recheck.counterpart, fail=self._fail
        )
        with self._items(source, target, opener, self._fail) as items:
            recheck.run(items)

    @contextmanager
    def _items(
        self,
        source: Source,
        target: Target,
        opener: Opener,
        fail: Fail,
        top_done: Callable[[Folder], None] | None = None,
    ) -> Generator[Iterable[Item]]:
        """Yield what a pass is about: the single file, or all of the tree."""
        top = opener.open_top(source.fd, target.fd, top_done)
        if source.name is not None:
            try:
                yield [Item(top, source.name, target.name or source.name, source.status)]
            finally:
                top.release()
            return
        visit = Visit(filters=self._filters, guard=self._guard, fail=fail, enter=opener.enter)
        with closing(walk(top, visit)) as items:
            yield items

    def _fail(self, path: str, error: OSError | FileProblem) -> None:
        """Record a failed path; raises MoverError if the whole run has to end."""
        if isinstance(error, OSError):
            fault = classify(error)
            self._record(path, reason_of(error), fault.error_class, retryable=fault.retryable)
            if fault.fatal:
                raise as_mover_error(error, path)
        else:
            self._record(path, str(error), error.error_class, retryable=error.retryable)

    def _fail_if_fatal(self, path: str, error: OSError | FileProblem) -> None:
        """Take a failure of the first pass before a run: the second will meet it again."""
        if isinstance(error, OSError) and classify(error).fatal:
            raise as_mover_error(error, path)

    def _record(self, path: str, reason: str, error_class: str, *, retryable: bool) -> None:
        if self._meter.fail(path, reason, error_class, retryable=retryable):
            self._log(f"failed: {path or '.'}: {reason}")

    def _log(self, message: str) -> None:
        try:
            self._control.log(readable(message))
        except OSError as error:
            raise RunnerLost(error) from error

    def _result(self, error_class: str | None) -> MoveResult:
        return MoveResult(
            engine=ENGINE,
            version=VERSION,
            totals=self._meter.totals,
            seconds=self._meter.seconds,
            error_class=error_class,
            failed=self._meter.failed,
            failed_count=self._meter.failed_count,
        )

    def _checked_result(self) -> MoveResult:
        count = self._meter.failed_count
        if not count:
            return self._result(None)
        first = self._meter.failed[0]
        message = (
            f"{count} of the paths failed, the rest is done; the first: "
            f"{readable(first.path) or '.'}: {first.reason}"
        )
        raise PartialFailure(message, retryable=self._meter.retryable)

    @contextmanager
    def _errors_told(self) -> Generator[None]:
        """Turn what ends the run into one MoverError that tells what had been done."""
        try:
            try:
                yield
            except Stopped as stopped:
                raise self._guard.cause or stopped from None
        except OSError as error:
            raise self._with_result(as_mover_error(error, "")) from error
        except MoverError as error:
            self._with_result(error)
            raise

    def _with_result(self, error: MoverError) -> MoverError:
        error.result = error.result or self._result(error.error_class)
        return error


def _identity(target: Target) -> tuple[int, int] | None:
    return None if target.fd is None else identity(os.fstat(target.fd))
