"""Sends one webhook, and looks at nothing of the answer but its status.

The name is resolved once, each address checked, and the connection made to that very address: a name that answers
otherwise the next time (DNS rebinding) finds nobody who asks. No proxy, no redirect, one deadline for all of it.
"""

import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

import h11

from app.core.entities.webhooks import Outcome
from app.core.interfaces.webhooks import WebhookSender
from app.implementations.webhooks.addresses import (
    Address,
    Network,
    is_allowed,
    literal,
    may_reach,
    port_of,
    url_fault,
)

SECONDS = 10.0  # for connecting, TLS, sending and the answer's head; below the first delay between attempts
MOST_BYTES = 32 * 1024  # of the answer that are read

Resolve = Callable[..., Sequence[Any]]

log = logging.getLogger(__name__)


class _Refused(Exception):
    """Its message is the outcome's error."""


class HttpWebhookSender(WebhookSender):
    """``networks`` are allowed though they are private; ``resolve`` is getaddrinfo."""

    def __init__(
        self, networks: Sequence[Network], resolve: Resolve = socket.getaddrinfo, seconds: float = SECONDS
    ) -> None:
        self._networks = networks
        self._resolve = resolve
        self._seconds = seconds

    def fault(self, url: str) -> str | None:
        return url_fault(url, self._networks)

    def post(self, url: str, headers: Mapping[str, str], body: str) -> Outcome:
        try:
            if self.fault(url):
                raise _Refused("address_refused")
            return Outcome(self._post(urlsplit(url), headers, body.encode()))
        except _Refused as error:
            return Outcome(error=str(error))
        except TimeoutError:
            return Outcome(error="timeout")
        except ssl.SSLError:
            return Outcome(error="tls_failed")
        except OSError:
            return Outcome(error="connection_failed")
        except h11.RemoteProtocolError:
            return Outcome(error="not_http")

    def _post(self, url: SplitResult, headers: Mapping[str, str], body: bytes) -> int:
        addresses = self._addresses(url)
        until = time.monotonic() + self._seconds  # the resolver has a limit of its own
        with self._connect(url, addresses, until) as connection:
            http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_BYTES)
            every = {"host": url.netloc, **headers, "content-length": str(len(body)), "connection": "close"}
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            request = h11.Request(method="POST", target=target, headers=list(every.items()))
            connection.settimeout(_left(until))  # of sendall as a whole
            connection.sendall((http.send(request) or b"") + (http.send(h11.Data(data=body)) or b""))
            return _status(http, connection, until)

    def _addresses(self, url: SplitResult) -> list[Address]:
        host = url.hostname or ""
        given = literal(host)
        if given is not None:
            found = [given]
        else:
            try:
                answers = self._resolve(host, port_of(url), type=socket.SOCK_STREAM)
                found = [ip_address(answer[4][0]) for answer in answers]
            except (OSError, ValueError, UnicodeError):
                raise _Refused("address_refused") from None
        # One word for both: whether a name within the company exists is nothing to tell a tenant.
        if not found or not all(may_reach(one, self._networks) for one in found):
            raise _Refused("address_refused")
        if url.scheme == "http" and not all(is_allowed(one, self._networks) for one in found):
            raise _Refused("address_refused")
        return found

    def _connect(self, url: SplitResult, addresses: Sequence[Address], until: float) -> socket.socket:
        """To the first that takes it."""
        failure: OSError = ConnectionError()
        for address in addresses:
            try:
                plain = socket.create_connection((str(address), port_of(url)), _left(until))
            except TimeoutError:
                raise
            except OSError as error:
                failure = error
                continue
            if url.scheme == "http":
                return plain
            try:
                plain.settimeout(_left(until))
                return self._tls.wrap_socket(plain, server_hostname=url.hostname)
            except BaseException:
                plain.close()
                raise
        raise failure

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


def _status(http: h11.Connection, connection: socket.socket, until: float) -> int:
    read = 0
    while True:
        event = http.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError
        if event is h11.NEED_DATA:
            connection.settimeout(_left(until))
            received = connection.recv(4096)
            read += len(received)
            if read > MOST_BYTES:
                raise _Refused("not_http")
            http.receive_data(received)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
