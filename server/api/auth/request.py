"""What handlers of signing in need of a request."""

from typing import Any

from litestar import Request

from server.auth.cookies import session_cookie
from server.auth.devices import DEVICE_COOKIE
from server.auth.guard import request_id_of
from server.auth.identity import Identity, Where
from server.protection.address import client_address


def identity_of(request: Request[Any, Any, Any]) -> Identity:
    identity: Identity = request.app.state.identity
    return identity


def where_of(request: Request[Any, Any, Any]) -> Where:
    """From where the request comes. Links in mails lead to PUBLIC_URL: the Host header is the client's word."""
    state = request.app.state
    return Where(
        ip=client_address(request.scope, state.protection.settings.networks),
        user_agent=request.headers.get("user-agent"),
        device_cookie=request.cookies.get(DEVICE_COOKIE),
        base_url=(state.parts.settings.public_url or f"{request.url.scheme}://{request.url.netloc}").rstrip(
            "/"
        ),
        request_id=request_id_of(request.scope),
    )


def set_cookie(request: Request[Any, Any, Any], cookie: str) -> None:
    """Add a Set-Cookie header to the answer."""
    request.scope["state"].setdefault("set_cookies", []).append(cookie)


def set_session(request: Request[Any, Any, Any], value: str | None) -> None:
    """Give the browser its session, where it is one."""
    if value is not None:
        set_cookie(request, session_cookie(value))
