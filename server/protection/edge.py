"""The outermost layer: what is refused before a route is looked for, and the headers of every answer.

Litestar's middleware runs only where a route was found, so the answer to an unknown address would leave without protection. ``Edge``
stands in front of Litestar's router instead. The order, from outside:

1. ``Edge``: method, length of the address, number of headers; preflights; headers of all answers (security, CORS, rate limits).
2. Litestar's exception handler and router.
3. ``Protection.middleware``: ``AddressLimitMiddleware``, ``BodyLimitMiddleware``, ``IdempotencyMiddleware``.
4. the application's guards; the one that finds the caller calls ``Protection.check_caller``.
5. ``Protection.before_request``: looks at the query; replays, or begins, a request with an Idempotency-Key.
6. the handler.
"""

from typing import Any

import msgspec
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.auth.guard import request_id_of
from server.errors import envelope
from server.protection.address import is_https
from server.protection.bodies import BodyLimitMiddleware
from server.protection.cors import Cors, OriginBook
from server.protection.errors import AddressTooLong, HeadersTooLarge, MethodNotAllowed
from server.protection.headers import Headers, secured
from server.protection.idempotency import Idempotency, IdempotencyMiddleware, IdempotencyStore
from server.protection.limits import AddressLimitMiddleware, RateLimits, rate_headers
from server.protection.queries import check_query
from server.protection.refusals import Refusals
from server.protection.settings import ProtectionSettings
from storage.errors import AppError, ConfigurationError
from storage.limits import RateLimiter
from storage.tenancy import TenantContext

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MAX_ADDRESS = 8192  # RFC 9110 4.1 asks for at least 8,000
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32_768


class Protection:
    """All of it, for one process. ``install`` after the application was made, ``aclose`` at the end."""

    def __init__(
        self,
        settings: ProtectionSettings,
        limiter: RateLimiter,
        origins: OriginBook,
        answers: IdempotencyStore | None = None,
    ) -> None:
        """Without a store for answers the Idempotency-Key header has no meaning here."""
        self.settings = settings
        self.limits = RateLimits(limiter, settings)
        self.cors = Cors(origins, settings.public_url, settings.networks)
        self.idempotency = Idempotency(answers) if answers else None
        self._limiter = limiter

    @property
    def middleware(self) -> list[DefineMiddleware]:
        """For ``Litestar(middleware=[RequestIdMiddleware, *protection.middleware])``; the first is the outermost."""
        parts = [
            DefineMiddleware(AddressLimitMiddleware, limits=self.limits),
            DefineMiddleware(BodyLimitMiddleware, settings=self.settings),
        ]
        if self.idempotency is not None:
            parts.append(DefineMiddleware(IdempotencyMiddleware, store=self.idempotency.store))
        return parts

    async def before_request(self, request: Any) -> Any:
        """For ``Litestar(before_request=protection.before_request)``."""
        check_query(request.scope)
        return await self.idempotency.before_request(request) if self.idempotency else None

    async def check_caller(
        self,
        connection: ASGIConnection[Any, Any, Any, Any],
        context: TenantContext,
        *,
        user: str | None = None,
        key: str | None = None,
        by_cookie: bool = False,
    ) -> None:
        """For the guard, when it knows who asks and before anything is done.

        Raises:
            RateLimited: user, key or tenant has had its share.
            LimiterUnavailable: nobody can tell, and the route's class is closed then.
            Forbidden: a browser's cookie came with another site's page.
        """
        if by_cookie:
            await self.cors.check_origin(connection, context)
        await self.limits.check_caller(connection, context, user=user, key=key)

    def install(self, app: Litestar) -> Litestar:
        """Put the outermost layer in front of the application's router.

        Raises:
            ConfigurationError: a route names a class of limits that does not exist, or sets a ``before_request`` of its own, which would
                take the place of ours.
        """
        for route in app.routes:
            found: Any = route
            for handler in getattr(found, "route_handlers", None) or [found.route_handler]:
                self.limits.check_name(handler.opt.get("limit"))
                layers = [layer for layer in handler.ownership_layers if layer is not app]
                if any(getattr(layer, "before_request", None) for layer in layers):
                    raise ConfigurationError(f"{handler}: before_request belongs to the protection.")
        app.asgi_handler = Edge(app.asgi_handler, self)
        return app

    async def aclose(self) -> None:
        await self._limiter.aclose()


class Edge:
    """See the module."""

    def __init__(self, app: ASGIApp, protection: Protection) -> None:
        self._app = app
        self._limits = protection.limits
        self._cors = protection.cors
        self._trusted = protection.settings.networks
        self._always_https = (protection.settings.public_url or "").startswith("https://")
        self._refusals = Refusals(self._trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def protected(message: Message) -> None:
            await self._send(message, scope, receive, send)

        try:
            self._check_shape(scope)
            if self._cors.is_preflight(scope):
                await self._limits.check_address(scope, "public")
                headers = await self._cors.preflight(scope)
                await protected({"type": "http.response.start", "status": 204, "headers": headers})
                await protected({"type": "http.response.body", "body": b"", "more_body": False})
                return
        except AppError as refused:
            await _refuse(refused, scope, protected)
            return
        await self._app(scope, receive, protected)

    def _check_shape(self, scope: Scope) -> None:
        if scope["type"] == ScopeType.HTTP and scope["method"] not in METHODS:
            raise MethodNotAllowed("No address here has this method.")
        if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > MAX_ADDRESS:
            raise AddressTooLong(f"The address is longer than {MAX_ADDRESS} bytes.", max_bytes=MAX_ADDRESS)
        headers = list(scope["headers"])
        if len(headers) > MAX_HEADERS:
            raise HeadersTooLarge(f"More than {MAX_HEADERS} headers.", max_headers=MAX_HEADERS)
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            raise HeadersTooLarge("The headers are too long.", max_bytes=MAX_HEADER_BYTES)

    async def _send(self, message: Message, scope: Scope, receive: Receive, send: Send) -> None:
        kind = message["type"]
        if kind == "websocket.close" and not scope["state"].get("edge_accepted"):
            await self._refuse_handshake(message, scope, send)
            return
        if kind != "http.response.start":
            if kind == "websocket.accept":
                scope["state"]["edge_accepted"] = True
            if not scope["state"].get("edge_replaced"):
                await send(message)
            return
        started: Any = message
        if started["status"] == 404 and "route_handler" not in scope:
            # Whoever tries addresses is counted like everybody else; no middleware has seen the request.
            try:
                await self._limits.check_address(scope, "default")
            except AppError as refused:
                await _refuse(refused, scope, lambda part: self._send_safe(part, scope, send))
                scope["state"]["edge_replaced"] = True
                return
        await self._send_safe(message, scope, send)

    async def _send_safe(self, message: Message, scope: Scope, send: Send) -> None:
        if message["type"] == "http.response.start":
            started: Any = message
            started["headers"] = await self._headers(started.get("headers", ()), scope, started["status"])
            busy = (
                scope["state"].get("refused") == "RATE_LIMITED"
            )  # 503: a refusal too, where we have too much to do
            if 400 <= started["status"] < 500 or busy:
                self._refusals.told(scope, started["status"])
        await send(message)

    async def _refuse_handshake(self, message: Message, scope: Scope, send: Send) -> None:
        """A refused socket's answer with a status and headers, where the server can send one (ASGI's denial response); else a bare 403."""
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send(message)
            return
        closing: Any = message
        code, status = int(closing.get("code") or 1008), 403
        if 4400 <= code < 4600:  # Litestar's own: 4000 and the status
            status = code - 4000
        sentence = str(closing.get("reason") or "This socket is not open to you.")
        if status >= 500 and "route_handler" not in scope:  # what Litestar says of a socket's unknown address
            status, sentence = 404, "No such address."
        if status < 500:
            self._refusals.told(scope, status)
        body = msgspec.json.encode(
            envelope(
                code_of(status), sentence if status < 500 else "Try again later.", {}, request_id_of(scope)
            )
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        start: Any = {
            "type": "websocket.http.response.start",
            "status": status,
            "headers": await self._headers(headers, scope, status),
        }
        await send(start)
        rest: Any = {"type": "websocket.http.response.body", "body": body}
        await send(rest)

    async def _headers(self, said: Any, scope: Scope, status: int) -> Headers:
        headers: Headers = [(name.lower(), value) for name, value in said]
        state = scope["state"]
        if (found := state.get("rate_limit")) is not None:
            headers += rate_headers(found)
        if status in {409, 429, 503} and (wait := state.get("retry_after")) is not None:
            headers.append((b"retry-after", b"%d" % wait))
        https = self._always_https or is_https(scope, self._trusted)
        return secured(await self._cors.shared(headers, scope), scope, https=https)


def code_of(status: int) -> str:
    """The envelope's code for a refused socket."""
    return {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RATE_LIMITED"}.get(
        status, "FORBIDDEN" if status < 500 else "UPSTREAM_UNAVAILABLE"
    )


async def _refuse(refused: AppError, scope: Scope, send: Send) -> None:
    """The error's envelope, or for a socket a close, which Litestar's convention for its code describes."""
    scope["state"]["refused"] = refused.code
    if scope["type"] != ScopeType.HTTP:
        close: Any = {"type": "websocket.close", "code": 4000 + refused.status, "reason": refused.message}
        await send(close)
        return
    body = msgspec.json.encode(envelope(refused.code, refused.message, refused.details, request_id_of(scope)))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if isinstance(refused, MethodNotAllowed):
        headers.append((b"allow", ", ".join(sorted(METHODS)).encode()))
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
