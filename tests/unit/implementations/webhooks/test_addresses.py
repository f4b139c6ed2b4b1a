"""Where a webhook may go, and where it may not."""

from ipaddress import ip_address, ip_network

import pytest

from app.implementations.webhooks.addresses import is_allowed, may_reach, url_fault

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/a/b?c=d",
        "https://HOOKS.example.com:8443/",
        "https://xn--mller-kva.example/",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]/",
        "https://a_b.example.com/",
    ],
)
def test_addresses_that_say_nothing_against_themselves(url):
    assert url_fault(url, []) is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example.com", "//hooks.example.com", "https://", "https:///path", "ftp://example.com/"),
        *("http://hooks.example.com/", "file:///etc/passwd", "gopher://example.com/", "HTTP://example.com"),
        *("https://user@example.com/", "https://user:word@example.com/", "https://@example.com/"),
        *("https://example.com@127.0.0.1/", "https://1.1.1.1#@127.0.0.1/", "https://example.com/#part"),
        *(
            "https://example.com:22/",
            "https://example.com:25/",
            "https://example.com:0/",
            "https://example.com:99999/",
        ),
        *(
            "https://example.com:port/",
            "https://exa mple.com/",
            "https://exam\tple.com/",
            "https://example.com\\@x/",
        ),
        *("https://example.com/\r\nHost: x", "https://müller.example/", "https://example.com./", "https://.com/"),
        *("https://127.0.0.1/", "https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/"),
        *("https://169.254.169.254/latest/meta-data/", "https://0.0.0.0/", "https://0/", "https://100.64.0.1/"),
        *("https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://017700000001/"),
        *("https://127.1/", "https://0177.0.0.1/", "https://1.1.1.1.1/", "https://example.0x7f/", "https://a.1/"),
        *("https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:169.254.169.254]/"),
        *("https://[fe80::1]/", "https://[fe80::1%25eth0]/", "https://[fc00::1]/", "https://[fec0::1]/"),
        *(
            "https://[2002:7f00:1::]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[ff02::1]/",
            "https://[::127.0.0.1]/",
        ),
        *("https://224.0.0.1/", "https://255.255.255.255/", "https://240.0.0.1/", "https://198.18.0.1/"),
        *("https://[::1", "https://[x]/", "https://" + "a" * 2000 + ".com/", "https://" + "a" * 64 + ".com/"),
    ],
)
def test_addresses_that_are_refused_at_once(url):
    assert url_fault(url, [])


def test_a_network_that_the_operator_allows():
    assert url_fault("http://127.0.0.1:8080/", LOOPBACK) is None
    assert (
        url_fault("http://hooks.internal/", LOOPBACK) is None
    )  # whether it lies there is seen when it is resolved
    assert url_fault("http://10.0.0.1/", LOOPBACK)
    assert url_fault("http://localhost:22/", LOOPBACK)
    assert may_reach(ip_address("::ffff:127.0.0.1"), LOOPBACK)
    assert is_allowed(ip_address("127.9.9.9"), LOOPBACK)
    assert may_reach(ip_address("1.1.1.1"), LOOPBACK)
    assert not is_allowed(ip_address("1.1.1.1"), LOOPBACK)
    assert not may_reach(ip_address("169.254.169.254"), LOOPBACK)
