"""Who is asking, and whether this route is open to them. A route that says neither its scopes nor ``public``
is open to nobody.
"""

from typing import Any
from uuid import uuid4

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.auth.tokens import Tokens
from storage.errors import Forbidden, Unauthenticated
from storage.tenancy import TenantContext


def request_id_of(scope: Scope) -> str:
    """The request's id, drawn at the first call: it is in the answer, the logs, the audit entries and the errors."""
    state: dict[str, Any] = scope.setdefault("state", {})
    return str(state.setdefault("request_id", f"req_{uuid4().hex}"))


class RequestIdMiddleware:
    """Binds the request's id to all that is logged while it is handled."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id_of(scope))
        await self.app(scope, receive, send)


async def stamp(message: Message, scope: Scope) -> None:
    """Before each answer leaves. Not in the middleware: an unknown address gets its answer before that is reached."""
    if message["type"] == "http.response.start":
        message["headers"] = [
            *message.get("headers", ()),
            (b"x-request-id", request_id_of(scope).encode()),
            (b"x-content-type-options", b"nosniff"),
        ]


def require_scopes(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Guard of the whole application: deny by default.

    Raises:
        Unauthenticated: the route wants a token, and there is none that is valid.
        Forbidden: the route does not say who may use it, or the caller lacks a scope.
    """
    if handler.opt.get("public"):
        return
    scopes = handler.opt.get("scopes")
    if not scopes:
        raise Forbidden("This address is not open to anybody.")
    context = authenticate(connection)
    if missing := set(scopes) - context.scopes:
        raise Forbidden("You are not allowed to do this.", missing_scopes=sorted(missing))
    connection.scope["state"]["context"] = context
    structlog.contextvars.bind_contextvars(tenant_id=str(context.tenant_id), actor=context.actor)


def authenticate(connection: ASGIConnection[Any, Any, Any, Any]) -> TenantContext:
    """The caller by the Authorization header.

    Raises:
        Unauthenticated: no bearer token, or none that is valid.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(
            "Send an access token: Authorization: Bearer … (POST /api/v1/auth/login gives one)."
        )
    tokens: Tokens = connection.app.state.tokens
    return tokens.read(token.strip(), request_id_of(connection.scope))
