"""The front's end of the socket to the core, on asyncio."""

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.implementations.serving.messages import (
    LARGEST_LINE,
    Answer,
    Attach,
    Cancel,
    Classified,
    Classify,
    Detach,
    Evicted,
    Failed,
    Message,
    Ready,
    Sampling,
    Submit,
    Token,
    Turn,
    decode,
    encode,
)
from app.implementations.serving.ticket import CoreFailure, Ticket


@dataclass(frozen=True, slots=True)
class Resident:
    """An adapter in memory. ``since``: seconds since the epoch."""

    since: float
    bytes: int
    pinned: bool


class CoreLink:
    """Sends requests and hands out what comes back. ``lost`` is set when the core has gone."""

    def __init__(self) -> None:
        self.ready: Ready | None = None
        self.lost = asyncio.Event()
        self.idle = asyncio.Event()
        self.last_turn = Turn([], 0, 0)
        self.on_turn: Callable[[Turn], None] = lambda turn: None
        self.adapters: dict[str, Resident] = {}  # by name
        self._ids = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}  # by the ids of their sequences
        self._unfinished: set[int] = set()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._classifying: set[int] = set()  # ids of texts
        self._quiet_since = time.monotonic()
        self._writer: asyncio.StreamWriter | None = None
        self.idle.set()

    @property
    def active(self) -> int:
        """Sequences whose ticket is not closed, and texts to be classified."""
        return len(self._tickets) + len(self._classifying)

    @property
    def idle_seconds(self) -> float:
        """Since the last of them has ended, or the core is ready."""
        return 0.0 if self.active else time.monotonic() - self._quiet_since

    async def listen(self, connection: socket.socket) -> None:
        """Until the core has gone; then everybody who waits for it hears of that."""
        reader, self._writer = await asyncio.open_connection(sock=connection, limit=LARGEST_LINE)
        try:
            while line := await reader.readline():
                self._dispatch(decode(line))
        except OSError:
            pass  # reset, which is as good as closed
        finally:
            self._lose()

    def close(self) -> None:
        """The core ends when it reads the end of the stream."""
        if self._writer is not None:
            self._writer.close()

    def submit(
        self,
        prompt_ids: Sequence[int],
        samplings: Sequence[Sampling],
        adapter: str | None,
        sharing: str,
        seconds: float | None,
    ) -> Ticket:
        """A sequence for each of ``samplings``; all but the first are started by the ticket."""
        sequences = [Submit(next(self._ids), prompt_ids, one, adapter, sharing) for one in samplings]
        ticket = Ticket(self, sequences, seconds)
        self._tickets.update(dict.fromkeys(ticket.ids, ticket))
        self.idle.clear()
        self.start(sequences[0])
        return ticket

    def start(self, sequence: Submit) -> None:
        self._unfinished.add(sequence.id)
        self._send(sequence)

    def cancel(self, sequence_id: int) -> None:
        if sequence_id in self._unfinished:
            self._unfinished.discard(sequence_id)
            self._send(Cancel(sequence_id))

    def forget(self, ticket: Ticket) -> None:
        for sequence_id in ticket.ids:
            self._tickets.pop(sequence_id, None)
            self.cancel(sequence_id)
        self._rest()

    async def classify(self, ids: Sequence[int]) -> Sequence[float]:
        """Each label's share. Raises ``CoreFailure``; when it is cancelled, the core reads the text no more."""
        message = Classify(next(self._ids), ids)
        self._classifying.add(message.id)
        self.idle.clear()
        try:
            answer: Classified = await self._ask(message)
            return answer.shares
        except asyncio.CancelledError:
            self._send(Cancel(message.id))
            raise
        finally:
            self._classifying.discard(message.id)
            self._rest()

    def _rest(self) -> None:
        if not self.active:
            self._quiet_since = time.monotonic()
            self.idle.set()

    async def attach(self, name: str, folder: str, pinned: bool = False) -> str | None:
        """The fault, None when it is loaded. Raises ``CoreFailure``, as ``detach``."""
        answer: Answer = await self._ask(Attach(next(self._ids), name, folder, pinned))
        if answer.fault is None:
            known = self.adapters.get(name)
            self.adapters[name] = Resident(known.since if known else time.time(), answer.bytes, pinned)
        return answer.fault

    async def detach(self, name: str) -> str | None:
        # First here, so that no request for it is on its way behind this one.
        self.adapters.pop(name, None)
        answer: Answer = await self._ask(Detach(next(self._ids), name))
        return answer.fault

    async def _ask(self, message: Attach | Detach | Classify) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[message.id] = answer
        try:
            self._send(message)
            return await answer
        finally:
            del self._answers[message.id]

    def _send(self, message: Message) -> None:
        if self.lost.is_set() or self._writer is None:
            self._fail_all()
        else:
            self._writer.write(encode(message))

    def _dispatch(self, message: Message) -> None:
        match message:
            case Turn():
                self.last_turn = message
                self.on_turn(message)
                for sequence_id, waited, reused in message.started:
                    if (ticket := self._tickets.get(sequence_id)) is not None:
                        ticket.start(waited, reused)
                for token in message.tokens:
                    self._hand_out(token, final=token.finish is not None)
            case Failed(id=classify_id) if classify_id in self._classifying:
                if not self._answers[classify_id].done():
                    self._answers[classify_id].set_exception(
                        CoreFailure(message.status, message.message, message.code)
                    )
            case Failed():
                self._hand_out(message, final=True)
            case Answer() | Classified():
                if (answer := self._answers.get(message.id)) is not None and not answer.done():
                    answer.set_result(message)
            case Evicted(name=name):
                self.adapters.pop(name, None)
            case Ready():
                self.ready = message
                self._quiet_since = time.monotonic()
            case _:
                raise AssertionError(f"the core sent a {type(message).__name__}")

    def _hand_out(self, item: Token | Failed, *, final: bool) -> None:
        if final:
            self._unfinished.discard(item.id)
        if (ticket := self._tickets.get(item.id)) is not None:
            ticket.queue.put_nowait(item)

    def _lose(self) -> None:
        self.lost.set()
        self.ready = None
        self._fail_all()

    def _fail_all(self) -> None:
        reason = "the engine is restarting"
        for request_id in list(self._unfinished):
            self._hand_out(Failed(request_id, 503, reason), final=True)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(CoreFailure(503, reason, "engine_failed"))
