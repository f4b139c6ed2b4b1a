"""Connections to engines: HTTP/1.1, kept alive, each cut off when its time is up or nobody waits any more.

``http.client`` gives the socket away before the answer begins, which is when most clients leave and most time runs
out; and a request through it costs less than one through httpx.
"""

import json
import logging
import select
import socket
import struct
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from app.core.interfaces.operations import Wanted

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
IDLE_SECONDS = 3.0  # vLLM's server closes after five
MOST_IDLE = 64  # of each engine
LOOK_SECONDS = 0.1  # between two looks whether they are still wanted
READ_BYTES = 65536

Reason = Literal["late", "unwanted"]


class NotConnected(Exception):
    """The engine is not there, or breaks off."""


class CutOff(Exception):
    """By us: time is up (``late``), or nobody waits for the answer (``unwanted``)."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Connections:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, deque[tuple[float, HTTPConnection]]] = {}  # the newest last
        self._watch = Watch()

    def send(
        self,
        method: Literal["GET", "POST"],
        url: str,
        until: float,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        is_wanted: Wanted | None = None,
    ) -> "Exchange":
        """Returns once the head of the answer is there. ``until`` is of ``time.monotonic``. ``NotConnected``,
        ``CutOff``."""
        parts = urlsplit(url)
        user, _, place = parts.netloc.rpartition("@")
        origin = f"{parts.scheme}://{parts.netloc}"
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        given = {"authorization": f"Basic {b64encode(unquote(user).encode()).decode()}"} if user else {}
        given |= headers or {}
        if data is not None:
            given["content-type"] = "application/json"
        try:
            connection = self._kept(origin) or _connected(parts.scheme, place, until)
        except (OSError, HTTPException) as error:
            raise NotConnected(repr(error)) from None
        watched = Watched(connection.sock, until, is_wanted)
        try:
            self._watch.over(watched)
            connection.request(method, parts.path, data, given)
            response = connection.getresponse()
        except BaseException as error:
            self._watch.leave(watched)
            _break_off(connection)
            if isinstance(error, OSError | HTTPException):
                raise watched.why(error) from None
            raise
        return Exchange(response, watched, lambda whole: self._done(origin, connection, watched, whole))

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, {}
        for kept in idle.values():
            for _, connection in kept:
                connection.close()

    def _kept(self, origin: str) -> HTTPConnection | None:
        self._close_old()
        while True:
            with self._lock:
                kept = self._idle.get(origin)
                if not kept:
                    return None
                _, connection = kept.pop()
            if not _has_something(connection.sock):  # such as its end
                return connection
            connection.close()

    def _close_old(self) -> None:
        """Of all engines: one that is started again has another port, and nobody asks at the old one any more."""
        last = time.monotonic() - IDLE_SECONDS
        old: list[HTTPConnection] = []
        with self._lock:
            for origin, kept in list(self._idle.items()):
                while kept and kept[0][0] <= last:
                    old.append(kept.popleft()[1])
                if not kept:
                    del self._idle[origin]
        for connection in old:
            connection.close()

    def _done(self, origin: str, connection: HTTPConnection, watched: "Watched", whole: bool) -> None:
        self._watch.leave(watched)
        if not whole or watched.cut:
            _break_off(connection)
            return
        with self._lock:
            kept = self._idle.setdefault(origin, deque())
            if len(kept) < MOST_IDLE:
                kept.append((time.monotonic(), connection))
                return
        connection.close()


class Exchange:
    """An answer whose body is to be read. Close it: the engine knows by a closed connection that nobody waits."""

    def __init__(self, response: HTTPResponse, watched: "Watched", done: Callable[[bool], None]) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._watched = watched
        self._done = done
        self._closed = False

    def read(self) -> bytes:
        try:
            data = self._response.read()
        except (OSError, HTTPException) as error:
            raise self._watched.why(error) from None
        if self._watched.cut:
            raise CutOff(self._watched.cut)
        return data

    def chunks(self) -> Iterator[bytes]:
        """As they come."""
        while True:
            try:
                data = self._response.read1(READ_BYTES)
            except (OSError, HTTPException) as error:
                raise self._watched.why(error) from None
            if not data:
                if self._watched.cut:
                    raise CutOff(self._watched.cut)
                return
            yield data

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._done(self._response.isclosed() and not self._response.will_close)
            self._response.close()


class Watched:
    def __init__(self, connection: socket.socket, until: float, is_wanted: Wanted | None) -> None:
        self.cut: Reason | None = None
        self.until = until
        self._connection = connection
        self._is_wanted = is_wanted

    def look(self, now: float) -> None:
        if self.cut is None and now >= self.until:
            self._end("late")
        elif self.cut is None and not self._wanted():
            self._end("unwanted")

    def why(self, error: Exception) -> Exception:
        return CutOff(self.cut) if self.cut else NotConnected(repr(error))

    def _wanted(self) -> bool:
        try:
            return self._is_wanted is None or self._is_wanted()
        except Exception:  # one that cannot say must not end the watch over all others
            logger.exception("whether an answer is wanted could not be asked: it is taken to be")
            self._is_wanted = None
            return True

    def _end(self, reason: Reason) -> None:
        self.cut = reason
        with suppress(OSError):  # closed by the other end meanwhile
            self._connection.shutdown(socket.SHUT_RDWR)


class Watch:
    """One thread for all connections of a process; it starts with the first and is never told to stop."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: set[Watched] = set()
        self._next_look = 0.0  # inf: it sleeps until there is something
        self._thread: threading.Thread | None = None

    def over(self, one: Watched) -> None:
        with self._changed:
            self._watched.add(one)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="engine connections", daemon=True)
                thread.start()  # raises where the host has no thread left; the next one tries again
                self._thread = thread
            elif one.until < self._next_look:
                self._changed.notify()

    def leave(self, one: Watched) -> None:
        """From here on it is not touched: its number may be another connection's."""
        with self._changed:
            self._watched.discard(one)

    def _run(self) -> None:
        idle = False  # since the last look; then it sleeps: a busy gateway does not wake it for each request
        with self._changed:
            while True:
                now = time.monotonic()
                if not self._watched and idle:
                    self._next_look = float("inf")
                    self._changed.wait()
                    idle = False
                    continue
                idle = not self._watched
                for one in tuple(self._watched):  # the garbage collector may end a stream here, in between
                    one.look(now)
                waits = [one.until for one in self._watched if one.cut is None]
                self._next_look = min([now + LOOK_SECONDS, *waits])
                self._changed.wait(max(0.0, self._next_look - time.monotonic()))


def _connected(scheme: str, place: str, until: float) -> HTTPConnection:
    seconds = max(0.001, min(CONNECT_SECONDS, until - time.monotonic()))
    connection = (HTTPSConnection if scheme == "https" else HTTPConnection)(place, timeout=seconds)
    connection.connect()
    connection.sock.settimeout(None)  # from here on the watch has an eye on the time
    return connection


def _break_off(connection: HTTPConnection) -> None:
    """With a reset: an end of ours alone would leave an engine at its writing for seconds."""
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _has_something(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
