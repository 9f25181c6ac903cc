"""The devices that people sign in from: what a session's list shows of device and place (a name for the program, a
country for the address), and the cookie by which a device is known again.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from ipaddress import IPv6Address, ip_address
from typing import Any

from ua_parser import parse

from server.auth.tokens import derive

DEVICE_COOKIE = "__Host-dev"
DEVICE_DAYS = 180
UNKNOWN = "unknown"
_LOADING = threading.Lock()


class DeviceCookies:
    """The value of the cookie ``__Host-dev``: it proves that this account signed in on this device before.

    Args:
        secret_key: of the installation.
        previous: secrets before it, whose cookies still count.
    """

    def __init__(
        self, secret_key: str, previous: Sequence[str] = (), now: Callable[[], float] = time.time
    ) -> None:
        self._keys = [derive(secret, "device-cookie") for secret in (secret_key, *previous)]
        self._now = now

    def issue(self, account_key: str) -> str:
        body = f"{secrets.token_urlsafe(16)}.{int(self._now())}"
        return f"{body}.{self._mac(self._keys[0], body, account_key)}"

    def read(self, cookie: str | None, account_key: str) -> str | None:
        """The device's id; None where the cookie is forged, another account's or older than ``DEVICE_DAYS``."""
        if not cookie or not cookie.isascii():
            return None
        body, _, mac = cookie[:256].rpartition(".")
        device, _, issued = body.partition(".")
        genuine = [
            hmac.compare_digest(self._mac(key, body, account_key).encode(), mac.encode())
            for key in self._keys
        ]
        if not any(genuine) or not -60 <= self._now() - int(issued) <= DEVICE_DAYS * 86_400:
            return None
        return device

    @staticmethod
    def _mac(key: bytes, body: str, account_key: str) -> str:
        return hmac.new(key, f"{body}|{account_key}".encode(), hashlib.sha256).hexdigest()


def device_name(user_agent: str | None) -> str:
    """For example ``Firefox 130 on Linux``; ``unknown device`` where the header says nothing we know.

    The first call compiles the patterns (0.2 s): call it in a thread.
    """
    result = parse((user_agent or "")[:512])
    browser = system = None
    if result.user_agent is not None:
        browser = " ".join(part for part in (result.user_agent.family, result.user_agent.major) if part)
    if result.os is not None:
        system = " ".join(part for part in (result.os.family, result.os.major) if part)
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or "unknown device"


def country_of(ip: str | None) -> str:
    """The ISO 3166 code of the address's country, such as ``DE``; ``unknown`` for private and unlisted ones.

    By a table that comes with a library (its year is the library's), never by the network. The first call reads it
    (0.1 s): call it in a thread.
    """
    try:
        address = ip_address(ip or "")
    except ValueError:
        return UNKNOWN
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if not address.is_global:
        return UNKNOWN
    with _LOADING:  # the first two callers must not both read the file
        table = _table()
    code = str(table.lookup(str(address)).country_code)
    return code if len(code) == 2 and code.isalpha() else UNKNOWN


@lru_cache(maxsize=1)
def _table() -> Any:
    from geoip2fast import GeoIP2Fast  # type: ignore[import-untyped]  # reads 10 MB: not before it is asked

    with as_file(files("geoip2fast") / "geoip2fast-ipv6.dat.gz") as path:
        return GeoIP2Fast(geoip2fast_data_file=str(path))
