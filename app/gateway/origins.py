"""Whom a request comes from, and which name of this service it was sent to."""

from collections.abc import Sequence

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

LOOPBACK = ("localhost", "127.0.0.1")  # run.py itself asks there


def init_proxies(app: Flask, count: int) -> None:
    """Believe ``count`` proxies in front, the nearest first, about the client's address, the scheme and the host.

    With 0 none: a client could claim any address in a header, and escape the limits of its own.
    """
    if count:
        proxied = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)
        app.wsgi_app = proxied  # type: ignore[method-assign]


def init_trusted_hosts(app: Flask, own: str, names: Sequence[str]) -> None:
    """Refuse a request to another name (400): a link in an answer, or a cache in front, would believe it.

    werkzeug knows no IPv6 address here.
    """
    if names:
        app.config["TRUSTED_HOSTS"] = [*names, own, *LOOPBACK]
