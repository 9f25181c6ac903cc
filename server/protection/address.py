"""Who is at the other end: the client's address behind trusted proxies only."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from litestar.types import Scope

from storage.errors import ConfigurationError

Network = IPv4Network | IPv6Network
UNKNOWN = "unknown"  # a Unix socket has no peer address


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks from a comma-separated list of CIDRs.

    Raises:
        ConfigurationError: an entry is no network.
    """
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigurationError(f"TRUSTED_PROXIES: {error}") from error


def client_address(scope: Scope, trusted: tuple[Network, ...]) -> str:
    """The client's IP address in its normal form; ``unknown`` where the server was not told.

    ``X-Forwarded-For`` counts only when the peer is a trusted proxy, and then from the right: each proxy appends whom it heard, so the
    first hop from the right that is not trusted is the last that nobody could invent.
    """
    client: Any = scope.get("client")
    peer = client[0] if client else UNKNOWN
    if not trusted:
        return _walk(peer, "", trusted)
    forwarded = ",".join(
        value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"
    )
    return _walk(peer, forwarded, trusted)


def limit_prefix(address: str) -> str:
    """The part of an address that counts as one client: an IPv4 address, or the /64 that one IPv6 subscriber has at least."""
    return _prefix(address)


def is_https(scope: Scope, trusted: tuple[Network, ...]) -> bool:
    """Whether the client's own connection is encrypted, by the socket or by a trusted proxy's word."""
    if scope["scheme"] in {"https", "wss"}:
        return True
    client: Any = scope.get("client")
    if not trusted or not client or not _is_trusted(client[0], trusted):
        return False
    protocols = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    return bool(protocols) and protocols[-1].rpartition(b",")[2].strip().lower() == b"https"


@lru_cache(4096)
def _walk(peer: str, forwarded: str, trusted: tuple[Network, ...]) -> str:
    found = _normal(peer)
    if found is None:
        return UNKNOWN
    if not trusted or not _is_trusted(found, trusted):
        return found
    for hop in reversed(forwarded.split(",")):
        address = _normal(_without_port(hop.strip()))
        if address is None:  # nothing to the left of a broken entry can be believed
            return found
        found = address
        if not _is_trusted(address, trusted):
            return found
    return found


@lru_cache(4096)
def _is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    normal = _normal(address)
    if normal is None:
        return False
    parsed = ip_address(normal)
    return any(parsed in network for network in trusted)


def _normal(text: str) -> str | None:
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


@lru_cache(4096)
def _prefix(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return address
