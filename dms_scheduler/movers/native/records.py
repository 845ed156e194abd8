"""What the plan writes down for the pass that acts: plain tuples, for a spool and a pipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

Identity = tuple[int, int]
FileFields = tuple[str, str, int, int]
"""A `FilePlan` as a plain tuple: what a million of them are kept and handed on as."""


class Kind(IntEnum):
    """The first field of a planned record."""

    FOLDER = 0  # the files that follow lie in it
    GROUP = 1
    BIG = 2  # a file that is copied in parts
    REMOVE = 3  # of another kind than what is to come there


class FolderPlan(NamedTuple):
    """A directory with something to do in it; `target` is None where it has to be made."""

    path: str
    source: Identity
    target: Identity | None


class FilePlan(NamedTuple):
    """A file or link of the folder before it; `verdict` is the value of a `Verdict`."""

    name: str
    target: str
    verdict: int
    size: int


class GroupPlan(NamedTuple):
    """Files of the folder before it, and how much of a batch they make."""

    weight: int
    files: list[FileFields]


class RemovalPlan(NamedTuple):
    """An entry of the destination to delete, after all that lies below it.

    `lacked` is the path that the source must still lack, None where it has to make place.
    """

    folder: str
    name: str
    is_directory: bool
    lacked: str | None


class HardlinkPlan(NamedTuple):
    """A file of `size` bytes whose name `target` becomes another one of `leader`, a path."""

    folder: str
    name: str
    target: str
    leader: str
    size: int


class FinishPlan(NamedTuple):
    """A directory to finish once its content is complete.

    `mode` is to be given back where this run had to loosen it; `attributes` says whether the
    source's are to be carried over.
    """

    path: str
    source: Identity
    made: bool
    mode: int | None
    attributes: bool


class Outcome(NamedTuple):
    """What became of a file: the value of an `Action`, or '' if nothing was done; bytes of it."""

    action: str
    size: int | None


class Failure(NamedTuple):
    """Why a file failed: an errno, or 0 and a class and whether it may pass."""

    code: int
    error_class: str
    reason: str
    retryable: bool


@dataclass(slots=True)
class Done:
    """What became of a batch: the first `handled` files are done, each copied as it was planned
    but for the `unusual` ones, by their place."""

    handled: int = 0
    unusual: list[tuple[int, Outcome | Failure]] = field(default_factory=list)


def child(folder: str, name: str) -> str:
    """Return the path of an entry of the directory `folder`, whose path is '' at the top."""
    return f"{folder}/{name}" if folder else name
