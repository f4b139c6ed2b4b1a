"""The front's end of the socket to the core, on asyncio."""

import asyncio
import itertools
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.implementations.serving.messages import (
    LARGEST_LINE,
    Answer,
    Attach,
    Cancel,
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


class CoreFailure(Exception):
    """A request that the core could not answer. ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Ticket:
    """One request under way in the core. ``close`` it in the end, whatever happens: that frees its place."""

    def __init__(self, link: "CoreLink", request_id: int) -> None:
        self._link = link
        self.id = request_id
        self.queue: asyncio.Queue[Token | Failed] = asyncio.Queue()

    async def tokens(self) -> Sequence[Token]:
        """The next tokens, at least one. Raises ``CoreFailure``."""
        items = [await self.queue.get()]
        while not self.queue.empty():
            items.append(self.queue.get_nowait())
        for item in items:
            if isinstance(item, Failed):
                raise CoreFailure(item.status, item.message)
        return [item for item in items if isinstance(item, Token)]

    def close(self) -> None:
        self._link.forget(self)


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
        self.adapters: dict[str, Resident] = {}  # by name
        self._ids = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._unfinished: set[int] = set()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self.idle.set()

    @property
    def active(self) -> int:
        """Requests whose ticket is not closed."""
        return len(self._tickets)

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

    def submit(self, prompt_ids: Sequence[int], sampling: Sampling, adapter: str | None, sharing: str) -> Ticket:
        ticket = Ticket(self, next(self._ids))
        self._tickets[ticket.id] = ticket
        self._unfinished.add(ticket.id)
        self.idle.clear()
        self._send(Submit(ticket.id, prompt_ids, sampling, adapter, sharing))
        return ticket

    def forget(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.id, None)
        if ticket.id in self._unfinished:
            self._unfinished.discard(ticket.id)
            self._send(Cancel(ticket.id))
        if not self._tickets:
            self.idle.set()

    async def attach(self, name: str, folder: str, pinned: bool = False) -> str | None:
        """The fault, None when it is loaded. Raises ``CoreFailure``, as ``detach``."""
        answer = await self._ask(Attach(next(self._ids), name, folder, pinned))
        if answer.fault is None:
            known = self.adapters.get(name)
            self.adapters[name] = Resident(known.since if known else time.time(), answer.bytes, pinned)
        return answer.fault

    async def detach(self, name: str) -> str | None:
        # First here, so that no request for it is on its way behind this one.
        self.adapters.pop(name, None)
        return (await self._ask(Detach(next(self._ids), name))).fault

    async def _ask(self, message: Attach | Detach) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
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
                for token in message.tokens:
                    self._hand_out(token, final=token.finish is not None)
            case Failed():
                self._hand_out(message, final=True)
            case Answer():
                if (answer := self._answers.get(message.id)) is not None and not answer.done():
                    answer.set_result(message)
            case Evicted(name=name):
                self.adapters.pop(name, None)
            case Ready():
                self.ready = message
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
                answer.set_exception(CoreFailure(503, reason))
