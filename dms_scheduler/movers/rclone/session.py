"""One call of the rclone engine: opens both ends, starts rclone, and tells how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from dms_scheduler.movers.answering import Answering
from dms_scheduler.movers.contract import Control, MoveOptions, Symlinks
from dms_scheduler.movers.errors import MoverError, Refused
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.oserrors import as_mover_error as as_os_mover_error
from dms_scheduler.movers.paths import root_identities
from dms_scheduler.movers.rclone import confine
from dms_scheduler.movers.rclone.address import Address, is_remote, parse_address
from dms_scheduler.movers.rclone.answers import fields
from dms_scheduler.movers.rclone.binary import find_binary, version_of
from dms_scheduler.movers.rclone.config import (
    CONFIG_VARIABLE,
    RcloneConfig,
    keep_tokens,
    load_config,
)
from dms_scheduler.movers.rclone.daemon import (
    CallError,
    Daemon,
    Folder,
    RcloneError,
)
from dms_scheduler.movers.rclone.faults import as_mover_error, classify
from dms_scheduler.movers.rclone.filters import rules
from dms_scheduler.movers.rclone.places import LocalSide, Place, read_features
from dms_scheduler.movers.rclone.remote_lock import hold_remote
from dms_scheduler.movers.rclone.runner import JobFailed, Runner
from dms_scheduler.movers.rclone.settings import UNCONFINED_VARIABLE, RcloneSettings
from dms_scheduler.movers.results import MoveOutcome

ENGINE = "rclone"
_RETRIES_BELOW = 3
_WORKED_ON = 4 << 20  # bytes that rclone reads ahead of each transfer


class Session(Answering):
    """What plan, run, check and remove have in common; of one call."""

    def __init__(
        self,
        settings: RcloneSettings,
        control: Control,
        texts: tuple[str, ...],
        roots: tuple[str, ...],
        options: MoveOptions,
        task_id: str,
    ) -> None:
        """`texts` are the paths of the call, of which at least one names a remote."""
        self._binary = find_binary()
        self.options = options
        self.addresses = [parse_address(text) if is_remote(text) else None for text in texts]
        self._config = _loaded(settings)
        self._names = _needed(self._config, self.addresses)
        self.runner = Runner(control, options.bandwidth, self._config.secrets_of(self._names))
        super().__init__(ENGINE, version_of(self._binary), self.runner.tally)
        self._stack = ExitStack()
        self.chosen: dict[str, object] = {"FilterRule": rules(options.include, options.exclude)}
        self.suffix = f".dms-part.{hashlib.sha256(task_id.encode()).hexdigest()[:6]}"
        self._settings = settings
        self._locks = Locks(root_identities(roots), self.runner.log)
        self.local = LocalSide(roots, self._stack, self._locks)
        self._folder: Folder | None = None

    def start(self, *places: Place) -> None:
        """Start rclone, and ask it what the remotes among `places` can do. Raises MoverError."""
        runner = self.runner
        rights = {fd: right for place in places for fd, right in place.rights.items()}
        confined = self._confined(local=bool(rights))
        self._folder = folder = self._folder or self._stack.enter_context(closing(Folder()))
        config = folder.write("rclone.conf", self._config.text_of(self._names))
        self._stack.callback(self._keep_tokens, config)
        runner.daemon = daemon = Daemon(folder, runner.take)
        self._stack.callback(self.stop)
        for path in self._config.files_of(self._names):
            rights[daemon.open_file(path)] = confine.READ_FILE
        rights.update(dict.fromkeys(self._locks.fds, 0))
        daemon.start(self._binary, self._flags(config, folder), rights, confined=confined)
        runner.begin()
        if self._config.exposed:
            runner.log(f"{CONFIG_VARIABLE}: others can read this file with its secrets: chmod 600")
        for place in places:
            self._ask_features(place)

    def stop(self) -> None:
        """End rclone."""
        if self.runner.daemon is not None:
            self.runner.daemon.close()
            self.runner.daemon = None

    def only(self, paths: Sequence[str]) -> dict[str, object]:
        """Return a filter for these paths alone. A name may hold any character but NUL."""
        if self._folder is None:
            message = "rclone was not started"
            raise RuntimeError(message)
        text = "".join(f"{path}\0" for path in paths)
        return {"FilesFrom0": [self._folder.write("paths", text)]}

    def _ask_features(self, place: Place) -> None:
        fs = place.fs if place.address is None else place.address.parent
        place.features = read_features(self.do("operations/fsinfo", {"fs": fs}, place.text))

    def _confined(self, *, local: bool) -> bool:
        if confine.version():
            return True
        if local and not self._settings.unconfined:
            message = (
                "this kernel cannot confine rclone to the folders of a task (no Landlock), so it "
                f"moves nothing to or from local files; set {UNCONFINED_VARIABLE}=1 on the worker "
                "to allow it all the same"
            )
            raise Refused(message, error_class="no_sandbox")
        if local:
            self.runner.log("rclone runs without a sandbox: this kernel has no Landlock")
        return False

    def _flags(self, config: str, folder: Folder) -> list[str]:
        keep = self.options.symlinks is Symlinks.KEEP
        return [
            f"--config={config}",
            "--links" if keep else "--skip-links",
            "--use-json-log",
            "--log-level=INFO",
            "--ask-password=false",
            "--stats=0",
            f"--transfers={self.options.transfers}",
            f"--checkers={max(8, self.options.transfers)}",
            f"--low-level-retries={_RETRIES_BELOW}",
            "--contimeout=15s",
            "--timeout=60s",
            f"--buffer-size={_WORKED_ON}B",
            f"--partial-suffix={self.suffix}",
            f"--temp-dir={folder.path}",
            f"--cache-dir={folder.file('cache')}",
            "--sftp-skip-links",
            "--s3-no-check-bucket",  # a bucket whose name is mistyped must not be made
        ]

    def _keep_tokens(self, copy: str) -> None:
        if not keep_tokens(self._config, copy, self._names):
            self.runner.log(
                f"{CONFIG_VARIABLE}: a remote gave out a new token, and the file cannot be "
                "written; let the worker's user write it"
            )

    def lock_remote(self, address: Address, *, alone: bool) -> None:
        """Keep other tasks of this machine from writing there. Raises DestinationBusy."""
        hold_remote(address, self._config.path, self._stack, alone=alone)

    def do(self, path: str, parameters: Mapping[str, object], what: str) -> dict[str, object]:
        """Run a step whose failure ends the call. Raises MoverError."""
        try:
            return self.runner.job(path, parameters)
        except JobFailed as failed:
            raise as_mover_error(str(failed), what) from failed

    def step(self, path: str, parameters: Mapping[str, object], what: str) -> None:
        """Run a step in which single paths may fail. Raises MoverError if it failed as a whole."""
        try:
            self.runner.job(path, parameters)
        except JobFailed as failed:
            if not self.runner.has_failures or classify(str(failed)).fatal:
                raise as_mover_error(str(failed), what) from failed

    def compare(
        self,
        source: Place,
        target: Place,
        chosen: Mapping[str, object],
        *,
        one_way: bool,
        download: bool,
        size_only: bool = False,
    ) -> dict[str, object]:
        """Have two sides compared by checksums, or where `download` by reading both; return lists.

        What differs is told to the runner's `on_event` as failures, and is none. Raises JobFailed.
        """
        self.runner.expects_differences = True
        parameters = {
            "srcFs": source.fs,
            "dstFs": target.fs,
            "oneWay": one_way,
            "download": download,
            "differ": True,
            "missingOnDst": True,
            "missingOnSrc": True,
            "error": True,
            "_config": {"SizeOnly": size_only},
            "_filter": chosen,
        }
        try:
            return self.runner.job("operations/check", parameters)
        finally:
            self.runner.expects_differences = False

    def remove_folder(self, fs: str, remote: str, called: str) -> bool:
        """Remove an empty folder; if that fails, note it for the path `called`. Return success."""
        try:
            self.runner.job("operations/rmdir", {"fs": fs, "remote": remote})
        except JobFailed as failed:
            self.runner.note_failure(called, str(failed))
            return False
        return True

    def find(self, place: Place) -> dict[str, object] | None:
        """Return what is at a remote place, None if nothing is. Raises MoverError."""
        address = place.address
        if address is None or address.is_top:
            return {"IsDir": True}
        if place.known.buckets and len(address.parts) == 1:
            return {"IsDir": True}  # who may use a bucket may not be allowed to list them all
        answer = self.do(
            "operations/stat", {"fs": address.parent, "remote": address.parts[-1]}, place.text
        )
        return fields(answer.get("item")) or None

    def as_found(self, place: Place, called: str) -> Place | None:
        """Return a remote place as the folder or the file that it is, None if nothing is there.

        `called` names it in errors. Raises MoverError.
        """
        found = self.find(place)
        if found is None:
            return None
        if found.get("IsDir"):
            return place
        if place.address is not None and place.address.wants_directory:
            message = f"{called} is a file, and the path ends with a slash; leave the slash out"
            raise Refused(message, error_class="bad_source")
        return as_file(place)

    def refuse_many(self, count: int, most: int) -> None:
        """Refuse to delete more than `most` entries, before any is."""
        if count > most:
            message = (
                f"{count} entries would be deleted, max_delete allows {most}; nothing was "
                "changed: check the paths, or raise max_delete"
            )
            raise Refused(message, error_class="max_delete")

    @contextmanager
    def told(self, result: Callable[[str | None], MoveOutcome]) -> Generator[None]:
        """Close everything at the end; give an error what had been done, and no secrets."""
        try:
            with self._stack:
                self._stack.callback(self._locks.close)
                yield
        except CallError as error:
            broken = RcloneError(f"rclone refused a call: {self.runner.shown(str(error))}")
            broken.result = result(broken.error_class)
            raise broken from error
        except OSError as error:
            failed = as_os_mover_error(error, "")
            failed.result = result(failed.error_class)
            raise failed from error
        except MoverError as error:
            error.args = (self.runner.shown(str(error)),)
            error.result = error.result or result(error.error_class)
            raise


def _loaded(settings: RcloneSettings) -> RcloneConfig:
    if not settings.config:
        message = (
            "no remotes are configured: the operator names a config file of rclone in "
            f"{CONFIG_VARIABLE} of the worker"
        )
        raise Refused(message, error_class="no_remotes")
    return load_config(settings.config)


def _needed(config: RcloneConfig, addresses: Sequence[Address | None]) -> tuple[str, ...]:
    """Return the remotes in `addresses` with all that they are built on, each once."""
    chains = (config.chain(address.name) for address in addresses if address is not None)
    return tuple(dict.fromkeys(name for chain in chains for name in chain))


def remote_place(address: Address) -> Place:
    """Return a remote end."""
    return Place(text=address.text, fs=address.fs, address=address, is_top=address.is_top)


def as_file(place: Place) -> Place:
    """Return the same place as a file in its folder."""
    if place.address is None or place.address.is_top:
        return place
    return replace(place, fs=place.address.parent, file=place.address.parts[-1])
