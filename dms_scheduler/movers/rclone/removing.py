"""`remove` by rclone: counts what is below a remote path, refuses too much, then removes it."""

from __future__ import annotations

from dms_scheduler.movers.contract import Control, MoveOptions, RemoveRequest
from dms_scheduler.movers.errors import Refused, not_found
from dms_scheduler.movers.patterns import BACKUP_NAME
from dms_scheduler.movers.rclone.address import Address, parse_address
from dms_scheduler.movers.rclone.answers import fields, items
from dms_scheduler.movers.rclone.events import Event, Kind
from dms_scheduler.movers.rclone.names import plain
from dms_scheduler.movers.rclone.places import Place
from dms_scheduler.movers.rclone.session import Session, remote_place
from dms_scheduler.movers.rclone.settings import RcloneSettings
from dms_scheduler.movers.results import Action, MovePlan, MoveResult, Phase, ReportEntry


class Removing:
    """One call of remove."""

    def __init__(self, settings: RcloneSettings, request: RemoveRequest, control: Control) -> None:
        self._request = request
        options = MoveOptions(include=request.include, exclude=request.exclude)
        self._session = Session(settings, control, (request.path,), (), options, request.task_id)
        self._runner = self._session.runner
        self._tally = self._runner.tally
        self._files = 0
        self._folders: list[str] = []

    def remove(self) -> MoveResult | MovePlan:
        """Do it, or say what would be done. Raises MoverError."""
        session = self._session
        with session.told(session.move_result):
            address = parse_address(self._request.path)
            if address.is_top:
                raise _top(address)
            place = self._open(address)
            if place is None:
                return session.move_result(None)
            if place.file is None:
                self._runner.above = address.parts[-1]
            self._plan(place)
            if self._request.dry_run:
                return session.move_plan(self._tally.totals, self._tally.sample)
            self._act(place, address)
            session.refuse_partial("the others are removed")
            self._runner.log(f"done: {self._tally.totals.deleted} entries removed")
            return session.move_result(None)

    def _open(self, address: Address) -> Place | None:
        place = remote_place(address)
        if not self._request.dry_run:
            self._session.lock_remote(address, alone=True)
        self._session.start(place)
        if place.known.buckets and len(address.parts) == 1:
            raise _top(address)
        found = self._session.as_found(place, repr(address.text))
        if found is None:
            if self._request.epoch <= 1:
                raise not_found(repr(address.text))
            self._runner.log("nothing is there any more: an earlier attempt removed it")
        return found

    @property
    def _filtered(self) -> bool:
        return bool(self._request.include or self._request.exclude)

    def _chosen(self) -> dict[str, object]:
        return self._session.chosen if self._filtered else {}

    def _plan(self, place: Place) -> None:
        if place.file is not None:
            self._tell(place.file)
        else:
            self._plan_folder(place)
        count = self._tally.totals.deleted
        self._session.refuse_many(count, self._request.max_delete)
        self._files = count - len(self._folders)

    def _plan_folder(self, place: Place) -> None:
        # What the patterns leave out keeps its folders, so then none is removed.
        if place.known.empty_folders and not self._filtered:
            answer = self._session.do(
                "operations/list",
                {
                    "fs": place.fs,
                    "remote": "",
                    "opt": {"recurse": True, "dirsOnly": True, "noModTime": True},
                },
                place.text,
            )
            listed = (str(fields(item).get("Path")) for item in items(answer.get("list")))
            paths = sorted(listed, key=_depth, reverse=True)
            self._folders = [*paths, ""]
        self._runner.on_event = self._take
        parameters = {"fs": place.fs, "_filter": self._chosen(), "_config": {"DryRun": True}}
        self._session.do("operations/delete", parameters, place.text)
        if not self._request.recursive and (self._tally.totals.deleted or len(self._folders) > 1):
            message = f"{place.text!r} is a directory that is not empty; set recursive=true"
            raise Refused(message, error_class="not_empty")
        for path in self._folders:
            self._tell(path or ".")

    def _act(self, place: Place, address: Address) -> None:
        self._tally.planned = self._tally.totals
        self._tally.counts.clear()
        self._tally.phase = Phase.DELETE
        self._runner.on_event = self._take
        if place.file is not None:
            self._remove_file(place, address)
        elif self._files:
            self._remove_files(place, address)
        if not self._runner.has_failures:
            for path in self._folders:
                self._remove_folder(place, address, path)
        self._runner.settle_failures()

    def _backup(self, address: Address) -> Address:
        """Return where what is removed is kept, beside it."""
        above = Address(
            address.text, address.name, address.parts[:-1], address.absolute, wants_directory=True
        )
        name = f"{self._request.task_id}.{self._request.epoch}"
        return above.child(BACKUP_NAME, name, address.parts[-1])

    def _remove_file(self, place: Place, address: Address) -> None:
        parameters = {"fs": place.fs, "remote": place.file}
        if self._request.backup:
            kept = self._backup(address)
            parameters = {
                "srcFs": place.fs,
                "srcRemote": place.file,
                "dstFs": kept.parent,
                "dstRemote": place.file,
            }
        call = "operations/movefile" if self._request.backup else "operations/deletefile"
        self._session.step(call, parameters, place.text)

    def _remove_files(self, place: Place, address: Address) -> None:
        if self._request.backup:
            parameters = {
                "srcFs": place.fs,
                "dstFs": self._backup(address).fs,
                "_filter": self._chosen(),
            }
            self._session.step("sync/move", parameters, place.text)
        else:
            parameters = {"fs": place.fs, "_filter": self._chosen()}
            self._session.step("operations/delete", parameters, place.text)

    def _remove_folder(self, place: Place, address: Address, path: str) -> None:
        fs, remote = (place.fs, path) if path else (address.parent, address.parts[-1])
        if self._session.remove_folder(fs, remote, path or "."):
            self._tell(path or ".")

    def _take(self, event: Event) -> None:
        if event.kind in {Kind.DELETED, Kind.MOVED} and event.path:
            self._tell(event.path)

    def _tell(self, path: str) -> None:
        self._tally.counts["deleted"] += 1
        if self._request.dry_run or self._tally.planned is not None:
            path = plain(self._runner.told(path))
            self._runner.tell(ReportEntry(action=Action.DELETE, path=path))


def _depth(path: str) -> int:
    return path.count("/")


def _top(address: Address) -> Refused:
    message = (
        f"{address.text} is the top of a remote or a bucket, never removed; name what is in it"
    )
    return Refused(message, error_class="root_refused")
