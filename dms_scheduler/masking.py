"""Keeping secrets out of what a failed task shows: its error, its traceback."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

MASK = "***"
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|auth",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:]*:)[^\s/@]+@")


def mask(text: str, parameters: Mapping[str, Any]) -> str:
    """`text` without the values of parameters whose name sounds secret, and without passwords in
    URLs. Longer secrets first, so that none is left as the tail of a shorter one."""
    for secret in sorted(set(_secrets(parameters, named=False)), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _URL_PASSWORD.sub(rf"\g<head>{MASK}@", text)


def _secrets(value: Any, *, named: bool) -> Iterator[str]:
    """Every text below a secret name; `named` says that `value` itself has one."""
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[Any, Any]", value).items():
            yield from _secrets(inner, named=named or bool(_SECRET_NAME.search(str(name))))
    elif isinstance(value, str):
        if named and value.strip():
            yield value
    elif isinstance(value, Sequence):
        for inner in cast("Sequence[Any]", value):
            yield from _secrets(inner, named=named)
