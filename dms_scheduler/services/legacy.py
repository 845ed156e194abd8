"""Reads the option strings of mpiFileUtils' dsync, dcmp and drm into typed parameters.

Nothing of a string ever reaches a shell or a program: each option is looked up in a table, and
what the table does not have is refused by name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from dms_scheduler.movers import DEFAULT_PRESERVE, Compare, Preserve, Symlinks, readable

_MOST_TRANSFERS = 32
_SIZE = re.compile(r"\d+(?:\.\d+)?\s*[kmgtpe]?i?b?", re.IGNORECASE)
Meaning = Callable[[str], tuple[str, object] | None]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: it sets a parameter, means nothing here (`note`), or is refused (`refusal`)."""

    spellings: tuple[str, ...]
    takes_value: bool = False
    means: Meaning | None = None
    note: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program and its options."""

    name: str
    options: tuple[Option, ...]

    def find(self, spelling: str) -> Option | None:
        """Return the option that is spelled so."""
        return next((each for each in self.options if spelling in each.spellings), None)

    def without(self, name: str, refusal: str) -> Tool:
        """Return the tool with the option `--name` refused."""
        options = tuple(
            replace(each, means=None, refusal=refusal) if f"--{name}" in each.spellings else each
            for each in self.options
        )
        return Tool(self.name, options)


@dataclass(frozen=True, slots=True)
class Legacy:
    """What an option string means: parameters, how each was spelled, and lines for the log.

    A value of `wanted` that is a set is what must be in the parameter, `fields` has all of it.
    """

    wanted: dict[str, object] = field(default_factory=dict[str, object])
    spelled: dict[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, object]:
        """The parameters, as if they had been given by name."""
        fields = dict(self.wanted)
        if isinstance(added := fields.get("preserve"), frozenset):
            fields["preserve"] = DEFAULT_PRESERVE | added
        return fields


def read_legacy(text: str, tool: Tool) -> Legacy:
    """Read the options in `text`; raises ValueError for one that is unknown, refused or malformed.

    The last of several equal options counts, as it does for the tool itself.
    """
    wanted: dict[str, object] = {}
    spelled: dict[str, str] = {}
    notes: list[str] = []
    for spelling, option, value in _options(text, tool):
        if option.refusal:
            message = f"{spelling} of {tool.name} is not possible here: {option.refusal}"
            raise ValueError(message)
        meaning = option.means(value) if option.means else None
        if meaning is not None:
            _want(wanted, *meaning)
            spelled[meaning[0]] = spelling
        elif option.note:
            notes.append(f"option {spelling} of {tool.name} has no effect: {option.note}")
    return Legacy(wanted, spelled, tuple(notes))


def _want(wanted: dict[str, object], name: str, value: object) -> None:
    before = wanted.get(name)
    if isinstance(before, frozenset) and isinstance(value, frozenset):
        wanted[name] = before | value
    else:
        wanted[name] = value


def _options(text: str, tool: Tool) -> Iterator[tuple[str, Option, str]]:
    """Yield each option as it is spelled, and its value ('' for one that takes none)."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        message = f"the quotes do not fit together ({error}); close each of them"
        raise ValueError(message) from None
    rest = iter(words)
    for word in rest:
        if word.startswith("--") and len(word) > 2:
            yield _long(word, rest, tool)
        elif word.startswith("-") and len(word) > 1 and word != "--":
            yield from _short(word, rest, tool)
        else:
            message = f"{_shown(word)} is no option; give paths by the parameters of their own"
            raise ValueError(message)


def _long(word: str, rest: Iterator[str], tool: Tool) -> tuple[str, Option, str]:
    spelling, equals, value = word.partition("=")
    option = _known(spelling, tool)
    if equals and not option.takes_value:
        message = f"{spelling} of {tool.name} takes no value"
        raise ValueError(message)
    return spelling, option, value if equals or not option.takes_value else _next(spelling, rest)


def _short(word: str, rest: Iterator[str], tool: Tool) -> Iterator[tuple[str, Option, str]]:
    """Yield the options of a word such as -cD or -b100."""
    if option := tool.find(word):  # -np of the MPI launchers
        yield word, option, _next(word, rest) if option.takes_value else ""
        return
    for index, letter in enumerate(word[1:], start=2):
        spelling = f"-{letter}"
        option = _known(spelling, tool)
        if option.takes_value:
            yield spelling, option, word[index:] or _next(spelling, rest)
            return
        yield spelling, option, ""


def _known(spelling: str, tool: Tool) -> Option:
    option = tool.find(spelling)
    if option is None:
        known = ", ".join(each.spellings[-1] for each in tool.options if not each.refusal)
        message = f"{_shown(spelling)} is no option of {tool.name} that is known here: {known}"
        raise ValueError(message)
    return option


def _next(spelling: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        message = f"{spelling} needs a value behind it"
        raise ValueError(message)
    return value


def _shown(word: str) -> str:
    return readable(word)[:64]


def _sets(name: str, value: object) -> Meaning:
    return lambda _: (name, value)


def _transfers(value: str) -> tuple[str, object]:
    """Take the number of processes or nodes as that of files at a time, as far as it goes."""
    if not value.isascii() or not value.isdigit() or not int(value):
        message = f"{_shown(value)} is no number of processes; give 1 or more"
        raise ValueError(message)
    return "transfers", min(int(value), _MOST_TRANSFERS)


def _xattrs(value: str) -> tuple[str, object] | None:
    if value in {"all", "non-lustre"}:
        return "preserve", frozenset({Preserve.XATTRS})
    if value == "none":
        return None
    message = f"--xattrs {_shown(value)} is not possible here: give all or none"
    raise ValueError(message)


def _number(value: str) -> None:
    if not value.isascii() or not value.isdigit():
        message = f"{_shown(value)} is no whole number"
        raise ValueError(message)


def _size(value: str) -> None:
    if not _SIZE.fullmatch(value):
        message = f"{_shown(value)} is no size such as 64MB"
        raise ValueError(message)


_OUTPUT = "the task's report names every file"
_NO_DAOS = "DAOS cannot be reached; give a path or a remote"
_ENGINE = "the engine chooses it"
_COMMON = (
    Option(("--bufsize",), takes_value=True, means=_size, note=_ENGINE),
    Option(("--chunksize",), takes_value=True, means=_size, note=_ENGINE),
    Option(("--daos-prefix",), takes_value=True, refusal=_NO_DAOS),
    Option(("--daos-api",), takes_value=True, refusal=_NO_DAOS),
    Option(("-s", "--direct"), note="reading and writing go through the cache"),
    Option(("--progress",), takes_value=True, means=_number, note="progress comes by itself"),
    Option(("-v", "--verbose"), note="the result has all counts"),
    Option(("-q", "--quiet"), note="nothing is printed"),
    Option(("-h", "--help"), refusal="read the documentation of the service"),
    Option(("-np", "-N", "--np"), takes_value=True, means=_transfers),
    Option(("-n",), refusal="give transfers=N for a number of processes, dry_run=true for a trial"),
)

DSYNC = Tool(
    "dsync",
    (
        Option(("--dryrun",), means=_sets("dry_run", value=True)),
        Option(("-b", "--batch-files"), takes_value=True, means=_number, note=_ENGINE),
        Option(("-X", "--xattrs"), takes_value=True, means=_xattrs, note="none are copied anyway"),
        Option(("-c", "--contents"), means=_sets("compare", Compare.CHECKSUM)),
        Option(("-D", "--delete"), means=_sets("delete", value=True)),
        Option(("-L", "--dereference"), refusal="symbolic links are never followed"),
        Option(("-P", "--no-dereference"), means=_sets("symlinks", Symlinks.KEEP)),
        Option(("--link-dest",), takes_value=True, refusal="copies share no files with others"),
        Option(("-o", "--output"), takes_value=True, refusal=_OUTPUT),
        Option(("--debug",), note="it is for the developers of dsync"),
        Option(("--open-noatime",), note="times of access are left to the file system"),
        Option(("-S", "--sparse"), means=_sets("preserve", frozenset({Preserve.SPARSE}))),
        *_COMMON,
    ),
)
DCMP = Tool(
    "dcmp",
    (
        Option(("-o", "--output"), takes_value=True, refusal=_OUTPUT),
        Option(("-t", "--text"), note=_OUTPUT),
        Option(("-b", "--base"), note="the result has all counts"),
        Option(("-l", "--lite"), means=_sets("compare", Compare.SIZE_MTIME)),
        *_COMMON,
    ),
)
_REGEX = "its regular expressions are no patterns; give the parameters include and exclude"
DRM = Tool(
    "drm",
    (
        Option(("-i", "--input"), takes_value=True, refusal="give one path a task"),
        Option(("-l", "--lite"), note=_ENGINE),
        Option(("--stat",), note=_ENGINE),
        Option(("--aggressive",), note=_ENGINE),
        Option(("--exclude",), takes_value=True, refusal=_REGEX),
        Option(("--match",), takes_value=True, refusal=_REGEX),
        Option(("--name",), refusal=_REGEX),
        Option(("-T", "--traceless"), refusal="the time of the folder above changes"),
        Option(("-d", "--dryrun"), means=_sets("dry_run", value=True)),
        *(each for each in _COMMON if "--np" not in each.spellings),
    ),
)
