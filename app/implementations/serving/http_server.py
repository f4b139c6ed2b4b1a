"""A small HTTP/1.1 server on asyncio, its protocol by h11: one thread holds any number of SSE streams.

A thread for each stream would wake for every token of every stream. Here it is also known at once when a client
goes away: its handler is cancelled, whether it streams or waits.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import h11

logger = logging.getLogger(__name__)

IDLE_SECONDS = 75  # between two requests of a connection
READ_SECONDS = 30  # for the whole of one request
WRITE_SECONDS = 30  # for a client to take what was written


@dataclass(frozen=True, slots=True)
class Request:
    """``headers`` by lower-case name. ``path`` is without the query. ``body`` is None if it passed the limit."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Response:
    """``body`` at once, or in pieces as they come. ``close`` is called when it is sent or nobody wants it."""

    status: int
    body: bytes | AsyncGenerator[bytes]
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()
    close: Callable[[], None] = lambda: None


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves ``handler``. Handlers raise nothing: whatever does come out of one is a 500 without a body."""

    def __init__(self, handler: Handler, *, max_body_bytes: int, max_connections: int) -> None:
        self._handler = handler
        self._max_body_bytes = max_body_bytes
        self._max_connections = max_connections
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the answer is the port (for 0, the one that was free)."""
        self._server = await asyncio.start_server(self._accept, host, port, backlog=512)
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """End every connection, whatever it is doing."""
        self.stop_listening()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= self._max_connections:
            writer.close()
            return
        self._connections.add(task)
        try:
            await _Connection(reader, writer, self._handler, self._max_body_bytes).serve()
        except (OSError, TimeoutError, h11.ProtocolError, asyncio.CancelledError):
            # The client went away, is too slow or broke off; or close(), where asyncio.streams would log an error.
            writer.transport.abort()  # a mere close would wait for a client that reads nothing
        finally:
            self._connections.discard(task)
            writer.close()


class _Connection:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler, max_body_bytes: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._max_body_bytes = max_body_bytes
        self._http = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        while True:
            try:
                request = await self._read_request()
            except h11.RemoteProtocolError as error:
                closing = [("connection", "close"), ("content-length", "0")]
                await self._send(h11.Response(status_code=error.error_status_hint, headers=closing))
                await self._send(h11.EndOfMessage())
                return
            if request is None:
                return
            await self._answer_while_there(request)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _read_request(self) -> Request | None:
        """None when the client has closed its end."""
        idle = True
        async with asyncio.timeout(IDLE_SECONDS) as limit:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self._reader.read(65536))
                    if idle:
                        limit.reschedule(asyncio.get_running_loop().time() + READ_SECONDS)
                        idle = False
                    continue
                if not isinstance(event, h11.Request):
                    return None
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                return await self._read_body(event)

    async def _read_body(self, head: h11.Request) -> Request:
        body = bytearray()
        too_long = False
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.Data):
                too_long = too_long or len(body) + len(event.data) > self._max_body_bytes
                if not too_long:  # read on all the same: a client that is still sending would not see the answer
                    body += event.data
            else:
                break
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        path = head.target.decode("latin-1").partition("?")[0]
        return Request(head.method.decode("ascii"), path, headers, None if too_long else bytes(body))

    async def _answer_while_there(self, request: Request) -> None:
        """Answer, and cancel that when the client closes its end."""
        answering = asyncio.ensure_future(self._answer(request))
        watching = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answering, watching):
                task.cancel()
            await asyncio.wait((answering, watching))
        if answering.cancelled():
            raise ConnectionResetError
        answering.result()

    async def _gone(self) -> None:
        """Returns when the client has closed its end. What it sends before that belongs to its next request."""
        data = await self._reader.read(65536)
        if data:
            self._http.receive_data(data)
            await asyncio.Event().wait()  # one read ahead is all that is kept

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._handler(request)
        except Exception:
            logger.exception("%s %s", request.method, request.path)
            response = Response(500, b"")
        try:
            await self._send_response(request, response)
        finally:
            response.close()

    async def _send_response(self, request: Request, response: Response) -> None:
        headers = [("content-type", response.content_type), *response.headers]
        if isinstance(response.body, bytes):
            headers.append(("content-length", str(len(response.body))))
        await self._send(h11.Response(status_code=response.status, headers=headers))
        if request.method != "HEAD":
            await self._send_body(response.body)
        await self._send(h11.EndOfMessage())

    async def _send_body(self, body: bytes | AsyncGenerator[bytes]) -> None:
        if isinstance(body, bytes):
            await self._send(h11.Data(data=body))
            return
        async with aclosing(body):
            async for piece in body:
                await self._send(h11.Data(data=piece))

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            async with asyncio.timeout(WRITE_SECONDS):
                await self._writer.drain()
