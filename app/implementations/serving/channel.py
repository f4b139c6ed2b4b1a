"""The core's end of the socket to the front: blocking, read between turns."""

import select
import socket
import weakref
from collections.abc import Sequence
from contextlib import suppress

from app.implementations.serving.messages import Message, decode, encode


class FrontGone(Exception):
    """The front has closed its end or died."""


class Channel:
    """Whole messages over a stream socket, in order."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = bytearray()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        weakref.finalize(self, _close, self._woken, self._waker)

    def wake(self) -> None:
        """Ends a ``receive`` that waits. From whichever thread."""
        with suppress(BlockingIOError):  # it is full: nobody has read the last ones yet
            self._waker.send(b"!")

    def receive(self, *, wait: bool) -> Sequence[Message]:
        """What has arrived since the last call; with ``wait``, at least one message, or ``wake`` was called.

        Raises ``FrontGone``.
        """
        messages: list[Message] = []
        while True:
            patient = wait and not messages
            ready = select.select([self._socket, self._woken], [], [], None if patient else 0)[0]
            if self._woken in ready:
                self._woken.recv(4096)
                wait = False
            if self._socket in ready:
                messages.extend(self._read())
            elif not (wait and not messages):
                return messages

    def send(self, message: Message) -> None:
        """Raises ``FrontGone``."""
        try:
            self._socket.sendall(encode(message))
        except OSError:
            raise FrontGone from None

    def _read(self) -> Sequence[Message]:
        try:
            data = self._socket.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            raise FrontGone
        self._rest += data
        if b"\n" not in data:
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return [decode(line) for line in lines]


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()
