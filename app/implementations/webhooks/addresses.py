"""Where a webhook may go: a tenant names the address, so it must not reach what only this host can reach."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

LONGEST_URL = 2000
LEAST_PORT = 1024  # below it are mail, shells and directories; the web's own two are taken
WEB_PORTS = (80, 443)
HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# 127.1, 0x7f.0.0.1, 2130706433: a number at the end makes it an IPv4 address to some (WHATWG URL § 3.5).
NUMBER_AT_END = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Global as numbers, but they carry an IPv4 address that a gateway would go on to: 6to4 and NAT64.
CARRIERS = (IPv6Network("2002::/16"), IPv6Network("64:ff9b::/96"))


def url_fault(url: str, networks: Sequence[Network]) -> str | None:
    """``networks`` are allowed though they are not public, and without TLS."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return f"must be at most {LONGEST_URL} ASCII characters without spaces (a name beyond ASCII as xn--…)"
    try:
        parts = urlsplit(url)
        port = port_of(parts)
    except ValueError:
        return "is no URL"
    if parts.scheme != "https" and not (parts.scheme == "http" and networks):
        return "must begin with https://"
    if "@" in parts.netloc or parts.fragment:
        return "must have no user, password or fragment"
    if port not in WEB_PORTS and port < LEAST_PORT:
        return f"must have the port 443, 80, or one from {LEAST_PORT} on"
    host = parts.hostname or ""
    address = literal(host)
    if address is not None:
        return None if may_reach(address, networks) else "must be a public address"
    if not HOST.fullmatch(host) or NUMBER_AT_END.fullmatch(host):
        return "must have a host's name, or an address as 203.0.113.5 or [2001:db8::5]"
    return None


def literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def port_of(parts: SplitResult) -> int:
    """``ValueError`` for one that is no port."""
    return (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port


def may_reach(address: Address, networks: Sequence[Network]) -> bool:
    return is_allowed(address, networks) or _is_public(_plain(address))


def is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    """By the operator, on purpose."""
    return any(_plain(address) in network for network in networks)


def _plain(address: Address) -> Address:
    """::ffff:127.0.0.1 is 127.0.0.1 to the one who connects."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and (
        address.scope_id or address.is_site_local or any(address in one for one in CARRIERS)
    ):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
