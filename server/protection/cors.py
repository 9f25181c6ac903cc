"""Which other sites' scripts may read answers: each tenant lists its own.

A preflight carries no credentials, so no tenant is known yet: it is answered for an origin that any tenant lists. The request itself is
judged by its caller's tenant. Origins are compared as they are, byte for byte: browsers send one normal form (RFC 6454 section 6.2).
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

import structlog
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.types import Scope

from server.protection.address import Network, is_https
from server.protection.headers import Headers
from storage.errors import Forbidden
from storage.tenancy import TenantContext

log = structlog.get_logger(__name__)

ALLOWED_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
ALLOWED_HEADERS = (
    b"authorization, content-type, accept, accept-language, idempotency-key, if-match, if-none-match, "
    b"x-csrf-token, x-requested-with"
)
EXPOSED_HEADERS = (
    b"etag, idempotent-replayed, link, location, ratelimit, ratelimit-policy, retry-after, x-request-id"
)
PREFLIGHT_SECONDS = b"600"

_ORIGIN = re.compile(r"https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[1-9]\d{0,4})?")
_DEFAULT_PORT = re.compile(r"http://.*[^:]:80|https://.*[^:]:443")


class OriginBook(Protocol):
    """Which origins the tenants list."""

    async def known(self, origin: str) -> bool:
        """Whether any tenant lists it."""

    async def allowed(self, tenant_id: UUID, origin: str) -> bool:
        """Whether this tenant lists it."""


class CachedOrigins:
    """A book that is asked once in a while for each question; also for those whose answer is no, which strangers choose."""

    def __init__(
        self,
        book: OriginBook,
        *,
        seconds: float = 30.0,
        entries: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book = book
        self._seconds = seconds
        self._entries = entries
        self._clock = clock
        self._answers: OrderedDict[tuple[UUID | None, str], tuple[float, bool]] = OrderedDict()

    async def known(self, origin: str) -> bool:
        return await self._ask(None, origin)

    async def allowed(self, tenant_id: UUID, origin: str) -> bool:
        return await self._ask(tenant_id, origin)

    async def _ask(self, tenant_id: UUID | None, origin: str) -> bool:
        question = (tenant_id, origin)
        found = self._answers.get(question)
        if found is not None and found[0] > self._clock():
            return found[1]
        answer = await (
            self._book.known(origin) if tenant_id is None else self._book.allowed(tenant_id, origin)
        )
        self._answers[question] = (self._clock() + self._seconds, answer)
        self._answers.move_to_end(question)
        while len(self._answers) > self._entries:
            self._answers.popitem(last=False)
        return answer


def is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers send it: lower case, no path, no default port; ``null`` is none."""
    return len(text) <= 300 and bool(_ORIGIN.fullmatch(text)) and not _DEFAULT_PORT.fullmatch(text)


def origin_of(scope: Scope) -> str | None:
    """The Origin header as it is; None where there is none. Two of them are no origin of anybody."""
    found = [value for name, value in scope["headers"] if name == b"origin"]
    return b", ".join(found).decode("latin-1") if found else None


class Cors:
    """Answers preflights, and says who may read an answer."""

    def __init__(self, book: OriginBook, public_url: str | None, trusted: tuple[Network, ...] = ()) -> None:
        self._trusted = trusted
        self._book = book
        self._own = public_url.rstrip("/") if public_url else None

    def is_preflight(self, scope: Scope) -> bool:
        return (
            scope["type"] == ScopeType.HTTP
            and scope["method"] == "OPTIONS"
            and any(name == b"access-control-request-method" for name, _ in scope["headers"])
            and origin_of(scope) is not None
        )

    async def preflight(self, scope: Scope) -> Headers:
        """Headers of the answer to a preflight.

        Raises:
            Forbidden: nobody lists the origin.
        """
        origin = origin_of(scope) or ""
        if not is_origin(origin) or not (self._is_own(scope, origin) or await self._book.known(origin)):
            raise Forbidden("Pages of this origin may not use this service.")
        return [
            (b"access-control-allow-origin", origin.encode()),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-allow-methods", ALLOWED_METHODS),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", PREFLIGHT_SECONDS),
        ]

    async def shared(self, headers: Headers, scope: Scope) -> Headers:
        """The answer's headers with what lets its page read it. A route that says who may read it keeps what it says."""
        for name, value in headers:
            if name == b"access-control-allow-origin":
                if value == b"*":
                    return [item for item in headers if item[0] != b"access-control-allow-credentials"]
                return _varied(headers)
        headers = _varied(headers)
        origin = origin_of(scope)
        if origin is None or not is_origin(origin):
            return headers
        try:
            return headers + await self._permission(scope, origin)
        except Exception:  # the answer is made already: it goes out, unreadable to the page
            log.exception("origins_unavailable")
            return headers

    async def _permission(self, scope: Scope, origin: str) -> Headers:
        context: TenantContext | None = scope["state"].get("context")
        if context is not None:
            if await self._book.allowed(context.tenant_id, origin):
                return [
                    (b"access-control-allow-origin", origin.encode()),
                    (b"access-control-allow-credentials", b"true"),
                    (b"access-control-expose-headers", EXPOSED_HEADERS),
                ]
        elif await self._book.known(origin):
            # Nobody's answer: a sign-in, a 401. Readable, but never with the browser's own credentials.
            return [
                (b"access-control-allow-origin", origin.encode()),
                (b"access-control-expose-headers", EXPOSED_HEADERS),
            ]
        return []

    async def check_origin(
        self, connection: ASGIConnection[Any, Any, Any, Any], context: TenantContext
    ) -> None:
        """For the guard, when a caller was known by a cookie: a browser adds it for any page, so the page's origin has to be ours or one
        that the tenant lists.

        Raises:
            Forbidden: another site's page sent the request.
        """
        origin = origin_of(connection.scope)
        if origin is None or self._is_own(connection.scope, origin):
            return
        if not is_origin(origin) or not await self._book.allowed(context.tenant_id, origin):
            raise Forbidden("Pages of this origin may not use this service.")

    def _is_own(self, scope: Scope, origin: str) -> bool:
        if self._own is not None:
            return origin == self._own
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        return origin == f"{'https' if is_https(scope, self._trusted) else 'http'}://{host}"


def _varied(headers: Headers) -> Headers:
    """Caches must not give one page's permission to another."""
    for at, (name, value) in enumerate(headers):
        if name == b"vary":
            if b"origin" in value.lower().replace(b" ", b"").split(b",") or value == b"*":
                return list(headers)
            return [*headers[:at], (b"vary", value + b", Origin"), *headers[at + 1 :]]
    return [*headers, (b"vary", b"Origin")]
