"""The two cookies: the session, and the proof that somebody signed in on this device before. Both only over https (browsers take
http on the own machine for that), for this host only, and out of reach of scripts.
"""

from server.auth.devices import DEVICE_COOKIE, DEVICE_DAYS

SESSION_COOKIE = "__Host-sid"
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"


def session_cookie(value: str) -> str:
    """A Set-Cookie header. Without Max-Age: the server ends the session, and the browser forgets it when it is closed."""
    return f"{SESSION_COOKIE}={value}; {_ATTRIBUTES}"


def ended_cookie() -> str:
    return f"{SESSION_COOKIE}=; Max-Age=0; {_ATTRIBUTES}"


def device_cookie(value: str) -> str:
    return f"{DEVICE_COOKIE}={value}; Max-Age={DEVICE_DAYS * 86_400}; {_ATTRIBUTES}"
