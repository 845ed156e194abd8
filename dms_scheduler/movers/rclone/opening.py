"""Opens both ends of a move by rclone, and refuses what would make no sense or do harm."""

from __future__ import annotations

from dataclasses import replace

from dms_scheduler.movers.contract import Compare, MoveRequest, Preserve
from dms_scheduler.movers.errors import Refused, not_found, overlap
from dms_scheduler.movers.rclone.places import Place
from dms_scheduler.movers.rclone.session import Session, as_file, remote_place

_IMPOSSIBLE = {Preserve.OWNER, Preserve.XATTRS, Preserve.HARDLINKS, Preserve.SPARSE}


class Opening:
    """One call's ends."""

    def __init__(self, session: Session, request: MoveRequest) -> None:
        """Raises Refused for options that no remote can fulfil, and for ends that overlap."""
        if impossible := sorted(_IMPOSSIBLE & request.options.preserve):
            message = f"preserve: {', '.join(impossible)} cannot be carried to or from a remote"
            raise Refused(f"{message}; use mtime and mode", error_class="unsupported_option")
        self._session = session
        self._request = request
        self._options = request.options
        self._refuse_overlap()

    def _refuse_overlap(self) -> None:
        source, target = self._session.addresses
        if source is None or target is None:
            return
        same = (source.name, source.absolute) == (target.name, target.absolute)
        shorter = min(len(source.parts), len(target.parts))
        if same and source.parts[:shorter] == target.parts[:shorter]:
            raise overlap()

    def open(self, *, change: bool) -> tuple[Place, Place]:
        """Return source and destination with rclone running; what is missing is made if `change`.

        Raises:
            MoverError: an end is not there, not allowed or not reachable.

        """
        source = self._open_source()
        if self._session.addresses[1] is None and self._kind_decides():
            source = self._look_first(source)
        target = self._open_target(source, change=change)
        self._refuse_top(target)
        self._session.start(source, target)
        source = self._find_source(source)
        target = self._find_target(source, target)
        self._refuse_impossible(source, target)
        return source, target

    def _open_source(self) -> Place:
        address = self._session.addresses[0]
        if address is not None:
            return remote_place(address)
        source = self._session.local.source(self._request.src, at_rest=self._options.delete)
        self._refuse_file_mirror(source)
        return source

    def _refuse_file_mirror(self, source: Place) -> None:
        if self._options.delete and source.file is not None:
            message = "delete=true needs a directory as src; a single file has nothing to mirror"
            raise Refused(message, error_class="bad_source")

    def _kind_decides(self) -> bool:
        """Say whether the kind of the source decides where in the local tree rclone may write."""
        return not self._session.local.is_folder(self._request.dst)

    def _look_first(self, source: Place) -> Place:
        """Look at a remote source with an rclone that reaches no local file."""
        self._session.start(source)
        found = self._find_source(source)
        self._session.stop()
        return found

    def _open_target(self, source: Place, *, change: bool) -> Place:
        address = self._session.addresses[1]
        if address is None:
            return self._session.local.target(self._request.dst, source.file, change=change)
        target = remote_place(address)
        self._refuse_top(target)
        if change:
            self._session.lock_remote(address, alone=source.file is None)
        return target

    def _refuse_top(self, target: Place) -> None:
        if self._options.delete and target.is_top:
            message = f"{target.text} is a root, never deleted from; use a folder in it"
            raise Refused(message, error_class="root_refused")

    def _find_source(self, source: Place) -> Place:
        if source.address is None or source.file is not None:
            return source
        called = f"source {source.text!r}"
        found = self._session.as_found(source, called)
        if found is None:
            raise not_found(called)
        self._refuse_file_mirror(found)
        return found

    def _find_target(self, source: Place, target: Place) -> Place:
        if target.address is None:
            return (
                target if source.file is None else replace(target, file=target.file or source.file)
            )
        found = self._session.find(target)
        target.exists = found is not None
        is_folder = found is not None and bool(found.get("IsDir"))
        if source.file is None:
            if found is not None and not is_folder:
                message = f"destination {target.text!r} is a file; name a directory"
                raise Refused(message, error_class="bad_destination")
            return target
        if is_folder or target.address.wants_directory:
            return replace(target, file=source.file)
        return as_file(target)

    def _refuse_impossible(self, source: Place, target: Place) -> None:
        common = source.known.hashes & target.known.hashes
        if self._options.compare is Compare.CHECKSUM and not common:
            message = (
                "the two sides have no kind of checksum in common, so compare=checksum cannot be "
                "done; use size_mtime or size, and `check` with compare=checksum, which reads both"
            )
            raise Refused(message, error_class="no_common_hash")
        backs_up = self._options.delete and self._options.backup_deleted
        if backs_up and not target.known.moves:
            message = f"{target.text}: this kind of remote cannot move what is deleted to a backup"
            raise Refused(f"{message}; set backup_deleted=false", error_class="no_backup")
