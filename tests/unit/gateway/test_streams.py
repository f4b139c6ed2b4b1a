"""Whether the client of a request is there."""

import socket
from concurrent.futures import ThreadPoolExecutor

from flask import Flask

from app.gateway.streams import client_watch


def test_a_client_is_there_until_it_leaves_or_is_let_go() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Flask("it").test_request_context(environ_overrides={"gunicorn.socket": ours}):
        is_there = client_watch()
        assert is_there is not None
        with ThreadPoolExecutor(4) as pool:  # any thread may ask
            assert all(pool.map(lambda _: is_there(), range(2000)))
        theirs.close()
        assert not is_there()
        ours.close()
        assert not is_there()


def test_no_watch_where_the_server_shows_no_connection() -> None:
    with Flask("it").test_request_context():
        assert client_watch() is None
