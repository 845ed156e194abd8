"""The operator's files of named tables, in TOML: read whole, every fault told with its place."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final, cast

from app.core.errors import ConfigurationError

MAX_FILE_BYTES: Final = 1024 * 1024


def read_tables(path: Path, *, variable: str, kind: str, document: str) -> dict[str, Any]:
    """The tables `[kind.<name>]` of the file by name, not checked any further.

    `variable` names the setting that the path is from, `document` the page with examples. Raises
    ConfigurationError, which shows nothing of what stands in the file: it may be secret.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{variable}: {path} cannot be read ({error.strerror}): correct the path, or let this "
            "process's user read it"
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{variable}: {path} is larger than 1 MiB: is it the file?")
    tables = _parse(content, f"{variable}: {path}", document)
    named = tables.pop(kind, {})
    if tables or not isinstance(named, dict):
        odd = ", ".join(map(repr, tables)) or repr(kind)
        raise ConfigurationError(
            f"{variable}: {path}: {odd}: only tables [{kind}.<name>] may stand there"
        )
    return cast("dict[str, Any]", named)


def check_json(value: object) -> None:
    """Raises ConfigurationError for what TOML can say and JSON cannot."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError("not JSON: write dates as texts, and no nan or inf") from error


def _parse(content: bytes, where: str, document: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # Of the parser's message only the place: the line that it shows may be a secret.
        found = re.search(r"line \d+, column \d+|end of document", str(error))
        at = f" at {found[0]}" if found else ""
        raise ConfigurationError(
            f"{where} is not TOML in UTF-8{at}: {document} has examples"
        ) from None
