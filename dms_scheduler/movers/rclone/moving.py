"""`plan` and `run` by rclone: a rehearsal that counts, then the copy, the deletions, the proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from dms_scheduler.movers.contract import Compare, Control, Fsync, MoveRequest, Symlinks, Verify
from dms_scheduler.movers.durable import Devices
from dms_scheduler.movers.errors import empty_source
from dms_scheduler.movers.patterns import BACKUP_NAME
from dms_scheduler.movers.rclone import copy_call
from dms_scheduler.movers.rclone.answers import number
from dms_scheduler.movers.rclone.events import Event, Kind
from dms_scheduler.movers.rclone.filters import leftovers
from dms_scheduler.movers.rclone.names import plain
from dms_scheduler.movers.rclone.opening import Opening
from dms_scheduler.movers.rclone.places import Place
from dms_scheduler.movers.rclone.proof import prove
from dms_scheduler.movers.rclone.session import Session
from dms_scheduler.movers.rclone.settings import RcloneSettings
from dms_scheduler.movers.rclone.unfinished import remove_unfinished
from dms_scheduler.movers.results import Action, MovePlan, MoveResult, Phase, ReportEntry

_LINK_SUFFIX = ".rclonelink"
_PAUSE_SECONDS = 1.0


class Moving:
    """One call of plan or run."""

    def __init__(self, settings: RcloneSettings, request: MoveRequest, control: Control) -> None:
        self._request = request
        self._options = request.options
        texts = (request.src, request.dst)
        self._session = Session(
            settings, control, texts, request.roots, request.options, request.task_id
        )
        self._opening = Opening(self._session, request)
        self._runner = self._session.runner
        self._tally = self._runner.tally
        self._specials: set[str] = set()
        self._copied: list[str] = []
        self._deletions: list[str] = []
        self._folder_deletions: list[str] = []
        self._new_folders: list[str] = []
        self._replaced = 0
        self._telling = False
        self._folders_told = True

    def plan(self) -> MovePlan:
        """Say what `run` would do. Raises MoverError."""
        with self._session.told(self._plan_result):
            source, target = self._opening.open(change=False)
            self._telling = True
            self._rehearse(source, target)
            self._tally.counts["skipped"] = self._count_source(source) - self._to_do
            self._runner.settle_failures()
            return self._plan_result(None)

    def run(self) -> MoveResult:
        """Do it. Raises MoverError."""
        with self._session.told(self._session.move_result):
            source, target = self._opening.open(change=True)
            self._sweep(target)
            self._rehearse(source, target)
            self._begin()
            self._copy(source, target)
            self._delete(target)
            self._flush(target)
            self._prove(source, target)
            self._session.refuse_partial("the rest is done")
            result = self._session.move_result(None)
            self._runner.log(result.totals.done())
            return result

    def _sweep(self, target: Place) -> None:
        """Remove the unfinished files of an attempt of this task that was killed."""
        if self._request.epoch <= 1 or not target.exists:
            return
        rules = leftovers(self._session.suffix)
        parameters = {"fs": target.fs, "_filter": {"FilterRule": rules}}
        self._session.do("operations/delete", parameters, target.text)

    def _rehearse(self, source: Place, target: Place) -> None:
        config = copy_call.settings_of(self._options, source, target)
        if "SizeOnly" in config and self._options.compare is Compare.SIZE_MTIME and target.exists:
            self._runner.log(
                "a side keeps no modification times, and the two have no kind of checksum in "
                "common: files of the same size count as the same"
            )
        self._folders_told = target.known.empty_folders
        self._runner.on_event = self._take
        self._call_copy(source, target, {**config, "DryRun": True}, mirror=self._options.delete)
        if self._options.delete:
            self._guard_deletions(source)

    def _begin(self) -> None:
        """Count from nothing: what was rehearsed is now what is expected."""
        planned = self._tally.totals
        self._runner.forget_failures()
        self._tally.planned = planned
        self._tally.counts.clear()
        self._specials.clear()
        self._telling = True
        self._tally.phase = Phase.COPY
        self._runner.log(f"plan: {planned.files} files, {planned.bytes} bytes to copy")

    def _copy(self, source: Place, target: Place) -> None:
        config = copy_call.settings_of(self._options, source, target)
        self._runner.clean_up = partial(self._clean_up, target)
        for left in range(self._options.retries, -1, -1):
            self._call_copy(source, target, config, mirror=False)
            if left == self._options.retries:
                self._tally.counts["skipped"] = self._skipped(source)
            if not (left and self._runner.may_pass):
                break
            self._runner.forget_failures()
            self._runner.guard.pause(_PAUSE_SECONDS)
        for path in self._new_folders:
            if not self._runner.failed(path):
                self._take_folder(path)
        self._runner.settle_failures()

    def _call_copy(
        self, source: Place, target: Place, config: Mapping[str, object], *, mirror: bool
    ) -> None:
        chosen = self._session.chosen
        parameters = copy_call.parameters_of(self._options, source, target, chosen, config)
        self._session.step(copy_call.name_of(source, mirror=mirror), parameters, source.text)

    def _clean_up(self, target: Place, paths: Sequence[str], end: float) -> None:
        if self._runner.daemon is not None:
            suffix = self._session.suffix
            remove_unfinished(self._runner.daemon, target.fs, suffix, paths, end)

    def _skipped(self, source: Place) -> int:
        """Return how many files were compared and found to be the same."""
        if source.file is not None:
            return int(not self._to_do and not self._runner.has_failures)
        compared = int(number(self._runner.stats().get("checks")))
        return max(0, compared - self._replaced - self._tally.counts["updated"])

    @property
    def _to_do(self) -> int:
        """How many files of the source are not the same at the destination."""
        counts = self._tally.counts
        return counts["files"] + counts["links"] + counts["updated"]

    def _count_source(self, source: Place) -> int:
        if source.file is not None:
            return 1
        parameters = {"fs": source.fs, "_filter": self._session.chosen}
        answer = self._session.do("operations/size", parameters, source.text)
        return int(number(answer.get("count")))

    def _delete(self, target: Place) -> None:
        if not self._options.delete:
            return
        if self._tally.failed_count:
            self._runner.log("nothing was deleted, because some paths failed")
            return
        self._tally.phase = Phase.DELETE
        if self._deletions:
            self._delete_files(target)
        for path in self._folder_deletions:
            self._session.remove_folder(target.fs, path, path)
        self._runner.settle_failures()

    def _delete_files(self, target: Place) -> None:
        chosen = self._session.only(self._deletions)
        if self._options.backup_deleted:
            name = f"{BACKUP_NAME}/{self._request.task_id}.{self._request.epoch}"
            below = f"{target.fs.rstrip('/')}/{name}"
            parameters = {"srcFs": target.fs, "dstFs": below, "_filter": chosen}
            self._session.step("sync/move", parameters, target.text)
        else:
            parameters = {"fs": target.fs, "_filter": chosen}
            self._session.step("operations/delete", parameters, target.text)

    def _flush(self, target: Place) -> None:
        """Wait until what was written to local files is on storage."""
        self._tally.phase = Phase.VERIFY
        if target.fd is None or self._options.fsync is Fsync.NONE:
            return
        devices = Devices()
        try:
            devices.add(target.fd)
            devices.flush(self._runner.guard)
        finally:
            devices.close()

    def _prove(self, source: Place, target: Place) -> None:
        if self._options.verify is Verify.NONE:
            return
        if self._tally.failed_count and self._options.verify is Verify.ALL:
            self._runner.log("nothing was verified once more, because some paths failed")
            return
        prove(self._session, source, target, self._copied)
        self._runner.settle_failures()

    def _guard_deletions(self, source: Place) -> None:
        count = len(self._deletions) + len(self._folder_deletions)
        self._session.refuse_many(count, self._options.max_delete)
        if self._to_do or self._options.allow_empty_src:
            return
        if not self._count_source(source):
            raise empty_source()

    def _take(self, event: Event) -> None:
        """Count what rclone did with one path, and tell it."""
        counts = self._tally.counts
        path = event.path
        if event.kind is Kind.COPIED:
            # What is deleted may be copied to its backup: that is no file that was brought.
            if self._tally.phase is not Phase.DELETE:
                self._take_copy(event)
        elif event.kind is Kind.MADE and self._folders_told and path:
            # In a run a file's folder may be made without a word, so the plan says which are new.
            if self._tally.planned is None:
                self._new_folders.append(path)
                self._take_folder(path)
        elif event.kind is Kind.UPDATED:
            counts["updated"] += 1
            self._tell(Action.UPDATE, path)
        elif event.kind is Kind.SPECIAL and path not in self._specials:
            self._specials.add(path)
            counts["special"] += 1
            self._tell(Action.SPECIAL, path)
        elif event.kind in {Kind.DELETED, Kind.MOVED, Kind.FOLDER_DELETED}:
            self._take_deletion(event)

    def _take_folder(self, path: str) -> None:
        self._tally.counts["dirs"] += 1
        self._tell(Action.MKDIR, path)

    def _take_copy(self, event: Event) -> None:
        counts = self._tally.counts
        if self._tally.planned is not None:
            self._copied.append(event.path)
            self._replaced += event.message.endswith("(replaced existing)")
        local = None in self._session.addresses and self._options.symlinks is Symlinks.KEEP
        if local and event.path.endswith(_LINK_SUFFIX):
            counts["links"] += 1
            self._tell(Action.LINK, event.path.removesuffix(_LINK_SUFFIX))
            return
        counts["files"] += 1
        counts["bytes"] += event.size or 0
        self._tell(Action.COPY, event.path, event.size)

    def _take_deletion(self, event: Event) -> None:
        if self._tally.planned is None:
            folder = event.kind is Kind.FOLDER_DELETED
            if folder and (self._options.include or self._options.exclude):
                return  # it may hold what the patterns leave out
            (self._folder_deletions if folder else self._deletions).append(event.path)
        self._tally.counts["deleted"] += 1
        self._tell(Action.DELETE, event.path)

    def _tell(self, action: Action, path: str, size: int | None = None) -> None:
        if not self._telling:
            return
        self._runner.tell(ReportEntry(action=action, path=plain(path), size=size))

    def _plan_result(self, _: str | None) -> MovePlan:
        return self._session.move_plan(self._tally.totals, self._tally.sample)
