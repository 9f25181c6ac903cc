"""What handlers of signing in need of a request."""

from typing import Any

from litestar import Request

from server.auth.cookies import SESSION_COOKIE, session_cookie
from server.auth.devices import DEVICE_COOKIE
from server.auth.guard import request_id_of
from server.auth.identity import Identity, Where
from server.protection.address import client_address

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


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
        base_url=(state.parts.settings.public_url or _own_address(request)).rstrip("/"),
        request_id=request_id_of(request.scope),
        session_cookie=request.cookies.get(SESSION_COOKIE),
    )


def _own_address(request: Request[Any, Any, Any]) -> str:
    """Without PUBLIC_URL: the Host header where it names this machine, else the socket's own address. Any other name could be an
    attacker's, who asks for somebody's link and waits for them to open it.
    """
    server = request.scope.get("server")
    host, port = (server[0], server[1]) if server else ("localhost", None)
    if request.url.hostname in (*_LOOPBACK, host):
        return f"{request.url.scheme}://{request.url.netloc}"
    name = f"[{host}]" if ":" in host else host
    return f"{request.url.scheme}://{name}" + (f":{port}" if port else "")


def set_cookie(request: Request[Any, Any, Any], cookie: str) -> None:
    """Add a Set-Cookie header to the answer."""
    request.scope["state"].setdefault("set_cookies", []).append(cookie)


def set_session(request: Request[Any, Any, Any], value: str | None) -> None:
    """Give the browser its session, where it is one."""
    if value is not None:
        set_cookie(request, session_cookie(value))
