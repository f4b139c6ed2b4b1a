"""One request under way in the core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from app.implementations.serving.messages import Failed, Submit, Token


class CoreFailure(Exception):
    """A request that the core could not answer. ``status`` is HTTP's."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class Link(Protocol):
    """What a ticket asks of the link to the core."""

    def start(self, sequence: Submit) -> None: ...
    def cancel(self, sequence_id: int) -> None: ...
    def forget(self, ticket: Ticket) -> None: ...


class Ticket:
    """Its sequences, of one prompt. ``close`` it in the end, whatever happens: that frees their places.

    ``seconds``: it fails when it has not ended then.
    """

    def __init__(self, link: Link, sequences: Sequence[Submit], seconds: float | None) -> None:
        self._link = link
        self._seconds = seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.waited: float | None = None  # seconds that the first of them did; None: it still does
        self.reused = 0  # tokens of their prompts that were not read again
        self.ids = [sequence.id for sequence in sequences]
        self.queue: asyncio.Queue[Token | Failed] = asyncio.Queue()
        self._later = sequences[1:]

    async def tokens(self) -> Sequence[Token]:
        """The next tokens of whichever sequences, at least one. Raises ``CoreFailure``."""
        items = [await self._next()]
        while not self.queue.empty():
            items.append(self.queue.get_nowait())
        for item in items:
            if isinstance(item, Failed):
                raise CoreFailure(item.status, item.message, item.code)
        # Not before: the first has read the prompt, and the others find it in the prefix cache.
        for sequence in self._later:
            self._link.start(sequence)
        self._later = []
        return [item for item in items if isinstance(item, Token)]

    async def _next(self) -> Token | Failed:
        # asyncio's clock is the monotonic one.
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self.queue.get()
        except TimeoutError:
            pass
        if self.waited is None:
            message = f"no place came free within the {self._seconds:g} seconds of timeout"
            raise CoreFailure(503, message, "queue_timeout")
        message = f"the answer had not come to its end after the {self._seconds:g} seconds of timeout"
        raise CoreFailure(504, message, "deadline_exceeded")

    def start(self, waited: float, reused: int) -> None:
        """One of them has got a place."""
        self.waited = waited if self.waited is None else self.waited
        self.reused += reused

    def leave(self, sequence_id: int) -> None:
        """Nobody waits for more of this one."""
        self._link.cancel(sequence_id)

    def close(self) -> None:
        self._link.forget(self)
