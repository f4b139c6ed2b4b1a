"""The server over real sockets, with handlers of a few lines."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import h11
import pytest

from app.implementations.serving import http_server
from app.implementations.serving.http_server import Handler, HttpServer, Request, Response

HELLO = b"GET /hello?a=b HTTP/1.1\r\nHost: x\r\nX-Colour: red\r\n\r\n"


def run(handler: Handler, talk: Callable[[int], Awaitable[None]], max_connections: int = 8) -> None:
    async def main() -> None:
        server = HttpServer(handler, max_body_bytes=1000, max_connections=max_connections)
        port = await server.start("127.0.0.1", 0)
        try:
            async with asyncio.timeout(10):
                await talk(port)
        finally:
            await server.close()

    asyncio.run(main())


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader, client: h11.Connection | None = None) -> tuple[int, bytes]:
    """One whole response, read as a client reads it."""
    client = client or h11.Connection(h11.CLIENT)
    if client.our_state is h11.IDLE:
        client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
    status, body = 0, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            return status, body


async def echo(request: Request) -> Response:
    length = "none" if request.body is None else str(len(request.body))
    return Response(200, f"{request.method} {request.path} {request.headers.get('x-colour')} {length}".encode())


def test_a_connection_serves_one_request_after_another() -> None:
    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            for _ in range(3):
                writer.write(HELLO)
                assert await answer(reader) == (200, b"GET /hello red 0")

    run(echo, talk)


def test_requests_sent_ahead_are_answered_in_order() -> None:
    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(HELLO + HELLO.replace(b"hello", b"again"))
            received = b""
            while received.count(b"/hello red") < 1 or received.count(b"/again red") < 1:
                received += await reader.read(65536)
            assert received.index(b"/hello red") < received.index(b"/again red")

    run(echo, talk)


def test_a_body_beyond_the_limit_is_read_and_dropped() -> None:
    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            for length, seen in ((1000, "1000"), (1001, "none"), (300_000, "none")):
                writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length)
                assert await answer(reader) == (200, f"POST / None {seen}".encode())

    run(echo, talk)


def test_an_expectation_is_met_before_the_body_comes() -> None:
    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            writer.write(b"ab")
            assert await answer(reader) == (200, b"POST / None 2")

    run(echo, talk)


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01 what\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100_000])
def test_what_is_not_http_is_refused_and_the_connection_closed(rubbish: bytes) -> None:
    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(rubbish)
            status, _ = await answer(reader)
            assert 400 <= status < 500
            assert await reader.read() == b""

    run(echo, talk)


def test_a_stream_arrives_piece_by_piece() -> None:
    async def talk(port: int) -> None:
        taken = asyncio.Event()

        async def pieces() -> AsyncGenerator[bytes]:
            yield b"one"
            await taken.wait()
            yield b"two"

        async def handler(request: Request) -> Response:
            return Response(200, pieces(), "text/event-stream")

        server = HttpServer(handler, max_body_bytes=0, max_connections=1)
        try:
            async with connected(await server.start("127.0.0.1", 0)) as (reader, writer):
                writer.write(HELLO)
                await reader.readuntil(b"one\r\n")
                taken.set()
                assert b"two" in await reader.readuntil(b"0\r\n\r\n")
        finally:
            await server.close()

    run(echo, talk)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_handler_is_cancelled_when_its_client_goes_away(streaming: bool) -> None:
    cancelled = asyncio.Event()
    closed: list[bool] = []

    async def forever() -> AsyncGenerator[bytes]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def handler(request: Request) -> Response:
        if streaming:
            return Response(200, forever(), close=lambda: closed.append(True))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response(200, b"")

    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(HELLO)
            if streaming:
                await reader.readuntil(b"one\r\n")
        await cancelled.wait()

    run(handler, talk)
    assert closed == [True] * streaming


def test_a_handler_that_raises_is_a_500_and_the_next_one_is_served(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/hello":
            raise RuntimeError("a secret")
        return Response(200, b"fine")

    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(HELLO)
            assert await answer(reader) == (500, b"")
            writer.write(HELLO.replace(b"hello", b"else"))
            assert await answer(reader) == (200, b"fine")

    run(handler, talk)
    assert "a secret" in caplog.text


def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    async def talk(port: int) -> None:
        async with AsyncExitStack() as stack:
            pairs = [await stack.enter_async_context(connected(port)) for _ in range(2)]
            for reader, writer in pairs:
                writer.write(HELLO)
                await answer(reader)
            reader, _ = await stack.enter_async_context(connected(port))
            assert await reader.read() == b""

    run(echo, talk, max_connections=2)


def test_a_client_that_sends_half_a_request_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "READ_SECONDS", 0.05)

    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(HELLO[:20])
            assert await reader.read() == b""

    run(echo, talk)


def test_a_client_that_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "WRITE_SECONDS", 0.05)
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 1_000_000

    async def handler(request: Request) -> Response:
        return Response(200, endless(), close=closed.set)

    async def talk(port: int) -> None:
        async with connected(port) as (_, writer):
            writer.write(HELLO)
            await closed.wait()

    run(handler, talk)


def test_head_has_no_body() -> None:
    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(HELLO.replace(b"GET", b"HEAD"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"content-length: 17" in head
            writer.write(HELLO)
            assert await answer(reader) == (200, b"GET /hello red 0")

    run(echo, talk)
