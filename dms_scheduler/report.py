"""One attempt's report on the handler's side: lines are collected, and compressed by a thread.

Not `movers.native.meter`, whose reporter tells the progress.
"""

import json
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from app.tasks import TasksError
from dms_scheduler.plain import plain

MAX_LINE_BYTES: Final = 65_536
_BLOCK_BYTES = 512 * 1024  # of lines: about 64 KiB compressed
_BLOCK_SECONDS = 1.0
_MOST_WAITING_BYTES = 4 * 1024 * 1024
_LEVEL = 3  # twice as quick as the default, for a tenth more bytes
_GZIP = 31


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines as one gzip member; members behind one another are gzip again. `failed` ones go
    into the report's reserve. Without data it tells of `lines` that were left out already."""

    data: bytes
    lines: int
    failed: bool = False


class Reporter:
    """Takes lines from any thread and hands blocks of them to `send`, from a thread of its own,
    about once a second. `send` may wait, and then `add` waits too, once 4 MiB of lines do.

    Where `may_wait` says no (an event loop must not be stopped) lines beyond that are left out.
    """

    def __init__(
        self,
        send: Callable[[Block], None],
        *,
        attempt: int,
        epoch: int,
        may_wait: Callable[[], bool] = lambda: True,
    ) -> None:
        self._send = send
        self._end = f',"attempt":{attempt},"epoch":{epoch}}}\n'.encode()
        self._may_wait = may_wait
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._lines: list[bytes] = []
        self._failed: list[bytes] = []
        self._omitted = 0
        self._size = 0
        self._closed = False

    def forked(self) -> None:
        """In a fork: what waits is its parent's to send, and so is all else. Frames as large as
        ours, of two processes in one channel, would run into each other."""
        self._begin_anew()
        self._closed = True

    def add(self, line: Mapping[str, Any]) -> None:
        """Add one line; raises TasksError for what is no JSON object of at most 64 KiB."""
        data = self._encode(line)
        with self._changed:
            if not self._room() or self._closed:
                return
            kept = self._failed if line.get("action") == "failed" else self._lines
            kept.append(data)
            first = self._size == 0
            self._size += len(data)
            if self._thread is None:
                self._start()
            elif first or self._size >= _BLOCK_BYTES:
                self._changed.notify_all()

    def close(self) -> None:
        """Return when `send` has taken everything; lines that come later are nobody's."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _room(self) -> bool:
        while self._size >= _MOST_WAITING_BYTES and not self._closed:
            if not self._may_wait():
                self._omitted += 1
                return False
            self._changed.wait()
        return True

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="dms-report", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while self._send_next():
                pass
        except OSError:  # nobody listens any more: whoever tells the attempt's end will see why
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def _send_next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._size > 0)
            self._changed.wait_for(
                lambda: self._closed or self._size >= _BLOCK_BYTES, timeout=_BLOCK_SECONDS
            )
            lines, failed, omitted = self._lines, self._failed, self._omitted
            self._lines, self._failed, self._omitted, self._size = [], [], 0, 0
            more = not self._closed
            self._changed.notify_all()
        if lines:
            self._send(Block(_compress(lines), len(lines)))
        if failed:
            self._send(Block(_compress(failed), len(failed), failed=True))
        if omitted:
            self._send(Block(b"", omitted))
        return more

    def _encode(self, line: Mapping[str, Any]) -> bytes:
        body = _object(line)
        if len(body) > MAX_LINE_BYTES:
            raise TasksError(
                f"a line of the report has {len(body)} bytes of JSON, more than {MAX_LINE_BYTES}: "
                "report one thing a line"
            )
        return body[:-1] + (self._end if len(body) > 2 else self._end[1:])


def _object(line: object) -> bytes:
    """The line as a JSON object. Raises TasksError, in the handler, for what is none."""
    if not isinstance(line, Mapping):
        raise TasksError(
            "report() takes a JSON object such as {'action': 'copy', 'path': 'a.txt'}, "
            f"not {line!r:.100}"
        )
    if "attempt" in line or "epoch" in line:  # these two are not the handler's to say
        known = cast("Mapping[Any, Any]", line)
        line = {name: known[name] for name in known if name not in {"attempt", "epoch"}}
    try:
        return orjson.dumps(line)
    except TypeError:  # bytes of a name that is no UTF-8, keys that are no texts, great numbers
        return _slowly(cast("Mapping[Any, Any]", line))


def _slowly(line: object) -> bytes:
    try:
        return json.dumps(plain(line), allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise TasksError(
            f"a line of the report cannot be written as JSON: {error}; report plain values"
        ) from error


def _compress(lines: list[bytes]) -> bytes:
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    return packer.compress(b"".join(lines)) + packer.flush()
