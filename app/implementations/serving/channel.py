"""The core's end of the socket to the front: blocking, read between turns."""

import select
import socket
from collections.abc import Sequence

from app.implementations.serving.messages import Message, decode, encode


class FrontGone(Exception):
    """The front has closed its end or died."""


class Channel:
    """Whole messages over a stream socket, in order."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = bytearray()

    def receive(self, *, wait: bool) -> Sequence[Message]:
        """What has arrived since the last call; with ``wait``, at least one message. Raises ``FrontGone``."""
        messages: list[Message] = []
        while True:
            patient = wait and not messages
            if not select.select([self._socket], [], [], None if patient else 0)[0]:
                return messages
            messages.extend(self._read())

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
