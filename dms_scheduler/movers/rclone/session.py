"""One call of the rclone engine: opens both ends, starts rclone, and tells how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from dms_scheduler.movers.contract import Control, MoveOptions, Symlinks
from dms_scheduler.movers.errors import MoverError, PartialFailure, Refused
from dms_scheduler.movers.guard import Stopped
from dms_scheduler.movers.locks import Locks
from dms_scheduler.movers.oserrors import as_mover_error as as_os_mover_error
from dms_scheduler.movers.paths import root_identities
from dms_scheduler.movers.rclone import confine
from dms_scheduler.movers.rclone.address import Address, is_remote, parse_address
from dms_scheduler.movers.rclone.answers import fields
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
    find_binary,
)
from dms_scheduler.movers.rclone.faults import as_mover_error
from dms_scheduler.movers.rclone.filters import rules
from dms_scheduler.movers.rclone.places import LocalSide, Place, read_features
from dms_scheduler.movers.rclone.remote_lock import hold_remote
from dms_scheduler.movers.rclone.runner import JobFailed, Runner
from dms_scheduler.movers.rclone.settings import UNCONFINED_VARIABLE, RcloneSettings
from dms_scheduler.movers.results import MoveOutcome, readable

_RETRIES_BELOW = 3
_WORKED_ON = 4 << 20  # bytes that rclone reads ahead of each transfer


class Session:
    """What plan, run, check and remove have in common; used as a context manager."""

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
        self.options = options
        self.addresses = [parse_address(text) if is_remote(text) else None for text in texts]
        self.config = _loaded(settings)
        names = dict.fromkeys(
            part
            for address in self.addresses
            if address is not None
            for part in self.config.chain(address.name)
        )
        self.names = tuple(names)
        self.runner = Runner(control, options.bandwidth, self.config.secrets_of(self.names))
        self.stack = ExitStack()
        self.filters = rules(options.include, options.exclude)
        self.suffix = f".dms-part.{hashlib.sha256(task_id.encode()).hexdigest()[:6]}"
        self._settings = settings
        self._locks = Locks(root_identities(roots), self.runner.log)
        self.local = LocalSide(roots, self.stack, self._locks)
        self.folder: Folder | None = None

    def start(self, *places: Place) -> None:
        """Start rclone, and ask it what the remotes among `places` can do. Raises MoverError."""
        runner = self.runner
        rights = {fd: right for place in places for fd, right in place.rights.items()}
        confined = self._confined(local=bool(rights))
        self.folder = folder = self.folder or self.stack.enter_context(closing(Folder()))
        config = folder.write("rclone.conf", self.config.text_of(self.names))
        self.stack.callback(self._keep_tokens, config)
        runner.daemon = daemon = Daemon(folder, runner.take)
        self.stack.callback(self.stop)
        for path in self.config.files_of(self.names):
            rights[daemon.open_file(path)] = confine.READ_FILE
        rights.update(dict.fromkeys(self._locks.fds, 0))
        daemon.start(find_binary(), self._flags(config, folder), rights, confined=confined)
        runner.begin()
        if self.config.exposed:
            runner.log(f"{CONFIG_VARIABLE}: others can read this file with its secrets: chmod 600")
        for place in places:
            self.ask_features(place)

    def stop(self) -> None:
        """End rclone."""
        if self.runner.daemon is not None:
            self.runner.daemon.close()
            self.runner.daemon = None

    def only(self, paths: Sequence[str]) -> dict[str, object]:
        """Return a filter for these paths alone. A name may hold any character but NUL."""
        if self.folder is None:
            message = "rclone was not started"
            raise RuntimeError(message)
        text = "".join(f"{path}\0" for path in paths)
        return {"FilesFrom0": [self.folder.write("paths", text)]}

    def ask_features(self, place: Place) -> None:
        """Learn what a side can do. Raises MoverError."""
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
        if not keep_tokens(self.config, copy, self.names):
            self.runner.log(
                f"{CONFIG_VARIABLE}: a remote gave out a new token, and the file cannot be written"
            )

    def lock_remote(self, address: Address, *, alone: bool) -> None:
        """Keep other tasks of this machine from writing there. Raises DestinationBusy."""
        hold_remote(address, self.config.path, self.stack, alone=alone)

    def do(self, path: str, parameters: Mapping[str, object], what: str) -> dict[str, object]:
        """Run a step whose failure ends the call. Raises MoverError."""
        try:
            return self.runner.job(path, parameters)
        except JobFailed as failed:
            raise as_mover_error(str(failed), what) from failed

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

    def refuse_partial(self, what: str) -> None:
        """Raise PartialFailure if some paths failed; `what` says what became of the others."""
        tally = self.runner.tally
        if not tally.failed_count:
            return
        first = tally.failed[0]
        count = tally.failed_count
        paths = "1 path failed" if count == 1 else f"{count} paths failed"
        message = f"{paths}, {what}; the first: {readable(first.path) or '.'}: {first.reason}"
        raise PartialFailure(message, retryable=tally.retryable)

    @contextmanager
    def told(self, result: Callable[[str | None], MoveOutcome]) -> Generator[None]:
        """Close everything at the end; give an error what had been done, and no secrets."""
        try:
            with self.stack:
                self.stack.callback(self._locks.close)
                yield
        except Stopped as stopped:
            raise self.runner.guard.cause or stopped from None
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


def remote_place(address: Address) -> Place:
    """Return a remote end."""
    return Place(text=address.text, fs=address.fs, address=address, is_top=address.is_top)


def as_file(place: Place) -> Place:
    """Return the same place as a file in its folder."""
    if place.address is None or place.address.is_top:
        return place
    return replace(place, fs=place.address.parent, file=place.address.parts[-1])
