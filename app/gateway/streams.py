"""Server-sent events: as many as a process may hold open, all ended when it is to stop.

A stream keeps a thread of the web server for as long as it lasts. So there is a limit, and none lasts for ever.
One that is followed ends when it has to: a client that comes back with ``Last-Event-ID`` has missed nothing. One
that is relayed cannot be had again, and is given a moment to come to its end.
"""

import json
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flask import Flask, Response, current_app, request

from app.core.errors import Unavailable

LONGEST_SECONDS = 300.0  # then the client reconnects, and is asked again who it is
HEARTBEAT_SECONDS = 15.0  # of silence, after which a comment shows proxies and us that the other end is there
SEND_SECONDS = 10.0  # for a client to take what was sent; its system's buffers take much more than an event
RETRY_MILLISECONDS = 1000  # before a client reconnects
RETRY_AFTER = 5  # seconds, where no room is left
GRACE_SECONDS = 4.0  # for what is relayed, once the process is to stop: gunicorn kills it after five

Frames = Iterator[bytes | None]


class Streams:
    """Those of one process."""

    def __init__(self, most: int) -> None:
        self._room = threading.BoundedSemaphore(most)
        self.ending = threading.Event()
        self._last_moment = float("inf")

    def end(self) -> None:
        """All of them; from a signal handler too."""
        self._last_moment = time.monotonic() + GRACE_SECONDS
        self.ending.set()

    def is_late(self) -> bool:
        """Whether what is relayed has to end now."""
        return self.ending.is_set() and time.monotonic() > self._last_moment

    def follow(self, frames: Callable[[Callable[[float], bool]], Frames]) -> Response:
        """Stream them. ``Unavailable`` (too_many_streams) where no room is left.

        ``frames`` is given a function that waits for seconds, or less when the stream is to end, and says whether
        it goes on. A None among them says that there is nothing yet.
        """
        return self._respond(lambda: self._body(frames), "ask for events?after=")

    def relay(self, begin: Callable[[], Iterable[bytes]]) -> Response:
        """Stream what ``begin`` starts, once there is room; it may raise, as for any request.

        Its ``close`` is called at the end, or when the client is seen to be gone.
        """
        return self._respond(begin, "ask without stream")

    def _respond(self, begin: Callable[[], Iterable[bytes]], instead: str) -> Response:
        if not self._room.acquire(blocking=False):
            message = f"as many streams are open as may be: try again, or {instead}"
            raise Unavailable(message, code="too_many_streams", retry_after=RETRY_AFTER)
        try:
            _limit_sending()
            response = Response(begin(), content_type="text/event-stream; charset=utf-8")
        except BaseException:
            self._room.release()
            raise
        response.call_on_close(self._room.release)
        response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events
        return response

    def _body(self, frames: Callable[[Callable[[float], bool]], Frames]) -> Iterator[bytes]:
        until = time.monotonic() + LONGEST_SECONDS

        def go_on(seconds: float) -> bool:
            return not self.ending.wait(seconds) and time.monotonic() < until

        yield b"retry: %d\n\n" % RETRY_MILLISECONDS
        spoke = time.monotonic()
        for frame in frames(go_on):
            if frame is None and time.monotonic() - spoke < HEARTBEAT_SECONDS:
                continue
            yield b": still here\n\n" if frame is None else frame
            spoke = time.monotonic()


def init_streams(app: Flask, most: int) -> None:
    app.extensions["streams"] = Streams(most)


def current_streams() -> Streams:
    streams: Streams = current_app.extensions["streams"]
    return streams


def frame(event: str | None, data: Mapping[str, Any], number: int | None = None) -> bytes:
    """One event of a stream, from JSON's own types; JSON on one line has no line break of its own."""
    id_line = "" if number is None else f"id: {number}\n"
    event_line = "" if event is None else f"event: {event}\n"
    return f"{id_line}{event_line}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def client_watch() -> Callable[[], bool] | None:
    """Whether the client of this request is there, as far as its connection tells; any thread may ask. None under
    a server that does not show the connection."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        return None

    def is_there() -> bool:
        poll = select.poll()  # of its own: two threads may not ask one at once
        try:
            poll.register(connection, getattr(select, "POLLRDHUP", select.POLLHUP))  # macOS has the latter alone
        except ValueError:  # closed, and its number may be another client's by now
            return False
        return not poll.poll(0)

    return is_there


def _limit_sending() -> None:
    """A client that takes nothing more would hold its thread for ever."""
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(SEND_SECONDS)
