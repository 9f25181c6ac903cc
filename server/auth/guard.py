"""Who is asking, and whether this route is open to them. A route that says neither its scopes nor ``self`` nor ``public`` is open
to nobody.

What a route says in ``opt``:
    public: anybody, without showing anything.
    self: every person who is signed in, for what concerns only themselves.
    scopes: those who have all of these permissions.
    step_up: only a person who proved within ten minutes, with all they have, that it is them.
    people: no API keys.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.auth.caller import Caller, blocked
from server.auth.cookies import SESSION_COOKIE, session_cookie
from server.auth.principals import Found, Principals
from server.protection.address import client_address
from storage.errors import Forbidden, Unauthenticated

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-requested-with"
_KEY_PREFIX = "sec_"


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
            *((b"set-cookie", cookie.encode()) for cookie in scope["state"].get("set_cookies", ())),
        ]


async def require_rights(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Guard of the whole application: deny by default.

    Raises:
        Unauthenticated: the route wants to know who asks, and nothing valid was shown.
        Forbidden: the route does not say who may use it, or the caller may not.
        RateLimited: the caller has had their share.
    """
    opt = handler.opt
    if opt.get("public"):
        return
    scopes = opt.get("scopes")
    if not scopes and not opt.get("self"):
        raise Forbidden("This address is not open to anybody.")
    found = await authenticate(connection)
    caller, context = found.caller, found.caller.context
    state = connection.scope["state"]
    if found.new_cookie is not None:
        # Before anything can refuse the request: a browser that is not told its new cookie is signed out by that.
        state.setdefault("set_cookies", []).append(session_cookie(found.new_cookie))
    structlog.contextvars.bind_contextvars(tenant_id=str(context.tenant_id), actor=context.actor)
    if caller.via == "cookie":
        _refuse_forged(connection)
    # Before the rights: whoever is refused is counted too.
    await connection.app.state.protection.check_caller(
        connection,
        context,
        user=str(caller.account_id) if caller.account_id else None,
        key=str(caller.key_id) if caller.key_id else None,
        by_cookie=caller.via == "cookie",
    )
    if scopes and caller.blocked:
        raise blocked(caller.blocked)
    if missing := set(scopes or ()) - context.scopes:
        raise Forbidden("You are not allowed to do this.", missing_scopes=sorted(missing))
    if caller.via == "key" and (opt.get("self") or opt.get("people") or opt.get("step_up")):
        raise Forbidden("This is for people, not for API keys.")
    if opt.get("step_up") and not caller.fresh(datetime.now(UTC)):
        raise Forbidden("Prove first that it is you: POST /api/v1/auth/step-up.", reason="step_up")
    state["caller"], state["context"] = caller, context


async def authenticate(connection: ASGIConnection[Any, Any, Any, Any]) -> Found:
    """The caller by the Authorization header, or else by the browser's cookie.

    Raises:
        Unauthenticated: nothing was shown, or nothing that is valid.
    """
    principals: Principals = connection.app.state.identity.principals
    request_id = request_id_of(connection.scope)
    header = connection.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("Send Authorization: Bearer and an access token or an API key.")
        if token.startswith(_KEY_PREFIX):
            ip = client_address(connection.scope, connection.app.state.protection.settings.networks)
            return await principals.by_key(token, ip, request_id)
        return await principals.by_token(token, request_id)
    cookie = connection.cookies.get(SESSION_COOKIE)
    if cookie is None:
        raise Unauthenticated(
            "Send an access token: Authorization: Bearer … (POST /api/v1/auth/login gives one)."
        )
    return await principals.by_cookie(cookie, request_id)


def _refuse_forged(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """A browser adds the cookie to what any page sends. A page of another origin cannot add our header without asking first.

    Raises:
        Forbidden: a change, and not from our page.
    """
    method = connection.scope.get("method", "GET")
    if method in SAFE_METHODS:
        return
    if not connection.headers.get(CSRF_HEADER):
        raise Forbidden(f"Send the header {CSRF_HEADER} with requests that change something.")
    if connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not (
        connection.headers.get("origin")
    ):
        raise Forbidden("This request came from another site's page.")


def caller_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Who the guard has let in."""
    caller: Caller = connection.scope["state"]["caller"]
    return caller
