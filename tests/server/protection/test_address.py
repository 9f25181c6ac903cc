"""Whose address a request comes from."""

from typing import Any

import pytest

from server.protection.address import client_address, is_https, limit_prefix, parse_networks
from storage.errors import ConfigurationError

PROXIES = parse_networks("10.0.0.0/8, 2001:db8:1::/48,127.0.0.1/32")


def scope(peer: str | None, *forwarded: str, scheme: str = "http", proto: str | None = None) -> Any:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    if proto:
        headers.append((b"x-forwarded-proto", proto.encode()))
    return {"client": (peer, 1) if peer else None, "headers": headers, "scheme": scheme}


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["1.1.1.1"], "203.0.113.7"),  # not a proxy of ours: invented
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7"], "203.0.113.7"),  # the left one is invented
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7"], "203.0.113.7"),  # the same in two headers
        ("10.0.0.1", ["203.0.113.7, 10.2.3.4"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7, 10.2.3.4, 10.0.0.9"], "203.0.113.7"),
        ("10.0.0.1", ["10.2.3.4"], "10.2.3.4"),
        ("10.0.0.1", ["1.1.1.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, nonsense, 10.7.7.7"], "10.7.7.7"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8:2::1]:4711"], "2001:db8:2::1"),
        ("10.0.0.1", ["2001:DB8:2:0::1"], "2001:db8:2::1"),
        ("2001:db8:1::5", ["203.0.113.7"], "203.0.113.7"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("::ffff:203.0.113.7", [], "203.0.113.7"),
        (None, ["203.0.113.7"], "unknown"),
    ],
)
def test_the_rightmost_hop_that_is_not_ours(peer: str | None, forwarded: list[str], found: str) -> None:
    assert client_address(scope(peer, *forwarded), PROXIES) == found


def test_without_proxies_the_header_says_nothing() -> None:
    assert client_address(scope("10.0.0.1", "203.0.113.7"), ()) == "10.0.0.1"


def test_an_ipv6_subscriber_is_one_client() -> None:
    assert limit_prefix("2001:db8:2:3:4:5:6:7") == limit_prefix("2001:db8:2:3::1") == "2001:db8:2:3::/64"
    assert limit_prefix("2001:db8:2:4::1") == "2001:db8:2:4::/64"
    assert limit_prefix("203.0.113.7") == "203.0.113.7"
    assert limit_prefix("unknown") == "unknown"


@pytest.mark.parametrize(
    ("peer", "scheme", "proto", "https"),
    [
        ("203.0.113.7", "https", None, True),
        ("203.0.113.7", "wss", None, True),
        ("203.0.113.7", "http", "https", False),
        ("10.0.0.1", "http", "https", True),
        ("10.0.0.1", "http", "http", False),
        ("10.0.0.1", "http", "https, http", False),
        ("10.0.0.1", "http", None, False),
    ],
)
def test_https_by_the_socket_or_a_proxy_of_ours(
    peer: str, scheme: str, proto: str | None, https: bool
) -> None:
    assert is_https(scope(peer, scheme=scheme, proto=proto), PROXIES) is https


@pytest.mark.parametrize("text", ["10.0.0.1/8", "everybody", "10.0.0.0/33"])
def test_a_network_that_is_none_is_said_at_the_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES"):
        parse_networks(text)
