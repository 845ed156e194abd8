"""The operator's rclone config file: which remotes there are, and what a task gets of it.

A task's process gets a copy of the sections that it needs, never the file. No value of an option
appears in any message of this module, for most of them are secrets.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from dms_scheduler.movers.errors import MoverError, Refused

CONFIG_VARIABLE = "DMS_RCLONE_CONFIG"
_MOST_BYTES = 4 << 20
_SECRET = re.compile(r"pass|key|secret|token|auth|credential|cookie|sas_url|2fa", re.IGNORECASE)
_SHORTEST_SECRET = 4
_RUNS_PROGRAMS = ("bearer_token_command", "ssh", "metadata_mapper", "password_command")
_ENCRYPTED = ("RCLONE_ENCRYPT_V0:", "# Encrypted rclone configuration File")


class RcloneConfigError(MoverError):
    """The config file cannot be used; the operator has to act."""

    error_class = "rclone_config"


@dataclass(slots=True)
class Section:
    """One remote: its options, and its lines as they stand in the file."""

    options: dict[str, str] = field(default_factory=dict[str, str])
    lines: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class RcloneConfig:
    """A parsed config file."""

    path: str
    sections: Mapping[str, Section]
    exposed: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The remotes that tasks may use, in order; those that lead to local files are left out."""
        return tuple(name for name in sorted(self.sections) if self._usable(name))

    def _usable(self, name: str) -> bool:
        try:
            self.chain(name)
        except MoverError:
            return False
        return True

    def chain(self, name: str) -> tuple[str, ...]:
        """Return `name` and all remotes that it is built on.

        Raises:
            Refused: the file does not have it, or it leads to local files or programs.

        """
        if name not in self.sections:
            message = f"remote {name!r} is not configured; use one of those that are, or ask the "
            raise Refused(f"{message}operator to add it", error_class="unknown_remote")
        chain: list[str] = []
        self._collect(name, chain)
        return tuple(chain)

    def _collect(self, name: str, chain: list[str]) -> None:
        if name in chain:
            return
        section = self.sections.get(name)
        if section is None:
            raise _unusable(chain[0] if chain else name, "it is built on a remote that is missing")
        chain.append(name)
        self._refuse_local(chain[0], section)
        for inner in _inner_remotes(section):
            nested, colon, _ = inner.partition(":")
            if not colon or not nested or nested.startswith("/") or "," in nested:
                raise _unusable(
                    chain[0], "it is built on something that is no named remote (a local path?)"
                )
            self._collect(nested, chain)

    def _refuse_local(self, name: str, section: Section) -> None:
        kind = section.options.get("type", "")
        if not kind:
            raise _unusable(name, "it has no type")
        if kind == "local":
            raise _unusable(name, "it leads to files of this machine; use a plain path for those")
        for option in _RUNS_PROGRAMS:
            if section.options.get(option):
                raise _unusable(name, f"its option {option} runs a program on this machine")

    def text_of(self, names: tuple[str, ...]) -> str:
        """Return a config file with these sections alone."""
        return "\n".join(
            line for name in names for line in (f"[{name}]", *self.sections[name].lines, "")
        )

    def files_of(self, names: tuple[str, ...]) -> Iterator[str]:
        """Return the files that these remotes read, such as keys and certificates."""
        for name in names:
            for value in self.sections[name].options.values():
                if value.startswith("/") and os.path.isfile(value):
                    yield value

    def secrets_of(self, names: tuple[str, ...]) -> frozenset[str]:
        """Return what must not be shown of these remotes."""
        found: set[str] = set()
        for name in names:
            for option, value in self.sections[name].options.items():
                if _SECRET.search(option):
                    found.update(_secrets_in(value))
        return frozenset(text for text in found if len(text) >= _SHORTEST_SECRET)


def _unusable(name: str, why: str) -> Refused:
    message = f"remote {name!r} cannot be used by tasks: {why}"
    return Refused(message, error_class="remote_refused")


def _inner_remotes(section: Section) -> Iterator[str]:
    remote = section.options.get("remote")
    if remote:
        yield remote
    kind = section.options.get("type")
    for upstream in _split_upstreams(section.options.get("upstreams", "")):
        yield upstream.partition("=")[2] if kind == "combine" else upstream


def _split_upstreams(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _secrets_in(value: str) -> Iterator[str]:
    yield value
    try:
        inner: object = json.loads(value)
    except ValueError:
        return
    if isinstance(inner, dict):
        for item in cast("dict[str, object]", inner).values():
            if isinstance(item, str):
                yield item


def load_config(path: str) -> RcloneConfig:
    """Read the config file at `path`.

    Raises:
        RcloneConfigError: it is missing, unreadable, encrypted or malformed.

    """
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        message = f"{CONFIG_VARIABLE}: {path} cannot be read ({reason})"
        raise RcloneConfigError(f"{message}; correct the path or its permissions") from error
    except UnicodeDecodeError as error:
        message = f"{CONFIG_VARIABLE}: {path} is not UTF-8 text; is it a config file of rclone?"
        raise RcloneConfigError(message) from error
    if len(text) > _MOST_BYTES:
        message = (
            f"{CONFIG_VARIABLE}: {path} is larger than {_MOST_BYTES} bytes; is it a config file "
            "of rclone?"
        )
        raise RcloneConfigError(message)
    return RcloneConfig(path, _parse(text, path), bool(stat.S_IMODE(mode) & stat.S_IROTH))


def _parse(text: str, path: str) -> dict[str, Section]:
    sections: dict[str, Section] = {}
    current: Section | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith(_ENCRYPTED):
            message = (
                f"{CONFIG_VARIABLE}: {path} is encrypted, and a worker has nobody to ask for its "
                "password; give it a plain file that only its own user can read (mode 0600)"
            )
            raise RcloneConfigError(message)
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1].strip(), Section())
            continue
        if current is None or not _take(current, line):
            message = (
                f"{CONFIG_VARIABLE}: {path}, line {number}: is neither [name] nor key = value; "
                "correct it"
            )
            raise RcloneConfigError(message)
    return sections


def _take(section: Section, line: str) -> bool:
    key, equals, value = line.partition("=")
    if not equals or not key.strip():
        return False
    section.options[key.strip().lower()] = value.strip().strip("`")
    section.lines.append(line)
    return True


def remote_names(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the remotes that tasks may use, none without DMS_RCLONE_CONFIG.

    Raises:
        RcloneConfigError: the file cannot be used.

    """
    path = environ.get(CONFIG_VARIABLE, "").strip()
    return load_config(path).names if path else ()


def keep_tokens(config: RcloneConfig, copy: str, names: tuple[str, ...]) -> bool:
    """Take tokens that rclone renewed in its `copy` over to the operator's file.

    Some services give out a new token with each use and forget the old one. Return whether all is
    kept: False if there are new ones and the file cannot be written.
    """
    try:
        new = {name: load_config(copy).sections[name].options.get("token") for name in names}
    except (MoverError, KeyError):
        return True  # rclone was ended before it had written its copy, which it replaces as a whole
    old = {name: config.sections[name].options.get("token") for name in names}
    changed = {name: token for name, token in new.items() if token and token != old[name]}
    return not changed or _replace_tokens(config.path, changed)


def _replace_tokens(path: str, tokens: Mapping[str, str]) -> bool:
    temporary = f"{path}.dms-new"
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            status = os.fstat(file.fileno())
            text = _with_tokens(file.read(), tokens)
            with open(temporary, "w", encoding="utf-8", opener=_private) as new:
                os.fchmod(new.fileno(), stat.S_IMODE(status.st_mode))
                os.fchown(new.fileno(), status.st_uid, status.st_gid)
                new.write(text)
                new.flush()
                os.fsync(new.fileno())
            Path(temporary).replace(path)
    except OSError:
        return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _with_tokens(text: str, tokens: Mapping[str, str]) -> str:
    lines: list[str] = []
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        is_token = line.partition("=")[0].strip().lower() == "token"
        lines.append(f"token = {tokens[section]}" if is_token and section in tokens else raw)
    return "\n".join([*lines, ""])
