"""Keys for programs: ``sec_live_<8 characters>_<43 characters><6 characters>``, base62.

The eight name the key in lists and logs, the 43 are 32 random bytes, the six are a CRC32 of all before them: a secret
scanner, and this server without its database, can tell a key from a text that looks like one.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from server.auth.tokens import derive
from storage.errors import ValidationFailed

#: For secret scanners; a match whose check part is wrong is no key.
PATTERN = r"\bsec_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}\b"
_KEY = re.compile(r"sec_live_([0-9A-Za-z]{8})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
MAX_NETWORKS = 50


class NewApiKey(NamedTuple):
    """``clear`` is shown once. ``prefix`` finds the row and may be shown; ``digest`` (32 bytes) is stored."""

    clear: str
    prefix: str
    digest: bytes


class ApiKeys:
    """Makes and checks keys.

    Args:
        secret_key: of the installation; digests are made with a key derived from it, so that a copy of the database
            alone does not let anybody test keys.
        previous: secrets before it, whose digests are still accepted.
    """

    def __init__(self, secret_key: str, previous: Sequence[str] = ()) -> None:
        self._keys = [derive(secret, "api-key") for secret in (secret_key, *previous)]

    def new(self) -> NewApiKey:
        prefix = "".join(secrets.choice(_BASE62) for _ in range(8))
        body = f"sec_live_{prefix}_{_base62(int.from_bytes(secrets.token_bytes(32)), 43)}"
        clear = body + _check(body)
        return NewApiKey(clear, prefix, self._digest(self._keys[0], clear))

    def verify(self, clear: str, stored: bytes) -> bool:
        """Whether this is the key that the stored digest was made of; takes the same time wherever they differ."""
        if prefix_of(clear) is None:
            return False
        return sum(hmac.compare_digest(self._digest(key, clear), stored) for key in self._keys) > 0

    def renewed(self, clear: str, stored: bytes) -> bytes | None:
        """The digest to store instead, where the stored one was made with a secret before today's."""
        digest = self._digest(self._keys[0], clear)
        return None if hmac.compare_digest(digest, stored) else digest

    @staticmethod
    def _digest(key: bytes, clear: str) -> bytes:
        return hmac.new(key, clear.encode(), hashlib.sha256).digest()


def prefix_of(clear: str) -> str | None:
    """The part by which the key's row is found; None for what is no key, by its form or its check part."""
    found = _KEY.fullmatch(clear)
    if found is None or not hmac.compare_digest(_check(clear[:-6]), found[3]):
        return None
    return found[1]


def parse_networks(texts: Iterable[str]) -> list[str]:
    """Networks for a key's allow-list in CIDR form, each in its shortest spelling, without doubles.

    Raises:
        ValidationFailed: one is no network, or there are more than ``MAX_NETWORKS``.
    """
    found: dict[str, None] = {}
    for position, text in enumerate(texts):
        if position >= MAX_NETWORKS:
            raise ValidationFailed(f"Give at most {MAX_NETWORKS} networks.", most=MAX_NETWORKS)
        try:
            found[str(ip_network(text.strip()))] = None
        except ValueError as error:
            raise ValidationFailed(
                "Give each network as an address or in CIDR form with no bits behind the mask, such as 192.0.2.0/24.",
                position=position,
            ) from error
    return list(found)


def ip_allowed(ip: str, networks: Sequence[str]) -> bool:
    """Whether the address is in one of the networks; an empty list allows all, an unreadable address is in none."""
    if not networks:
        return True
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    allowed: list[IPv4Network | IPv6Network] = [ip_network(network) for network in networks]
    return any(address in network for network in allowed)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), 6)
