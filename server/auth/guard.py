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


class RequestIdMiddleware:
    """Gives each request an id, which is in its answer, its logs, its audit entries and its errors."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = f"req_{uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_id)


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
    return tokens.read(token.strip(), connection.scope["state"].get("request_id"))
