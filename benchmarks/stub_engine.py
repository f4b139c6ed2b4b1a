"""An engine that costs nothing and knows one answer: ``python -m benchmarks.stub_engine --port N``.

It speaks as much of the inference wire as a gateway asks for: ``/health`` and ``/v1/completions``, whole or as
server-sent events, one every ``--pause`` seconds. ``/last`` is what it was last asked.
"""

import argparse
import asyncio
import json
import re
from typing import Any

TOKENS = 16
last = b""
PIECE = " word"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n\r\n"
USAGE = {"prompt_tokens": 32, "completion_tokens": TOKENS, "total_tokens": 32 + TOKENS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stub_engine", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _talk(reader, writer, options.pause)

    async def serve() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", options.port)
        await server.serve_forever()

    asyncio.run(serve())


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float) -> None:
    global last
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            last = body or last
            if head.startswith(b"GET /last"):
                writer.write(_whole(b"application/json", last))
            elif body and json.loads(body).get("stream"):
                await _stream(writer, pause)
            else:
                writer.write(_whole(b"application/json", _bytes(_choice(PIECE * TOKENS, "length"), USAGE)))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _stream(writer: asyncio.StreamWriter, pause: float) -> None:
    writer.write(HEAD % (b"text/event-stream", b"Transfer-Encoding: chunked"))
    for number in range(TOKENS):
        if pause:
            await asyncio.sleep(pause)
        last = number == TOKENS - 1
        _event(writer, _bytes(_choice(PIECE, "length" if last else None)))
        await writer.drain()
    _event(writer, _bytes([], USAGE))
    _event(writer, b"[DONE]")
    writer.write(b"0\r\n\r\n")


def _whole(kind: bytes, body: bytes) -> bytes:
    return HEAD % (kind, b"Content-Length: %d" % len(body)) + body


def _event(writer: asyncio.StreamWriter, data: bytes) -> None:
    frame = b"data: " + data + b"\n\n"
    writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))


def _choice(text: str, reason: str | None) -> list[dict[str, Any]]:
    return [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]


def _bytes(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    answer = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": choices}
    return json.dumps(answer | ({"usage": usage} if usage else {})).encode()


if __name__ == "__main__":
    main()
