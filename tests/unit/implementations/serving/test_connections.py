"""Connections beside what the engine client shows of them: nothing is left behind, and the watch goes on."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from app.implementations.serving import connections as module
from app.implementations.serving.connections import Connections, CutOff

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Listener:
    """Answers each request with ``answer``; None leaves it waiting. ``ended``: once for each connection."""

    def __init__(self) -> None:
        self.answer: bytes | None = ANSWER
        self.heard: list[bytes] = []
        self.ended = threading.Semaphore(0)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while said := connection.recv(65536):
                    self.heard.append(said)
                    if self.answer is not None:
                        connection.sendall(self.answer)
            except OSError:  # broken off
                pass
        self.ended.release()


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.close()


@pytest.fixture
def connections() -> Iterator[Connections]:
    one = Connections()
    yield one
    one.close()


def ask(connections: Connections, place: str, seconds: float = 30.0, **others: object) -> bytes:
    exchange = connections.send("GET", f"http://{place}/", time.monotonic() + seconds, **others)  # type: ignore[arg-type]
    said = exchange.read()
    exchange.close()
    return said


def test_a_request_that_cannot_be_written_leaves_no_connection(
    connections: Connections, listener: Listener
) -> None:
    with pytest.raises(ValueError, match="Invalid header"):
        ask(connections, listener.place, headers={"x": "a\nb"})
    assert listener.ended.acquire(timeout=10)


def test_who_cannot_say_whether_he_waits_ends_no_watch(connections: Connections, listener: Listener) -> None:
    def fails() -> bool:
        raise RuntimeError("concurrent poll() invocation")

    listener.answer = None
    for is_wanted in (fails, None):
        with pytest.raises(CutOff) as caught:
            ask(connections, listener.place, 0.3, is_wanted=is_wanted)
        assert caught.value.reason == "late"


def test_a_host_without_a_thread_left_is_watched_once_it_has_one(
    connections: Connections, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuses(thread: threading.Thread) -> None:
        if thread.name == "engine connections":  # and not the listener's
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuses)
        with pytest.raises(RuntimeError):
            ask(connections, listener.place)
    listener.answer = None
    with pytest.raises(CutOff):
        ask(connections, listener.place, 0.2)


def test_idle_connections_are_closed_though_nobody_asks_there_again(
    connections: Connections, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Listener()
    assert ask(connections, other.place) == b"ok"
    later = time.monotonic() + module.IDLE_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert ask(connections, listener.place) == b"ok"
    assert other.ended.acquire(timeout=10)
    other.close()


def test_who_asks_stands_in_the_url(connections: Connections, listener: Listener) -> None:
    assert ask(connections, f"a%40b:pass@{listener.place}") == b"ok"
    assert b"authorization: Basic YUBiOnBhc3M=\r\n" in listener.heard[0]
