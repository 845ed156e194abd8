"""What a request says in its query and in its JSON body: mostly a task's parameters."""

import asyncio
import json
import math
from collections.abc import Iterable
from typing import Any, Final, cast
from urllib.parse import parse_qsl

from fastapi import Request

from app.core.errors import BadInputError, MalformedRequestError, UnsupportedBodyError
from app.core.findings import shown

MAX_PARAMETERS: Final = 100
MAX_DEPTH: Final = 32
MAX_KEY_CHARACTERS: Final = 255
MAX_REASON_CHARACTERS: Final = 500
_BODY_SECONDS: Final = 10.0


async def read_parameters(request: Request) -> dict[str, Any]:
    """The parameters; raises a DmsError that says what is wrong with them."""
    parameters = parse_query(request.scope["query_string"])
    body = await _read_json(request)
    if body:
        named = parse_body(body)
        twice = sorted(parameters.keys() & named.keys())
        if twice:
            raise BadInputError(
                f"{', '.join(twice)}: given in the query and in the body: give each parameter once"
            )
        parameters |= named
    if len(parameters) > MAX_PARAMETERS:
        raise BadInputError(
            f"{len(parameters)} parameters: a task takes at most {MAX_PARAMETERS}; put the rest "
            "into a file or a list"
        )
    if "" in parameters:
        raise BadInputError("a parameter has an empty name: write name=value")
    return parameters


def parse_query(query: bytes) -> dict[str, Any]:
    """Texts by name; a name that stands there more than once has the list of its values."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise BadInputError(
            "the query is not UTF-8: percent-encode texts in UTF-8, JSON cannot carry other bytes"
        ) from error
    parameters: dict[str, Any] = {}
    for name, value in pairs:
        if name not in parameters:
            parameters[name] = value
        elif isinstance(parameters[name], list):
            parameters[name].append(value)
        else:
            parameters[name] = [parameters[name], value]
    return parameters


def parse_body(body: bytes) -> dict[str, Any]:
    """The parameters of `{"parameters": {...}}`, and nothing else may stand there."""
    parameters = _only(body, "parameters", "{...}", {})
    if not isinstance(parameters, dict):
        raise BadInputError('"parameters" is not an object: send {"parameters": {"name": value}}')
    return cast("dict[str, Any]", parameters)


async def read_reason(request: Request) -> str | None:
    """Why a service is paused: the text of `{"reason": "..."}`; None without one."""
    body = await _read_json(request)
    reason = _only(body, "reason", '"..."', None) if body else None
    if not isinstance(reason, str | None):
        raise BadInputError('"reason" is not a text: send {"reason": "..."}')
    if reason is not None and len(reason) > MAX_REASON_CHARACTERS:
        raise BadInputError(
            f"the reason has {len(reason)} characters, {MAX_REASON_CHARACTERS} are allowed: "
            "shorten it"
        )
    return reason


async def read_object(request: Request, form: str) -> dict[str, object]:
    """The object that a request's body is; `form` tells whoever sent another one what to send."""
    return _object(await _read_json(request) or b"null", form)


def parse_object(body: bytes, content_type: str, form: str) -> dict[str, Any]:
    """The same, of a body that was read before."""
    _check_type(content_type)
    return _object(body, form)


def parse_form_field(body: bytes, name: str) -> bytes:
    """The one field of a form in a body."""
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise BadInputError("the form in the body is not UTF-8: send it in UTF-8") from error
    if [field for field, _ in fields] != [name]:
        raise BadInputError(f"the form in the body has other fields than {name!r}: send that alone")
    return fields[0][1].encode()


def _object(body: bytes, form: str) -> dict[str, Any]:
    value = _load(body)
    if not isinstance(value, dict):
        raise BadInputError(f"the body is not an object: send {form}")
    return cast("dict[str, Any]", value)


def _only(body: bytes, name: str, form: str, default: object) -> object:
    """The value of the one name that an object in a body may have."""
    value = _load(body)
    if not isinstance(value, dict):
        raise BadInputError(f'the body is not an object: send {{"{name}": {form}}}')
    named = cast("dict[str, object]", value)
    unknown = sorted(named.keys() - {name})
    if unknown:
        raise BadInputError(
            f'the body has {shown(", ".join(unknown))}: only "{name}" may stand there'
        )
    return named.get(name, default)


def wants_strict(prefer: Iterable[str]) -> bool:
    """Whether a Prefer header (RFC 7240) asks for `handling=strict`."""
    wishes = (wish.strip() for header in prefer for wish in header.split(","))
    names = ("".join(wish.partition(";")[0].split()).lower() for wish in wishes)
    return any(name in {"handling=strict", 'handling="strict"'} for name in names)


def read_idempotency_key(keys: list[str]) -> str | None:
    """The Idempotency-Key header, if there is one; BadInputError for one that cannot be kept."""
    if not keys:
        return None
    key = keys[0]
    if len(keys) > 1 or not 1 <= len(key) <= MAX_KEY_CHARACTERS or not key.isascii():
        raise BadInputError(
            f"Idempotency-Key: send one, of 1 to {MAX_KEY_CHARACTERS} ASCII characters, such as a "
            "random UUID"
        )
    return key


async def _read_json(request: Request) -> bytes:
    """The body, which is JSON by its own word; empty where there is none."""
    body = await read_body(request)
    if body:
        _check_type(request.headers.get("content-type", ""))
    return body


async def read_body(request: Request) -> bytes:
    """The body as it was sent; MalformedRequestError when it stops coming."""
    if not _may_have_body(request):
        return b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.body()
    except TimeoutError as error:
        raise MalformedRequestError(
            f"the body did not arrive within {_BODY_SECONDS:g} s: send it without pauses"
        ) from error


def _may_have_body(request: Request) -> bool:
    """False where HTTP/1 says that nothing follows the head: the usual submission has no body."""
    headers = request.headers
    if "transfer-encoding" in headers or not request.scope["http_version"].startswith("1"):
        return True
    return headers.get("content-length", "0") != "0"


def _check_type(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedBodyError(
            f"a body of type {kind or '(none)'} is not read: send JSON as application/json "
            '(a task: {"parameters": {...}}, or put the parameters into the query)'
        )


def _load(body: bytes) -> object:
    try:
        value: object = json.loads(
            body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        raise BadInputError("the body is not UTF-8: JSON is sent in UTF-8") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise BadInputError(f"the body is not JSON: {error}") from error
    _check_values(value)
    return value


def _refuse_constant(name: str) -> object:
    raise BadInputError(f"{name} is not JSON: send a number, null or a text")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadInputError("an object in the body has a name twice: give each name once")
    return found


def _check_values(value: object) -> None:
    """Refuse what could not be stored and read back as it is; level by level, not by recursion."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [item for node in level for item in _children(node)]
    if level:
        raise _too_deep()


def _children(node: object) -> Iterable[object]:
    if isinstance(node, str):
        _check_text(node)
    elif isinstance(node, float):
        if not math.isfinite(node):
            raise BadInputError("a number in the body is too large: send it as a text")
    elif isinstance(node, dict):
        items = cast("dict[str, object]", node)
        for name in items:
            _check_text(name)
        return items.values()
    elif isinstance(node, list):
        return cast("list[object]", node)
    return ()


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInputError(
            "a text in the body has half of a surrogate pair: send both halves, or UTF-8 itself"
        ) from error


def _too_deep() -> BadInputError:
    return BadInputError(f"the body is nested deeper than {MAX_DEPTH} levels: flatten it")
