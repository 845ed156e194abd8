"""The event broker's queues and dead letters, for an operator; neither publishes nor consumes."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.core.errors import BadInputError, UnknownGroupError
from app.event_system import (
    BrokerPort,
    BrokerUnavailableError,
    DeadLetter,
    QueueInfo,
    SubscribeOptions,
)

log = logging.getLogger(__name__)

Settling = Literal["replay", "discard"]

MAX_LETTERS: Final = 200
_STEP: Final = 20  # each letter may have a MiB
_PAGE_BYTES: Final = 2**20
_SWEEP_SECONDS: Final = 1.0
_LETTER_ID: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Dead letters, oldest first, and the id behind which there are more (None: no more)."""

    letters: Sequence[DeadLetter]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class Part:
    """Which of all letters are meant: those behind `after`, `remaining` of them (None: as many as
    there are now, so that letters that die anew meanwhile are not among them)."""

    after: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """How many letters were settled in one part of them, and which part is left (None: none)."""

    count: int
    left: Part | None


class EventQueues:
    """Raises BadInputError, UnknownGroupError, BrokerUnavailableError."""

    def __init__(self, broker: BrokerPort, *, timeout_seconds: float) -> None:
        self._broker = broker
        self._timeout = timeout_seconds

    async def queues(self) -> list[QueueInfo]:
        """Every group and subscription, by pattern and group."""
        async with _deadline(self._timeout):
            found = await self._broker.queues()
        return sorted(found, key=lambda queue: (queue.pattern, queue.group or ""))

    async def drop_group(self, pattern: str, group: str) -> None:
        """End a group and all that waits in it; its dead letters stay. Raises TopicError or
        SubscribeError where it can be none."""
        SubscribeOptions(pattern=pattern, group=group)
        async with _deadline(self._timeout):
            if not await self._broker.drop_group(pattern, group):
                raise UnknownGroupError(
                    f"there is no group {group!r} of the pattern {pattern!r}: list the queues"
                )
        log.warning(
            "A group of events was dropped by an operator",
            extra={"action": "events.drop_group", "pattern": pattern, "group": group},
        )

    async def page(self, *, limit: int, after: str) -> LetterPage:
        """At most `limit` letters, fewer when they are large."""
        letters: list[DeadLetter] = []
        size = 0
        async with _deadline(self._timeout):
            while len(letters) < limit and size < _PAGE_BYTES:
                step = min(_STEP, limit - len(letters))
                found = await self._letters(step, after)
                letters += found
                size += sum(len(letter.payload) for letter in found)
                if len(found) < step:
                    return LetterPage(letters, None)
                after = found[-1].letter_id
        return LetterPage(letters, after)

    async def settle(self, how: Settling, ids: Sequence[str]) -> int:
        """Replay or discard these letters; how many were there, and could be."""
        for letter_id in ids:
            _check_id(letter_id)
        async with _deadline(self._timeout):
            count = await self._settled(how, ids)
        _log(how, count)
        return count

    async def settle_all(
        self, how: Settling, *, pattern: str | None, group: str | None, part: Part
    ) -> Settled:
        """The same for all letters of a pattern and group (None: of any), as many as can be in a
        second."""
        began, count, after = time.monotonic(), 0, part.after
        async with _deadline(self._timeout + _SWEEP_SECONDS):
            remaining = part.remaining
            if remaining is None:
                remaining = await self._broker.dead_count()
            while remaining > 0:  # one step at least, or a caller would ask for ever
                found = await self._letters(min(_STEP, remaining), after)
                if not found:
                    remaining = 0
                    break
                chosen = [
                    letter.letter_id
                    for letter in found
                    if pattern in {None, letter.pattern} and group in {None, letter.group}
                ]
                count += await self._settled(how, chosen)
                remaining -= len(found)
                after = found[-1].letter_id
                if time.monotonic() - began >= _SWEEP_SECONDS:
                    break
        _log(how, count)
        return Settled(count, Part(after, remaining) if remaining else None)

    async def _letters(self, limit: int, after: str) -> list[DeadLetter]:
        if after:
            _check_id(after)
        return await self._broker.dead_letters(limit=limit, after=after)

    async def _settled(self, how: Settling, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        return await (self._broker.replay(ids) if how == "replay" else self._broker.discard(ids))


def _check_id(letter_id: str) -> None:
    if not _LETTER_ID.fullmatch(letter_id):
        raise BadInputError(
            f"{letter_id!r:.60} is no id of a dead letter: the list of them shows their ids"
        )


def _log(how: Settling, count: int) -> None:
    if count:
        log.info(
            "Dead letters were settled by an operator",
            extra={"action": f"events.{how}", "count": count},
        )


@contextlib.asynccontextmanager
async def _deadline(seconds: float) -> AsyncGenerator[None]:
    """Several calls share the time of one."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise BrokerUnavailableError(
            f"the event broker did not answer within {seconds:g} s: is Redis up and reachable? "
            "Then repeat it"
        ) from error
