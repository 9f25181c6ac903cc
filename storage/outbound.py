"""Requests to addresses that somebody else chose: a customer's web page, a tenant's webhook.

Server-side request forgery is stopped where it happens, at the connection: a name is resolved once, all its addresses must be public, and
the socket goes to an address that was checked (so a name that answers differently the second time gains nothing), while TLS still proves
the name. Redirects are followed here, each checked like the first address. Bodies are unpacked here too, because a packed kilobyte may be
a gigabyte. What addresses are public: the IANA special-purpose registries (RFC 6890), and what Python 3.11 leaves out of them.
"""

import asyncio
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore
import httpx

from storage.errors import AppError

HTTPS = frozenset({"https"})
PORTS = frozenset({80, 443, 8443})
MAX_REDIRECTS = 3
MAX_URL = 2048
MAX_ADDRESSES = 16  # of one name; more is a trick or a mistake

_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
# RFC 6761, RFC 6762, RFC 8375, RFC 9476 and ICANN's choice for private use: never the internet's.
_INNER_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa", ".alt", ".onion")
# What may go to another origin: nothing by which the first one knew us.
_ANONYMOUS_HEADERS = {"accept", "accept-language", "user-agent"}

_UNICAST_V6 = ip_network("2000::/3")
_REFUSED_V6 = [
    ip_network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 reaches any IPv4 address through somebody's relay
        "3fff::/20",  # documentation, RFC 9637
    )
]
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
_REFUSED_V4 = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: the clouds' metadata service
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
]


class OutboundRefused(AppError):
    """The address is not one that this service asks on somebody's behalf. ``details["reason"]`` says why in a word."""

    code = "VALIDATION_ERROR"
    status = 422

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


@dataclass(frozen=True)
class _Rules:
    schemes: frozenset[str]
    ports: frozenset[int]
    allow_private: frozenset[str]


def is_public(address: str) -> bool:
    """Whether an IP address (as text, without a zone) belongs to a host on the internet."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:
            return False
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed in _NAT64:
            parsed = IPv4Address(int(parsed) & 0xFFFFFFFF)
        else:
            return parsed in _UNICAST_V6 and not any(parsed in network for network in _REFUSED_V6)
    return not any(parsed in network for network in _REFUSED_V4)


def check_url(
    url: str,
    *,
    schemes: frozenset[str] = HTTPS,
    ports: frozenset[int] = PORTS,
    allow_private: frozenset[str] = frozenset(),
) -> str:
    """The address in its normal form, for storing. The name is not resolved: that is done, and judged, at each request.

    Args:
        url: what somebody entered.
        schemes: schemes that may be asked.
        ports: ports that may be asked.
        allow_private: ``host:port`` entries of the operator that are exempt from what is said about hosts, addresses and ports.

    Raises:
        OutboundRefused: it is not an absolute address of a public host.
    """
    return str(_checked(url, _Rules(schemes, ports, allow_private)))


def guarded_client(
    *,
    timeout: float,
    max_bytes: int,
    allow_private: frozenset[str] = frozenset(),
    schemes: frozenset[str] = HTTPS,
    ports: frozenset[int] = PORTS,
    verify: ssl.SSLContext | None = None,
) -> httpx.AsyncClient:
    """A client for addresses that somebody else chose. Proxies of the environment are ignored, cookies are not kept, redirects are followed
    by the transport (the last address is in ``response.extensions["final_url"]``).

    Args:
        timeout: seconds for all of a request: redirects, connection, answer and body.
        max_bytes: most bytes of a body, packed or unpacked.
        allow_private: see ``check_url``.
        schemes: see ``check_url``.
        ports: see ``check_url``.
        verify: a TLS context with other authorities than the public ones.

    Raises:
        OutboundRefused: by each request that the rules do not allow; what a network does is httpx's own errors.
    """
    rules = _Rules(schemes, ports, allow_private)
    context = verify or httpx.create_ssl_context(trust_env=False)
    return httpx.AsyncClient(
        transport=_GuardedTransport(rules, context, timeout, max_bytes),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
    )


def _checked(url: str, rules: _Rules) -> httpx.URL:
    if not url or len(url) > MAX_URL or any(character <= " " or character in "\\\x7f" for character in url):
        raise OutboundRefused("malformed", "This is not a web address.")
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, UnicodeError):
        raise OutboundRefused("malformed", "This is not a web address.") from None
    if parsed.scheme not in rules.schemes:
        raise OutboundRefused(
            "scheme", f"The address must begin with {' or '.join(sorted(rules.schemes))}://."
        )
    if "@" in re.split("[/?#]", url.partition("//")[2], maxsplit=1)[0]:  # httpx forgets an empty one
        raise OutboundRefused("userinfo", "Leave the user name and password out of the address.")
    if not host:
        raise OutboundRefused("malformed", "The address names no host.")
    port = parsed.port or _DEFAULT_PORTS[parsed.scheme]
    if f"{host}:{port}" in rules.allow_private:
        return parsed.copy_with(fragment=None)
    if port not in rules.ports:
        raise OutboundRefused("port", "This port is not asked. Use the service's usual port.")
    _check_host(host)
    return parsed.copy_with(fragment=None)


def _check_host(host: str) -> None:
    """Refuse what is no public name and no public address, in any spelling a resolver would understand."""
    if ":" in host:
        if not is_public(host):
            raise OutboundRefused("private", "This address is not on the public internet.")
        return
    labels = host.split(".")
    if not all(labels) or len(host) > 253:  # a trailing dot too: the same host under a second name
        raise OutboundRefused("malformed", "The address names no host.")
    # WHATWG URL, "ends in a number": resolvers read 2130706433, 0x7f.1, 0177.0.0.1 and 127.1 as addresses.
    if labels[-1].isdecimal() or labels[-1].startswith("0x"):
        with suppress(ValueError):
            IPv4Address(host)
            if is_public(host):
                return
            raise OutboundRefused("private", "This address is not on the public internet.")
        raise OutboundRefused("malformed", "Write an IP address as four decimal numbers.")
    if len(labels) == 1 or host.endswith(_INNER_SUFFIXES):
        raise OutboundRefused("private", "This name is not on the public internet.")


class _PinnedBackend(httpcore.AsyncNetworkBackend):
    """Resolves once, and connects to nothing that was not checked."""

    def __init__(self, allow_private: frozenset[str]) -> None:
        self._allow_private = allow_private
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=6)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name of the host was not found: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))[:MAX_ADDRESSES]
        # One private address among public ones is an attack, or a host that is not to be asked either.
        if f"{host}:{port}" not in self._allow_private and not all(map(is_public, addresses)):
            raise OutboundRefused("private", "This address is not on the public internet.")
        failure: Exception = httpcore.ConnectError("the name of the host has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise OutboundRefused("scheme", "Sockets of this machine are not asked.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _GuardedTransport(httpx.AsyncHTTPTransport):
    def __init__(self, rules: _Rules, context: ssl.SSLContext, timeout: float, max_bytes: int) -> None:
        super().__init__(verify=context, trust_env=False)
        # httpx offers no way to give its pool a network; the rest of its transport (its errors, its streams) is what we want.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_PinnedBackend(rules.allow_private),
        )
        self._rules = rules
        self._timeout = timeout
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = asyncio.get_running_loop().time() + self._timeout
        for _ in range(MAX_REDIRECTS + 1):
            request.url = _checked(str(request.url), self._rules)
            request.headers["accept-encoding"] = "gzip"  # what _unpacked can bound
            try:
                async with asyncio.timeout_at(deadline):
                    response = await super().handle_async_request(request)
                    location = response.headers.get("location")
                    if response.status_code not in _REDIRECTS or location is None:
                        return await self._bounded(response, request, deadline)
                    await response.aclose()
            except TimeoutError:
                raise httpx.ReadTimeout("the answer took too long", request=request) from None
            request = _redirected(request, response.status_code, location)
        raise OutboundRefused("redirects", f"The address redirects more than {MAX_REDIRECTS} times.")

    async def _bounded(
        self, response: httpx.Response, request: httpx.Request, deadline: float
    ) -> httpx.Response:
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        length = response.headers.get("content-length", "")
        refused = None
        if encoding not in {"identity", "gzip", "x-gzip"}:
            refused = OutboundRefused("encoding", "The answer is packed in a way that was not asked for.")
        elif length.isdecimal() and int(length) > self._max_bytes and request.method != "HEAD":
            refused = _too_large()
        if refused is not None:
            await response.aclose()
            raise refused
        packed = encoding != "identity"
        if packed:
            del response.headers["content-encoding"]
            response.headers.pop("content-length", None)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_BoundedStream(response.stream, packed, self._max_bytes, deadline),
            extensions={**response.extensions, "final_url": str(request.url)},
        )


def _redirected(request: httpx.Request, status: int, location: str) -> httpx.Request:
    """The request that a redirect asks for (RFC 9110 15.4); nothing of the first one's secrets goes to another origin."""
    try:
        target = request.url.join(location)
    except httpx.InvalidURL:
        raise OutboundRefused("malformed", "The address redirects to something that is no address.") from None
    if request.url.scheme == "https" and target.scheme != "https":
        raise OutboundRefused("downgrade", "The address redirects from https to http.")
    same_origin = (request.url.scheme, request.url.host, request.url.port) == (
        target.scheme,
        target.host,
        target.port,
    )
    method = request.method
    keeps_body = status in {307, 308} or method in {"GET", "HEAD"}
    if not keeps_body:
        method = "GET"
    sent = b""
    if keeps_body:
        if not isinstance(request.stream, httpx.ByteStream):
            raise OutboundRefused("redirect", "The address redirects what cannot be sent twice.")
        sent = b"".join(request.stream)
        if sent and not same_origin:
            raise OutboundRefused("redirect", "The address redirects what is sent to somebody else.")
    dropped = {"host", "transfer-encoding", "content-length"} | (set() if keeps_body else {"content-type"})
    headers = [
        (name, value)
        for name, value in request.headers.multi_items()
        if name not in dropped and (same_origin or name in _ANONYMOUS_HEADERS)
    ]
    return httpx.Request(
        method, target, headers=headers, content=sent or None, extensions=dict(request.extensions)
    )


class _BoundedStream(httpx.AsyncByteStream):
    """A body, unpacked, of at most ``limit`` bytes, until the deadline."""

    def __init__(self, inner: httpx.AsyncByteStream, packed: bool, limit: int, deadline: float) -> None:
        self._inner = inner
        self._packed = packed
        self._limit = limit
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left, received = self._limit, 0
        unpacker = _Unpacker() if self._packed else None
        chunks = aiter(self._inner)
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise httpx.ReadTimeout("the answer took too long") from None
            received += len(chunk)
            if received > self._limit:
                raise _too_large()
            plain = unpacker.unpack(chunk, left + 1) if unpacker else chunk
            left -= len(plain)
            if left < 0:
                raise _too_large()
            yield plain
        if unpacker and not unpacker.complete:
            raise httpx.DecodingError("the packed answer ends too early")

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Unpacker:
    """gzip (RFC 1952), one member after the other, never more than asked for."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._begun = False

    @property
    def complete(self) -> bool:
        return self._member.eof or not self._begun

    def unpack(self, data: bytes, at_most: int) -> bytes:
        out = bytearray()
        while data and len(out) < at_most:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            self._begun = True
            try:
                out += self._member.decompress(data, at_most - len(out))
            except zlib.error as error:
                raise httpx.DecodingError("the packed answer is damaged") from error
            data = self._member.unused_data or self._member.unconsumed_tail
        return bytes(out)


def _too_large() -> OutboundRefused:
    return OutboundRefused("too_large", "The answer is larger than what is read from other sites.")
