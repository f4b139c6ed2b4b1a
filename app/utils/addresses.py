"""Addresses that a process listens on."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether nobody beyond this host can reach it. A name but localhost may be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
